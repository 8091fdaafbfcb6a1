"""Faces of a video over time: which boxes are the same face, and what it shows on the whole."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.inference.results import UNSURE, Box, Face, FaceList

SMOOTHING = 0.5  # seconds
SHORT = "short"
_MIN_IOU = 0.25
_PATIENCE = 1.0, 2.5  # seconds without a face, or intervals between frames, before its track ends
_MIN_FRAMES = 3  # of a track; one of fewer is flagged as short


@dataclass(frozen=True)
class VideoFace(Face):
    """A face in a frame of a video; its probabilities are smoothed over time.

    Attributes:
        seconds: The time of the frame since the first.
        track: The number of the face in the video, from 1.
    """

    seconds: float = 0.0
    track: int = 0

    def __reduce__(self) -> tuple[type["VideoFace"], tuple[Any, ...]]:
        """Copy and pickle plain values; see ``Face``."""
        return VideoFace, (*super().__reduce__()[1], self.seconds, self.track)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**super().to_dict(), "seconds": round(self.seconds, 3), "track": self.track}

    def to_row(self) -> dict[str, Any]:
        """Return one value for each column of a table."""
        return {**super().to_row(), "seconds": round(self.seconds, 3), "track": self.track}


class Track(NamedTuple):
    """One face of a video over time.

    Attributes:
        number: From 1, in the order of appearance.
        start: Seconds of the first frame with the face.
        end: Seconds of the last one.
        num_frames: Predicted frames with the face.
        expression: The most probable class by ``probs``.
        probs: Class name -> mean probability of its frames, not smoothed.
        shares: Class name -> share of its frames with this expression, smoothed.
        flags: Those of at least half of its frames; ``short`` if it has fewer than 3.
    """

    number: int
    start: float
    end: float
    num_frames: int
    expression: str
    probs: dict[str, float]
    shares: dict[str, float]
    flags: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as in the command's JSON."""
        return {
            "track": self.number,
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "frames": self.num_frames,
            "expression": self.expression,
            "probs": self.probs,
            "shares": self.shares,
            "flags": list(self.flags),
        }


@dataclass
class _Open:
    """A track that may go on."""

    number: int
    start: float
    end: float
    box: Box | None
    classes: tuple[str, ...]
    speed: tuple[float, float] = (0.0, 0.0)  # pixels per second, of the centre
    num_frames: int = 0
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    recent: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))  # weighted sum
    weight: float = 0.0
    expressions: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)


class Tracker:
    """Follows faces from frame to frame, and smooths their probabilities.

    A face belongs to the track whose box, moved on at its speed, overlaps most with its own (intersection
    over union of at least 0.25). A track ends after a second without a face. The smoothed probabilities of a
    face are the mean over its track up to now, weighted by ``exp(-age / smoothing)``, which does not depend
    on the number of frames per second.

    Args:
        fps: Predicted frames per second.
        smoothing: The time constant in seconds; 0 for none.
        threshold: The probability below which an answer is unsure; None for none.
    """

    def __init__(self, *, fps: float, smoothing: float = SMOOTHING, threshold: float | None = None) -> None:
        self._patience = max(_PATIENCE[0], _PATIENCE[1] / fps)
        self._smoothing, self._threshold = smoothing, threshold
        self._open: list[_Open] = []
        self._finished: list[Track] = []

    def update(self, seconds: float, faces: Sequence[Face]) -> FaceList:
        """Take the faces of the next frame; return them as ``VideoFace``, in their order."""
        self._end_all(track for track in self._open if seconds - track.end > self._patience)
        found = []
        matches = _match(self._open, faces, seconds)
        for number, face in enumerate(faces):
            track = matches.get(number)
            if track is None:
                number_of_track = len(self._open) + len(self._finished) + 1
                track = _Open(number_of_track, seconds, seconds, face.box, tuple(face.probs))
                self._open.append(track)
            found.append(self._follow(track, face, seconds))
        return FaceList(found)

    def cut(self) -> None:
        """End all tracks: what follows is another scene."""
        self._end_all(list(self._open))

    def tracks(self) -> tuple[Track, ...]:
        """Return the tracks up to now, in the order of appearance."""
        return tuple(sorted([*self._finished, *(_closed(track) for track in self._open)]))

    def _end_all(self, tracks: Iterable[_Open]) -> None:
        for track in list(tracks):
            self._open.remove(track)
            self._finished.append(_closed(track))

    def _follow(self, track: _Open, face: Face, seconds: float) -> VideoFace:
        probs = np.array(list(face.probs.values()))
        passed = seconds - track.end
        keep = math.exp(-passed / self._smoothing) if self._smoothing else 0.0
        track.recent = track.recent * keep + probs
        track.weight = track.weight * keep + 1
        if passed > 0 and track.box is not None and face.box is not None:
            (x, y), (old_x, old_y) = _centre(face.box), _centre(track.box)
            # Half of the former speed: boxes tremble.
            track.speed = (
                (track.speed[0] + (x - old_x) / passed) / 2,
                (track.speed[1] + (y - old_y) / passed) / 2,
            )
        track.box, track.end = face.box, seconds
        track.total = track.total + probs
        track.num_frames += 1
        smooth = track.recent / track.weight
        flags = tuple(flag for flag in face.flags if flag != UNSURE)
        if self._threshold is not None and smooth.max() < self._threshold:
            flags = (*flags, UNSURE)
        named = dict(zip(face.probs, smooth.tolist(), strict=True))
        expression = max(named, key=named.__getitem__)
        track.expressions[expression] += 1
        track.flags.update(flags)
        return VideoFace(*(face.image, face.box, face.score, expression, named, flags), seconds, track.number)


def _closed(track: _Open) -> Track:
    probs = dict(zip(track.classes, (track.total / track.num_frames).tolist(), strict=True))
    flags = [flag for flag, count in sorted(track.flags.items()) if 2 * count >= track.num_frames]
    return Track(
        number=track.number,
        start=track.start,
        end=track.end,
        num_frames=track.num_frames,
        expression=max(probs, key=probs.__getitem__),
        probs=probs,
        shares={name: track.expressions[name] / track.num_frames for name in track.classes},
        flags=(*flags, SHORT) if track.num_frames < _MIN_FRAMES else tuple(flags),
    )


def _match(tracks: Sequence[_Open], faces: Sequence[Face], seconds: float) -> dict[int, _Open]:
    """Pair the numbers of faces with tracks, the best overlaps first."""
    pairs = sorted(
        (
            (iou(_moved(track, seconds), face.box), place, number)
            for place, track in enumerate(tracks)
            for number, face in enumerate(faces)
        ),
        reverse=True,
    )
    found: dict[int, _Open] = {}
    used: set[int] = set()
    for overlap, place, number in pairs:
        if overlap >= _MIN_IOU and number not in found and place not in used:
            found[number] = tracks[place]
            used.add(place)
    return found


def _moved(track: _Open, seconds: float) -> Box | None:
    if track.box is None:
        return None
    passed = seconds - track.end
    return track.box._replace(
        x=track.box.x + track.speed[0] * passed, y=track.box.y + track.speed[1] * passed
    )


def _centre(box: Box) -> tuple[float, float]:
    return box.x + box.width / 2, box.y + box.height / 2


def iou(one: Box | None, other: Box | None) -> float:
    """Return the intersection of two boxes over their union, in [0, 1]; None is the whole image."""
    if one is None or other is None:
        return float(one is other)
    width = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    height = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / (one.width * one.height + other.width * other.height - common)
