"""Read the frames of a video file or a camera, with their times.

OpenCV is imported when a video is opened; it comes with the extra ``faces``.
"""

import math
import os
import re
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import special_kind
from fer_lightning.inference.containers import is_video_content, lacks_index
from fer_lightning.inference.faces import INSTALL

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".avi", ".mkv", ".webm", ".ogv"),
    *(".mpg", ".mpeg", ".mts", ".m2ts", ".wmv", ".flv"),
)
RATE_IF_UNKNOWN = 25.0  # frames per second
_RATES = (1.0, 240.0)  # containers without a rate give 0, 1000 or 90000
_MAX_STEP = 10.0  # seconds from one frame to the next; a longer step is a wrong time
_MAX_PIXELS = 64_000_000  # of a frame; 8K has 33 million
# A container's length is that of its sound, too, which may be a little longer than the frames.
_TOLERANCE = (0.5, 0.03)  # seconds, and of the length
_CAMERA = re.compile(r"\d{1,2}", re.ASCII)  # OpenCV takes 100 and more for its drivers
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.ASCII | re.IGNORECASE)


class Frame(NamedTuple):
    """A frame of a video.

    Attributes:
        seconds: Since the first frame.
        is_sampled: Whether it is one of those that are predicted.
        pixels: ``(H, W, 3)`` uint8, red, green, blue; upright.
    """

    seconds: float
    is_sampled: bool
    pixels: NDArray[np.uint8]


def is_url(argument: str) -> bool:
    """Return whether an argument is a URL, such as ``rtsp://camera/1``."""
    return _URL.match(argument) is not None


def is_camera(argument: str) -> bool:
    """Return whether an argument is the number of a camera, and no file or folder has this name."""
    return _CAMERA.fullmatch(argument) is not None and not Path(argument).exists()


def is_video(argument: str) -> bool:
    """Return whether an argument is a camera or a video, by its suffix or else by its content."""
    if is_camera(argument):
        return True
    path = Path(argument).expanduser()
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return True
    try:
        return path.is_file() and is_video_content(path)
    except (OSError, ValueError):
        return False


class VideoReader:
    """Reads the frames of a video in their order, one at a time.

    Rotated videos of telephones are turned upright. Times are those of the container if they grow; where it
    has none, frames are counted. A camera's times are those of the clock.

    Args:
        source: A path, or the number of a camera.

    Attributes:
        rate: Frames per second; 25 if the container does not give it.
        length: Seconds by the container; None if unknown.
        seconds: Those that were read.
        num_frames: Those that were read.
        is_camera: Whether it is a camera.

    Raises:
        FERError: If it cannot be opened, without its name.
    """

    def __init__(self, source: Path | int) -> None:
        cv2 = import_cv2()
        if isinstance(source, Path):
            _check_file(source)
            # An absolute path is never taken as a URL, nor as a pattern of images.
            self._capture = cv2.VideoCapture(str(source.absolute()), cv2.CAP_FFMPEG)
        else:
            self._capture = cv2.VideoCapture(source)
        if not self._capture.isOpened():
            raise FERError(_not_opened(cv2, source))
        self.is_camera = not isinstance(source, Path)
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        self._pos_msec = cv2.CAP_PROP_POS_MSEC
        width, height, rate, count = (
            self._capture.get(key)
            for key in (
                cv2.CAP_PROP_FRAME_WIDTH,
                cv2.CAP_PROP_FRAME_HEIGHT,
                cv2.CAP_PROP_FPS,
                cv2.CAP_PROP_FRAME_COUNT,
            )
        )
        if width * height > _MAX_PIXELS:
            self.close()
            raise FERError(
                f"frames of {width:.0f} x {height:.0f} pixels, more than the {_MAX_PIXELS:,} allowed"
            )
        has_rate = _RATES[0] <= rate <= _RATES[1]
        self.rate: float = rate if has_rate else RATE_IF_UNKNOWN
        has_count = rate > 0 and 0 < count < 1e9 and not self.is_camera
        self._count: float | None = count if has_count else None
        self.length: float | None = count / rate if has_count else None
        self.seconds, self.num_frames = 0.0, 0

    def frames(self, fps: float, *, every: bool = False, seconds: float = math.inf) -> Iterator[Frame]:
        """Read the frames.

        Args:
            fps: Frames per second that are sampled; all of a video that has fewer.
            every: Yield those that are not sampled, too.
            seconds: How many to read.
        """
        last_slot, clock = -1, _Clock(1 / self.rate)
        start = time.monotonic()
        while self._capture.grab():
            now = time.monotonic() - start if self.is_camera else self._capture.get(self._pos_msec) / 1000
            at = clock.tick(now)
            if at >= seconds:
                break
            self.seconds, self.num_frames = at + 1 / self.rate, self.num_frames + 1
            slot = math.floor(at * fps + 0.5)  # times are rounded to milliseconds
            is_sampled, last_slot = slot != last_slot, slot
            if is_sampled or every:
                read, pixels = self._capture.retrieve()
                if read and pixels is not None:
                    yield Frame(at, is_sampled, _as_rgb(pixels))

    def problem(self) -> str | None:
        """Say why the last frame was not the end, once ``frames`` has ended by itself; None if it was."""
        if self.num_frames == 0:
            return "no frame of it can be decoded; it is damaged, or holds no video"
        if self.is_camera:
            return f"the camera sent no more frames after {self.seconds:.1f} seconds"
        if self.length is None or self._count is None:
            return None
        tolerance = max(_TOLERANCE[0], _TOLERANCE[1] * self.length)
        # A last frame that is shown for long is no missing one.
        if self.seconds >= self.length - tolerance or self.num_frames >= self._count - tolerance * self.rate:
            return None
        return f"broken off: {self.seconds:.1f} of {self.length:.1f} seconds could be read"

    def close(self) -> None:
        """Release the file or the camera."""
        self._capture.release()


