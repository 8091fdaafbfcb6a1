import numpy as np
import pytest

from fer_lightning.inference.results import Box, Face, FaceList
from fer_lightning.inference.tracks import Tracker
from fer_lightning.inference.video_predictor import FrameResult
from fer_lightning.inference.video_writer import AnnotatedVideo, faces_between
from tests import videos

PIXELS = np.full((360, 480, 3), 100, np.uint8)


def tracked(*boxes_over_time):
    tracker = Tracker(fps=5)
    return [
        tracker.update(seconds, [Face("clip", Box(*box), 0.9, "happy", {"happy": 0.8, "sad": 0.2})])
        for seconds, box in boxes_over_time
    ]


def test_boxes_move_evenly_between_predicted_frames():
    first, second = tracked((0, (100, 100, 80, 100)), (0.2, (120, 110, 80, 100)))
    before, after = FrameResult(0, first), FrameResult(0.2, second)
    (face,) = faces_between(before, 0.05, after)
    assert face.box == pytest.approx((105, 102.5, 80, 100))
    assert face.track == 1
    assert faces_between(before, 0.05, None) == first
    assert faces_between(before, 0.05, FrameResult(0.2, FaceList())) == first
    assert faces_between(None, 0.05, after) == ()


def write(path, times, rate=10.0):
    faces = tracked(*((seconds, (100, 150, 80, 100)) for seconds in times))
    video = AnnotatedVideo(path, rate)
    for number, seconds in enumerate(times):
        is_predicted = number % 3 == 0
        found = faces[number] if is_predicted else FaceList()
        video.write(FrameResult(seconds, found, is_predicted=is_predicted, pixels=PIXELS))
    return video


def test_written_video_has_all_frames_with_boxes(tmp_path):
    path = tmp_path / "clip_faces.webm"
    video = write(path, [i / 10 for i in range(20)])
    assert not path.exists()
    assert video.close()
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    frames, rate = videos.read(path)
    assert (len(frames), rate) == (20, 10)
    for frame in frames:
        assert frame.shape == PIXELS.shape
        left = frame[170:240, 100:102].reshape(-1, 3).mean(axis=0)
        assert left == pytest.approx([255, 176, 0], abs=60)  # the line of the box
        assert frame[170:240, 300:400].mean() == pytest.approx(100, abs=6)


def test_variable_rate_is_filled_up(tmp_path):
    assert write(tmp_path / "clip.webm", [0, 0.1, 0.5, 0.52, 0.6]).close()
    assert len(videos.read(tmp_path / "clip.webm")[0]) == 7


def test_video_without_faces_is_not_kept(tmp_path):
    video = AnnotatedVideo(tmp_path / "clip.webm", 10.0)
    video.write(FrameResult(0, FaceList(), pixels=PIXELS))
    assert not video.close()
    assert list(tmp_path.iterdir()) == []


def test_abandoned_video_leaves_nothing(tmp_path, capfd):
    video = write(tmp_path / "clip.webm", [0, 0.1, 0.2])
    video.abandon()
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
