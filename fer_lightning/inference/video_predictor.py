"""Predict the faces of a video, frame by frame, and follow them over time."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.core.text import writable
from fer_lightning.inference.images import Photo
from fer_lightning.inference.results import FaceList, ImageResult
from fer_lightning.inference.tracks import SMOOTHING, Track, Tracker
from fer_lightning.inference.video import Frame, VideoReader

FPS = 5.0  # frames per second; an expression of half a second is in two or three
MAX_FPS = 1000.0
_BATCH = 16  # frames predicted at a time
# Two frames show different scenes if both are lower, as of 89 of the 90 pairs of 14 photographs of
# scikit-image. Between frames 0.2 seconds apart with fast motion the correlation is at least 0.47.
_CUT_CORRELATION, _CUT_OVERLAP = 0.4, 0.85
_THUMBNAIL = 32  # pixels

StreamNamed = Callable[[Iterable[tuple[str, Photo]]], Iterator[ImageResult]]


class FrameResult(NamedTuple):
    """What was found in one frame of a video.

    Attributes:
        seconds: Since the first frame.
        faces: From left to right, as ``VideoFace``; empty if there are none.
        is_predicted: False for a frame between those that are predicted.
        pixels: ``(H, W, 3)`` uint8 RGB of the upright frame, if it was asked for.
    """

    seconds: float
    faces: FaceList
    is_predicted: bool = True
    pixels: NDArray[np.uint8] | None = None


class VideoPrediction:
    """The predictions of one video; iterate over it once to get a ``FrameResult`` for each frame.

    Frames are read and predicted while they are taken, in memory that does not grow with their number. What
    was predicted up to now is in ``tracks`` and ``summary``, also if the iteration is left early.

    Args:
        stream_named: ``FERPredictor.stream_named``.
        source: The path of a video, or the number of a camera.
        fps: Frames per second that are predicted; all of a video that has fewer.
        smoothing: Time constant of the weighted mean of a face's probabilities, in seconds; 0 for none.
        threshold: The probability below which an answer is unsure; None for none.
        every_frame: Yield the frames between those that are predicted, too, and the pixels of all.
        seconds: How much of the video to predict.

    Attributes:
        name: The path, or the number of the camera.
        problem: Why the video could not be read to its end, once the iteration is over; None if it could.

    Raises:
        FERError: If the video cannot be opened, or a number is out of its range.
    """

    def __init__(
        self,
        stream_named: StreamNamed,
        source: str | Path | int,
        *,
        fps: float = FPS,
        smoothing: float = SMOOTHING,
        threshold: float | None = None,
        every_frame: bool = False,
        seconds: float = math.inf,
    ) -> None:
        if not 0 < fps <= MAX_FPS:
            raise FERError(f"fps={fps:g}: expected more than 0 and at most {MAX_FPS:g} frames per second")
        if not 0 <= smoothing < math.inf:
            raise FERError(f"smoothing={smoothing:g}: expected 0 or more seconds")
        if not seconds > 0:
            raise FERError(f"seconds={seconds:g}: expected more than 0")
        self.name = writable(str(source))
        self.problem: str | None = None
        self._is_taken = False
        self.fps, self.smoothing = fps, smoothing
        self._stream_named, self._every, self._seconds = stream_named, every_frame, seconds
        self._tracker = Tracker(fps=fps, smoothing=smoothing, threshold=threshold)
        self._thumbnail: NDArray[np.float64] | None = None
        self._num_predicted, self._num_with_faces = 0, 0
        path = source if isinstance(source, int) else Path(source).expanduser()
        try:
            self.reader = VideoReader(path)
        except FERError as error:
            raise FERError(f"{self.name}: {error}") from error

    def __iter__(self) -> Iterator[FrameResult]:
        """Predict frame after frame.

        Raises:
            FERError: If the frames were already taken.
        """
        if self._is_taken:
            raise FERError(f"{self.name}: its frames were already taken; call video() again")
        self._is_taken = True
        try:
            frames = self.reader.frames(self.fps, every=self._every, seconds=self._seconds)
            yield from self._one_by_one(frames) if self._every else self._in_batches(frames)
            if self.problem is None and self.reader.seconds < self._seconds:
                self.problem = self.reader.problem()
        finally:
            self.reader.close()

    @property
    def tracks(self) -> tuple[Track, ...]:
        """One row for each face over time, in the order of appearance."""
        return self._tracker.tracks()

    def summary(self) -> dict[str, Any]:
        """Return what was predicted up to now, as plain values; the command's JSON adds ``tracks``."""
        tracks = self.tracks
        counts: Counter[str] = Counter()
        for track in tracks:
            counts.update({name: round(share * track.num_frames) for name, share in track.shares.items()})
        total = counts.total()
        return {
            "video": self.name,
            "seconds": round(self.reader.seconds, 3),
            "length": None if self.reader.length is None else round(self.reader.length, 3),
            "fps": self.fps,
            "smoothing": self.smoothing,
            "frames": self._num_predicted,
            "frames_with_faces": self._num_with_faces,
            "shares": {name: count / total for name, count in counts.items()} if total else {},
        }

    def _one_by_one(self, frames: Iterator[Frame]) -> Iterator[FrameResult]:
        for frame in frames:
            if not frame.is_sampled:
                yield FrameResult(frame.seconds, FaceList(), is_predicted=False, pixels=frame.pixels)
                continue
            for found in self._predict(iter([frame])):
                yield found._replace(pixels=frame.pixels)
            if self.problem is not None:
                return

    def _in_batches(self, frames: Iterator[Frame]) -> Iterator[FrameResult]:
        # A camera shows what is now: its frames do not wait for others.
        size = 1 if self.reader.is_camera else _BATCH
        while self.problem is None:
            num_found = 0
            for found in self._predict(islice(frames, size)):
                num_found += 1
                yield found
            if not num_found:
                return

    def _predict(self, frames: Iterator[Frame]) -> Iterator[FrameResult]:
        """Predict some frames together; they are read, and forgotten, while their faces are found."""
        waiting: list[tuple[float, bool]] = []

        def named() -> Iterator[tuple[str, Photo]]:
            for frame in frames:
                waiting.append((frame.seconds, self._is_cut(frame.pixels)))
                yield self.name, frame.pixels

        for number, result in enumerate(self._stream_named(named())):
            seconds, is_cut = waiting[number]
            if result.problem is not None:
                self.problem = f"at {seconds:.1f} seconds: {result.problem}"
                return
            if is_cut:
                self._tracker.cut()
            faces = self._tracker.update(seconds, result.faces)
            self._num_predicted += 1
            self._num_with_faces += bool(faces)
            yield FrameResult(seconds, faces)

    def _is_cut(self, pixels: NDArray[np.uint8]) -> bool:
        """Return whether a frame shows another scene than the predicted frame before it."""
        image = Image.fromarray(pixels).reduce(max(1, min(pixels.shape[:2]) // _THUMBNAIL)).convert("L")
        small = np.asarray(image.resize((_THUMBNAIL, _THUMBNAIL)), np.float64)
        former, self._thumbnail = self._thumbnail, small
        return former is not None and is_cut(former, small)


def is_cut(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Return whether two small images show different scenes: neither places nor grey levels agree.

    Args:
        one: ``(H, W)`` grey levels in [0, 255].
        other: The same shape.
    """
    return _correlation(one, other) < _CUT_CORRELATION and _overlap(one, other) < _CUT_OVERLAP


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return Pearson's correlation; 0 if one is blank."""
    one, other = one - one.mean(), other - other.mean()
    scale = math.sqrt(float((one**2).sum()) * float((other**2).sum()))
    return float((one * other).sum()) / scale if scale > 0 else 0.0


def _overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the intersection of the histograms of grey levels, in [0, 1]."""
    bins = [np.histogram(image, 16, (0, 256))[0] / image.size for image in (one, other)]
    return float(np.minimum(*bins).sum())