class _Clock:
    """Makes times that grow from 0: those of the container, or counted where they do not.

    Args:
        step: Seconds of a frame.
    """

    def __init__(self, step: float) -> None:
        self._step = step
        self._last: float | None = None
        self._now = 0.0

    def tick(self, time: float) -> float:
        """Take the time of the next frame; return that since the first."""
        if self._last is not None:
            passed = time - self._last
            self._now += passed if 0 < passed <= _MAX_STEP else self._step
        self._last = time
        return self._now


def import_cv2() -> Any:
    """Import OpenCV, without its own lines on standard error.

    Raises:
        FERError: If it is not installed.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET; read when FFmpeg is first used
    try:
        cv2 = import_module("cv2")
    except ImportError as error:
        raise FERError(f"OpenCV is not installed, and videos cannot be read without it; {INSTALL}") from error
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def _check_file(path: Path) -> None:
    if kind := special_kind(path):
        raise FERError(f"{kind}, expected a file; save its content to a file first")
    try:
        str(path).encode()
    except UnicodeEncodeError as error:  # on which OpenCV 4.14 crashes
        raise FERError("its name is not UTF-8, which OpenCV needs; rename the video") from error
    try:
        # FFmpeg follows what a file says: a list of files or addresses is opened, whatever its suffix.
        is_known = is_video_content(path)
    except OSError as error:
        raise FERError(str(error.strerror or error)) from error
    if not is_known:
        size = path.stat().st_size
        raise FERError(
            "not a video (expected MP4, MOV, AVI, Matroska, WebM, Ogg, MPEG, WMV or FLV)"
            if size
            else "0 bytes"
        )


def _not_opened(cv2: Any, source: Path | int) -> str:
    if not isinstance(source, Path):
        return (
            "no camera of this number can be opened; cameras count from 0, and another program may hold this "
            "one"
        )
    if lacks_index(source):
        return (
            "broken off: its index (moov), which is written last, is missing; copy it again, or repair it "
            "with a tool such as untrunc"
        )
    return (
        f"cannot be opened as a video: it is damaged, holds no frames, or OpenCV {cv2.__version__} lacks its "
        "codec; convert it, as by ffmpeg -i VIDEO video.mp4"
    )


def _as_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if pixels.ndim == 2:  # cameras of one channel
        return np.repeat(pixels[:, :, None], 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, 2::-1])  # from BGR
