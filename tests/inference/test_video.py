"""Reading videos, and predicting their frames."""

import math
import tracemalloc

import cv2
import numpy as np
import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.inference import video as video_module
from fer_lightning.inference.predictor import FERPredictor
from fer_lightning.inference.video import VideoReader, is_camera, is_url, is_video
from fer_lightning.inference.video_predictor import is_cut
from tests import videos


@pytest.fixture
def predictor(make_checkpoint):
    checkpoint, _ = make_checkpoint()
    return FERPredictor.load(checkpoint, detector="none")


def with_times(monkeypatch, tmp_path, times, **properties):
    frames = [np.zeros((8, 8, 3), np.uint8)] * len(times)
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: videos.Capture(frames, times, **properties))
    path = tmp_path / "clip.avi"
    path.write_bytes(b"RIFF\0\0\0\0AVI ")
    return VideoReader(path)


@pytest.mark.parametrize("suffix", videos.CODECS)
def test_frames_are_sampled_at_the_rate_that_is_asked_for(suffix, tmp_path):
    path = videos.write(tmp_path / f"clip{suffix}", videos.grey(30), fps=10)
    reader = VideoReader(path)
    assert (reader.rate, reader.length) == (10, 3)
    frames = list(reader.frames(5))
    assert len(frames) == 15 + 1  # rounding takes the second frame, too
    assert reader.problem() is None
    assert (reader.num_frames, reader.seconds) == (30, pytest.approx(3))
    assert len(list(VideoReader(path).frames(60))) == 30
    every = list(VideoReader(path).frames(2, every=True))
    assert [frame.is_sampled for frame in every].count(True) == pytest.approx(6, abs=1)
    assert len(every) == 30


def test_colours_are_red_green_blue(tmp_path):
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 250
    (frame, *_) = VideoReader(videos.write(tmp_path / "red.avi", [red] * 3)).frames(5)
    assert frame.pixels.mean(axis=(0, 1)) == pytest.approx([250, 0, 0], abs=8)


def test_video_of_a_telephone_is_turned_upright(tmp_path):
    path = videos.write(tmp_path / "clip.mp4", videos.grey(5))
    videos.turned(path)
    frame = next(VideoReader(path).frames(5))
    assert frame.pixels.shape == (videos.SIZE[0], videos.SIZE[1], 3)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 0.04, 0.2, 0.21], [0, 0.04, 0.2, 0.21]),  # a variable rate
        ([5, 5.1, 5.2], [0, 0.1, 0.2]),  # not from 0
        ([0, 0, 0], [0, 0.1, 0.2]),  # none: counted
        ([0, 0.1, 1e6, 1e6 + 0.1], [0, 0.1, 0.2, 0.3]),  # a leap
        ([0, 0.1, 0.05, 0.15], [0, 0.1, 0.2, 0.3]),  # back
        ([0, math.nan, 0.2, 0.3], [0, 0.1, 0.2, 0.3]),
    ],
)
def test_times_grow_whatever_the_container_says(times, expected, tmp_path, monkeypatch):
    reader = with_times(monkeypatch, tmp_path, times, FPS=10.0)
    assert [frame.seconds for frame in reader.frames(1000)] == pytest.approx(expected)


@pytest.mark.parametrize("rate", [0.0, math.nan, math.inf, 90000.0, -1.0])
def test_missing_rate_is_25_and_missing_count_unknown(rate, tmp_path, monkeypatch):
    reader = with_times(monkeypatch, tmp_path, [0] * 4, FPS=rate, FRAME_COUNT=-1.0)
    assert (reader.rate, reader.length) == (25, None)
    assert [frame.seconds for frame in reader.frames(1000)] == pytest.approx([0, 0.04, 0.08, 0.12])
    assert reader.problem() is None


def test_last_frame_that_is_shown_for_long_is_not_missing(tmp_path, monkeypatch):
    times = [0, 0.1, 0.2]
    reader = with_times(monkeypatch, tmp_path, times, FPS=0.3, FRAME_COUNT=3.0)
    list(reader.frames(5))
    assert reader.problem() is None


def test_large_frames_are_refused(tmp_path, monkeypatch):
    with pytest.raises(FERError, match="frames of 60000 x 60000 pixels, more than the 64,000,000 allowed"):
        with_times(monkeypatch, tmp_path, [0], FRAME_WIDTH=60000.0, FRAME_HEIGHT=60000.0)


def test_camera_has_the_times_of_the_clock_and_ends_when_it_is_unplugged(monkeypatch, predictor):
    opened = []
    camera = videos.Capture(videos.grey(6), [0] * 6, FPS=30.0)
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: opened.append(number) or camera)
    clock = iter(np.arange(100) / 10)
    monkeypatch.setattr(video_module.time, "monotonic", lambda: next(clock))
    video = predictor.video(3)
    found = list(video)
    assert opened == [3]
    assert [frame.seconds for frame in found][:2] == [0, pytest.approx(0.1)]
    assert video.problem == "the camera sent no more frames after 0.5 seconds"
    assert camera.released


