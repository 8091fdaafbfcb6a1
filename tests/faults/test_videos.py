"""Faults of videos and cameras given to ``fer-lightning predict``."""

import os

import pytest

from tests import videos
from tests.commands import run

PREDICT = ("-m", "fer_lightning.predict")
NONE = ("--detector", "none")


@pytest.fixture
def here(tmp_path):
    videos.write(tmp_path / "clip.avi", videos.grey(30))
    return tmp_path


def test_camera_that_is_not_there_is_reported(here, cache, fault_row):
    fault_row.check(run(*PREDICT, "99", *NONE, cwd=here, cache=cache))


def test_url_is_not_opened(here, cache, fault_row):
    url = "rtsp://127.0.0.1:9/stream"
    fault_row.check(run(*PREDICT, "clip.avi", url, *NONE, cwd=here, cache=cache))


def test_video_that_breaks_off_is_predicted_as_far_as_it_goes(here, cache, fault_row):
    videos.broken_off(here / "clip.avi")
    done = run(*PREDICT, "clip.avi", *NONE, "--csv", "faces.csv", cwd=here, cache=cache)
    fault_row.check(done)
    assert "1.4 of 3.0 seconds, 8 frames predicted" in done.stdout
    assert len((here / "faces.csv").read_text().splitlines()) == 1 + 8 + 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("clip.mp4", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n", id="list of addresses"),
        pytest.param("clip.mp4", b"\0\0\0\x18ftypisom" + bytes(500), id="no index"),
        pytest.param("clip.webm", b"\x1a\x45\xdf\xa3" + bytes(500), id="damaged"),
        pytest.param("clip.mov", b"", id="empty"),
    ],
)
def test_file_that_is_no_video_is_reported(name, content, here, cache, fault_row):
    (here / name).write_bytes(content)
    done = run(*PREDICT, name, "clip.avi", *NONE, cwd=here, cache=cache)
    fault_row.check(done)
    assert "clip.avi: 3.0 seconds" in done.stdout


def test_video_without_frames_is_reported(here, cache, fault_row):
    content = (here / "clip.avi").read_bytes()
    start = content.index(b"movi") + 4
    (here / "clip.avi").write_bytes(content[:start] + bytes(len(content) - start))
    fault_row.check(run(*PREDICT, "clip.avi", *NONE, cwd=here, cache=cache))


def test_pipe_as_a_video_is_not_waited_for(here, cache, fault_row):
    os.mkfifo(here / "pipe.mp4")
    fault_row.check(run(*PREDICT, "pipe.mp4", *NONE, cwd=here, cache=cache))


@pytest.mark.slow
def test_video_without_opencv_names_the_command_that_installs_it(here, cache, fault_row):
    (here / "cv2.py").write_text("raise ImportError('no cv2')\n")  # shadows the library
    fault_row.check(run(*PREDICT, "clip.avi", *NONE, cwd=here, cache=cache, fresh=True))
