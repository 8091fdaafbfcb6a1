"""Write a video with the predicted faces drawn into it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.inference.annotate import annotate
from fer_lightning.inference.results import Box, Face, FaceList
from fer_lightning.inference.tracks import VideoFace
from fer_lightning.inference.video import import_cv2
from fer_lightning.inference.video_predictor import FrameResult

SUFFIX = ".webm"
_CODEC = "VP80"  # browsers play it, and OpenCV's wheels hold its encoder; they have none for H.264
_MAX_WAITING = 200_000_000  # bytes of frames that wait for the next prediction
_MAX_REPEATS = 10  # seconds for which a frame is repeated


class AnnotatedVideo:
    """Writes VP8 in WebM, without sound, at a constant rate; the file has its name once it is whole.

    Between two predicted frames boxes move evenly from the one to the other.

    Args:
        path: With the suffix ``.webm``; replaced if it exists.
        rate: Frames per second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self._rate = path, rate
        self._partial = path.with_name(f".{path.stem}.{os.getpid()}{SUFFIX}")
        self._file: Any = None
        self._size = (0, 0)
        self._num_written = 0
        self._has_faces = False
        self._last: FrameResult | None = None  # the last predicted frame
        self._waiting: list[FrameResult] = []

    def write(self, frame: FrameResult) -> None:
        """Take the next frame, predicted or not, with its pixels.

        Raises:
            FERError: If the video cannot be written.
        """
        if frame.is_predicted:
            self._write_waiting(frame)
            self._draw(frame, frame.faces)
            self._last = frame._replace(pixels=None)
            self._has_faces |= bool(frame.faces)
            return
        self._waiting.append(frame)
        if sum(one.pixels.nbytes for one in self._waiting if one.pixels is not None) > _MAX_WAITING:
            self._write_waiting(None)

    def close(self) -> bool:
        """Write what waits, and give the file its name; return whether there is one, which holds faces.

        Raises:
            FERError: If the disk did not take all of it.
        """
        self._write_waiting(None)
        if self._file is None:
            return False
        self._file.release()
        self._file = None
        if not self._has_faces:
            self.abandon()
            return False
        self._check_whole()
        self._partial.replace(self.path)
        return True

    def abandon(self) -> None:
        """Leave no file."""
        if self._file is not None:
            self._file.release()
        self._partial.unlink(missing_ok=True)

    def _write_waiting(self, following: FrameResult | None) -> None:
        for frame in self._waiting:
            self._draw(frame, faces_between(self._last, frame.seconds, following))
        self._waiting = []

    def _draw(self, frame: FrameResult, faces: FaceList) -> None:
        if frame.pixels is None:
            return
        place = round(frame.seconds * self._rate)  # a video may have no constant rate
        if place < self._num_written:
            return
        drawn = annotate(Image.fromarray(frame.pixels), faces)
        if self._file is None:
            self._open(drawn.width, drawn.height)
        if drawn.size != self._size:
            drawn = drawn.resize(self._size)
        pixels = np.ascontiguousarray(np.asarray(drawn)[:, :, ::-1])
        for _ in range(min(place + 1 - self._num_written, round(_MAX_REPEATS * self._rate))):
            self._file.write(pixels)
        self._num_written = place + 1

    def _open(self, width: int, height: int) -> None:
        cv2 = import_cv2()
        self._size = (width - width % 2, height - height % 2)
        self._partial.unlink(missing_ok=True)
        self._partial.open("xb").close()  # an OSError names the file and says why
        with _silent_stderr():  # OpenCV says that the tag is not the one of WebM, and goes on
            code = cv2.VideoWriter_fourcc(*_CODEC)
            self._file = cv2.VideoWriter(str(self._partial.absolute()), code, self._rate, self._size)
        if not self._file.isOpened():
            self.abandon()
            raise FERError(
                f"{self.path}: OpenCV {cv2.__version__} cannot write VP8 of {width} x {height} pixels; "
                "pip install opencv-python-headless, or leave --save out"
            )

    def _check_whole(self) -> None:
        """See whether the end was written: OpenCV says nothing of a full disk."""
        cv2 = import_cv2()
        reader = cv2.VideoCapture(str(self._partial.absolute()), cv2.CAP_FFMPEG)
        count = reader.get(cv2.CAP_PROP_FRAME_COUNT) if reader.isOpened() else 0
        reader.release()
        if count < self._num_written - 1:
            self._partial.unlink(missing_ok=True)
            raise FERError(f"{self.path}: could not be written whole; is the disk full?")


def faces_between(before: FrameResult | None, seconds: float, after: FrameResult | None) -> FaceList:
    """Return the faces of a predicted frame with their boxes moved towards those of the next one.

    Args:
        before: The predicted frame before; None if there is none.
        seconds: The time between the two.
        after: The predicted frame after; None if there is none, and boxes stay.
    """
    if before is None:
        return FaceList()
    if after is None:
        return before.faces
    later = {face.track: face.box for face in after.faces if isinstance(face, VideoFace)}
    share = (seconds - before.seconds) / (after.seconds - before.seconds)
    return FaceList(_moved(face, later, share) for face in before.faces)


def _moved(face: Face, later: dict[int, Box | None], share: float) -> Face:
    end = later.get(face.track) if isinstance(face, VideoFace) else None
    if face.box is None or end is None:
        return face
    box = Box(*((1 - share) * old + share * new for old, new in zip(face.box, end, strict=True)))
    return replace(face, box=box)


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drop what a library in C prints on standard error."""
    try:
        kept = os.dup(2)
    except OSError:  # closed
        yield
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