def test_what_is_a_video(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    videos.write("clip.mp4", videos.grey(3))
    (tmp_path / "clip.mp4").rename("noext")
    (tmp_path / "photo").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    assert [is_video(name) for name in ("noext", "photo", "gone.MOV", "gone.jpg", "0")] == [
        *(True, False, True, False, True),
    ]
    assert is_camera("12")
    assert not is_camera("123")
    (tmp_path / "0").write_bytes(b"")
    assert not is_camera("0")
    assert [is_url(name) for name in ("rtsp://a/1", "HTTP:/a", "file:/a", "C:/a", "a/b.mp4", "udp://@1")] == [
        *(True, True, True, False, False, True),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes"),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n", "not a video"),
        (b"ffconcat version 1.0\nfile other.mp4\n", "not a video"),
        (b"v=0\no=- 0 0 IN IP4 127.0.0.1\n", "not a video"),
        (b"RIFF\0\0\0\0AVI " + bytes(500), "cannot be opened as a video"),
        (b"\0\0\0\x18ftypisom" + bytes(500), "broken off: its index"),
    ],
)
def test_file_that_is_no_video_is_refused(content, message, tmp_path, capfd, predictor):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(FERError, match=f"clip.mp4: {message}"):
        predictor.video(path)
    assert capfd.readouterr() == ("", "")


def test_name_that_is_not_utf8_is_refused(tmp_path, predictor):
    path = videos.write(tmp_path / "clip.avi", videos.grey(3))
    path = path.rename(tmp_path / b"caf\xe9.avi".decode("utf-8", "surrogateescape"))
    with pytest.raises(FERError, match="not UTF-8"):
        predictor.video(path)


def test_every_frame_of_a_face_belongs_to_one_track(make_checkpoint, tmp_path):
    checkpoint, _ = make_checkpoint()
    predictor = FERPredictor.load(checkpoint)
    video = predictor.video(videos.write(tmp_path / "clip.mp4", videos.moving_face(20)), fps=5)
    frames = list(video)
    assert all(len(frame.faces) == 1 for frame in frames)
    assert frames[0].faces[0].box.x < frames[-1].faces[0].box.x
    (track,) = video.tracks
    assert (track.num_frames, track.start) == (len(frames), 0)
    assert track.end == frames[-1].seconds
    assert sum(track.probs.values()) == pytest.approx(1)
    summary = video.summary()
    assert (summary["frames"], summary["frames_with_faces"]) == (len(frames), len(frames))
    assert sum(summary["shares"].values()) == pytest.approx(1)
    assert video.problem is None


def test_two_faces_and_a_cut_give_tracks(make_checkpoint, tmp_path):
    checkpoint, _ = make_checkpoint()
    predictor = FERPredictor.load(checkpoint)
    video = predictor.video(videos.write(tmp_path / "two.avi", videos.two_faces(20)))
    list(video)
    assert [track.start for track in video.tracks] == [0, 0]
    dark = [(frame[:, ::-1] // 4 + 8).astype(np.uint8) for frame in videos.moving_face(10)]
    bright = [np.maximum(frame, 60) for frame in videos.moving_face(10)]
    for frame in dark:
        frame[:, 80:] = 5
    video = predictor.video(videos.write(tmp_path / "cut.avi", [*bright, *dark]), smoothing=0)
    list(video)
    assert all(track.end < 1 or track.start >= 0.9 for track in video.tracks)


def test_motion_is_no_cut_and_another_scene_is():
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:32, :32]
    hill = 120 + 80 * np.sin(rows / 9) * np.cos(columns / 9)
    assert not is_cut(hill, np.roll(hill, 3, axis=1))
    assert not is_cut(hill, hill * 0.5)  # the light goes
    assert is_cut(hill, rng.uniform(0, 60, (32, 32)))
    assert not is_cut(hill, rng.permuted(hill.ravel()).reshape(32, 32))  # the same grey levels


def test_broken_video_keeps_what_was_read(tmp_path, predictor):
    path = videos.write(tmp_path / "clip.avi", videos.grey(30))
    videos.broken_off(path)
    video = predictor.video(path)
    frames = list(video)
    assert 5 < len(frames) < 12
    assert video.problem.startswith("broken off: 1.")
    assert video.problem.endswith("of 3.0 seconds could be read")
    assert video.tracks[0].num_frames == len(frames)


def test_only_the_seconds_that_are_asked_for_are_read(tmp_path, predictor):
    video = predictor.video(videos.write(tmp_path / "clip.avi", videos.grey(30)), seconds=1)
    assert max(frame.seconds for frame in video) < 1
    assert video.problem is None


@pytest.mark.parametrize(
    ("setting", "value"), [("fps", 0), ("fps", math.nan), ("smoothing", -1), ("seconds", 0)]
)
def test_setting_outside_its_range_is_refused(setting, value, tmp_path, predictor):
    path = videos.write(tmp_path / "clip.avi", videos.grey(3))
    with pytest.raises(FERError, match=setting):
        predictor.video(path, **{setting: value})


def test_memory_does_not_grow_with_the_length(tmp_path, predictor):
    def peak(num_frames):
        path = videos.write(tmp_path / f"{num_frames}.avi", videos.grey(num_frames))
        video = predictor.video(path, fps=100)
        tracemalloc.start()
        for _ in video:
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    peak(40)
    assert peak(400) < peak(40) + 200_000  # a frame has 58 kB


def test_frames_can_be_taken_once(tmp_path, predictor):
    video = predictor.video(videos.write(tmp_path / "clip.mp4", videos.moving_face(5)))
    assert len(list(video)) > 0
    with pytest.raises(FERError, match="its frames were already taken"):
        list(video)
