"""Faces drawn from facial action units, for machines that hold no photographs.

An expression is a set of facial action units (AU), the muscle movements of the Facial Action Coding System
(Ekman & Friesen 1978). ``ACTION_UNITS`` lists the prototypes of EMFACS (Friesen & Ekman 1983, "EMFACS-7:
Emotional Facial Action Coding System", unpublished manual); each unit moves, opens or creases one part of the
drawing by an intensity drawn for each face. Identity (bones, skin, hair, beard, glasses, resting features),
pose, light, backdrop, grain and occlusion vary beside the expression and say nothing about it.

The drawing uses only additions, products, quotients and square roots, which IEEE 754 rounds alike
everywhere, so that other processors draw the same pixels.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fer_lightning.data.faces import SPLITS, Record
from fer_lightning.errors import FERError
from fer_lightning.labels import EXPRESSIONS, canonical

GENERATOR_VERSION = 1  # part of the cache key: raise it with every change that moves a pixel

ACTION_UNITS: Mapping[str, tuple[int, ...]] = {
    "angry": (4, 5, 7, 23),  # brow lowerer, upper lid raiser, lid tightener, lip tightener
    "disgust": (9, 15, 16),  # nose wrinkler, lip corner depressor, lower lip depressor
    "fear": (1, 2, 4, 5, 7, 20, 26),  # both brow raisers with the lowerer, lids, lip stretcher, jaw drop
    "happy": (6, 12),  # cheek raiser, lip corner puller
    "neutral": (),
    "sad": (1, 4, 15),  # inner brow raiser, brow lowerer, lip corner depressor
    "surprise": (1, 2, 5, 26),  # inner and outer brow raiser, upper lid raiser, jaw drop
}
_ALL_UNITS = sorted({unit for units in ACTION_UNITS.values() for unit in units})

ClassBalance = Literal["fer2013", "uniform"]

# Images of each class in the training split of FER-2013 (Goodfellow et al. 2013).
_FER2013_COUNTS = {
    "angry": 3995,
    "disgust": 436,
    "fear": 4097,
    "happy": 7215,
    "neutral": 4965,
    "sad": 4830,
    "surprise": 3171,
}

_FAINT = 0.15  # units below this leave no wrinkle: not drawing them is a third of the time
_SIDES = (-1, 1)  # of the picture: left, right

Plane = NDArray[np.float32]  # grey levels, shares or distances, one a pixel of the canvas or of a window
Point = tuple[float, float]  # in face units
Pixel = tuple[float, float]  # column and row on the canvas
Axis = tuple[float, float, float, float]  # factors of x, y and z, and an offset
Window = tuple[slice, slice]  # rows and columns of the canvas


class SyntheticFaces:
    """A source of drawn faces, each a pure function of the settings, its split and its index.

    Other sizes only add or remove faces at the end of a split. Labels are never wrong.

    Args:
        root: Ignored: there is no file to read.
        classes: Some of the seven expressions, by name, in the order of the labels.
        image_size: Side of every face, in pixels, at least 16.
        num_train: Faces of the train split.
        num_val: Faces of the val split.
        num_test: Faces of the test split.
        seed: Non-negative; other seeds draw other faces.
        class_balance: ``fer2013`` for the class shares of its training split, ``uniform`` for equal ones.
            Either way a split that is large enough holds every class.
        difficulty: From 0 (strong frontal expressions on clean pictures) to 1 (faint ones, turned heads,
            dim, grainy, partly hidden).

    Raises:
        FERError: If a setting is out of its range.
    """

    name = "synthetic"

    def __init__(
        self,
        *,
        root: str | None = None,  # noqa: ARG002 (every source has one)
        classes: Sequence[str],
        image_size: int = 48,
        num_train: int = 7000,
        num_val: int = 1000,
        num_test: int = 1000,
        seed: int = 0,
        class_balance: ClassBalance = "fer2013",
        difficulty: float = 0.5,
    ) -> None:
        self.classes = tuple(classes)
        self.image_size = _whole_number("image_size", image_size, at_least=16)
        self.sizes = {
            "train": _whole_number("num_train", num_train, at_least=1),
            "val": _whole_number("num_val", num_val, at_least=1),
            "test": _whole_number("num_test", num_test, at_least=1),
        }
        self.seed = _whole_number("seed", seed, at_least=0)
        if class_balance not in get_args(ClassBalance):
            expected = " or ".join(get_args(ClassBalance))
            raise FERError(f"data.source.class_balance={class_balance}: expected {expected}")
        self.class_balance = class_balance
        if isinstance(difficulty, bool) or not isinstance(difficulty, int | float) or not 0 <= difficulty <= 1:
            raise FERError(f"data.source.difficulty={difficulty}: expected a number from 0 to 1")
        self.difficulty = float(difficulty)
        self.expressions = _expressions(self.classes)

    def cache_key(self) -> str:
        """Hash the settings and the version of the drawings."""
        settings = (
            GENERATOR_VERSION,
            self.classes,
            self.image_size,
            self.sizes,
            self.seed,
            self.class_balance,
            self.difficulty,
        )
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    def records(self) -> Iterator[Record]:
        """List every face, split by split; drawing waits for ``Record.pixels``."""
        for split in SPLITS:
            for index, label in enumerate(self._labels(self.sizes[split])):
                yield Record(
                    id=f"{split}/{self.classes[label]}/{index:06d}",
                    split=split,
                    label=label,
                    where=f"synthetic {split} face {index}",
                    pixels=partial(self._draw, split, index, self.expressions[label]),
                )

    def _labels(self, size: int) -> list[int]:
        # Adams' apportionment: the next face goes to the class with the least count / share. A class without
        # a face comes first, the balance holds for every prefix, and a larger split begins like a smaller one.
        uniform = self.class_balance == "uniform"
        shares = np.array([1 if uniform else _FER2013_COUNTS[name] for name in self.expressions])
        labels, counts = np.divmod(np.arange(len(shares) * size), size)
        return labels[np.lexsort((labels, counts / shares[labels]))][:size].tolist()

    def _draw(self, split: str, index: int, expression: str) -> NDArray[np.uint8]:
        key = np.random.SeedSequence(self.seed, spawn_key=(SPLITS.index(split), index))
        return draw_face(np.random.default_rng(key), expression, self.image_size, self.difficulty)


def _whole_number(setting: str, value: int, *, at_least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise FERError(f"data.source.{setting}={value}: expected a whole number, {at_least} or more")
    return value


def _expressions(classes: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(canonical(name) for name in classes)
    if not names or len(set(names)) < len(names) or not set(names) <= set(EXPRESSIONS):
        raise FERError(
            f"data.classes=[{','.join(classes)}]: the synthetic faces show {', '.join(EXPRESSIONS)}; "
            "name some of these, each once, or choose another data set"
        )
    return names


def draw_face(rng: Generator, expression: str, size: int, difficulty: float) -> NDArray[np.uint8]:
    """Draw a portrait.

    Args:
        rng: Owner of everything that varies; one generator for one face.
        expression: A key of ``ACTION_UNITS``.
        size: Side of the picture, in pixels.
        difficulty: From 0 to 1, see ``SyntheticFaces``.

    Returns:
        ``(size, size)`` uint8 grey levels.
    """
    face = _Portrait(rng, expression, size, difficulty)
    _paint_surroundings(face)
    _paint_head(face)
    _paint_eyes(face)
    _paint_brows(face)
    _paint_nose(face)
    _paint_cheeks(face)
    _paint_beard(face)
    _paint_mouth(face)
    _paint_hair(face)
    _paint_light(face)
    _paint_glasses(face)
    _paint_hand(face)
    return _expose(face)


class _Mask(NamedTuple):
    """How much of each pixel a shape covers, in a window of the canvas."""

    window: Window
    cover: Plane


class _Portrait:
    """A face on the easel.

    Lengths are in face units: the origin is the middle of the head, x points right, y down, and the head is
    2 high. The canvas, twice as fine as the picture, holds grey levels in [0, 1].
    """

    def __init__(self, rng: Generator, expression: str, size: int, difficulty: float) -> None:
        self.rng, self.difficulty = rng, difficulty
        # A face at rest is never quite at rest.
        self.units = {unit: self.vary(0, 0.4 * difficulty) for unit in _ALL_UNITS}
        strength = self.vary(1 - difficulty, 1)
        for unit in ACTION_UNITS[expression]:
            self.units[unit] = strength * self.vary(1 - 0.6 * difficulty, 1)

        self.skin, self.age = self.vary(0.5, 0.95), self.vary(0, 1)
        self.half_width = self.vary(0.68, 0.8)

        turn = 0.1 + 0.8 * difficulty  # sines of the angles
        self.yaw, self.pitch, self.roll = (self.vary(-turn, turn) * most for most in (0.6, 0.3, 0.35))
        self.canvas: Plane = np.zeros((2 * size, 2 * size), np.float32)
        self.scale = size * self.vary(1.22 - 0.12 * turn, 1.22 + 0.12 * turn)
        centre = size * self.vary(1 - 0.1 * turn, 1 + 0.1 * turn), size * self.vary(0.93 - 0.1 * turn, 0.93 + 0.1 * turn)
        self.view = _view(self.yaw, self.pitch, self.roll, self.scale, centre)
        self.pixels: Plane = np.arange(2 * size, dtype=np.float32)

        # The head's own coordinates at every pixel: their radius is 1 at the outline.
        self.everywhere, u, v = self.around(centre, 4 * size, 4 * size, self.roll, self.scale, self.scale)
        self.down: Plane = v
        self.down[self.down > 0] /= 1 + 0.12 * self.units[26]
        jaw = 1 - self.vary(0.05, 0.25) * np.maximum(self.down, 0) ** 2
        self.across: Plane = u / (self.half_width * jaw)
        self.radius: Plane = np.sqrt(self.across**2 + self.down**2)
        self.head = _Mask(self.everywhere, _cover((1 - self.radius) * (self.scale * self.half_width)))
        self.hair: Plane = self.vary(0.06, 0.5) * (0.7 + 0.6 * self.texture(2, 24))

    def vary(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.rng.random())

    def chance(self, probability: float) -> bool:
        return float(self.rng.random()) < probability

    def texture(self, rows: int, columns: int) -> Plane:
        """Random clouds in [0, 1]: a coarse grid stretched over the canvas."""
        grid = self.rng.random((rows + 1, columns + 1), dtype=np.float32)
        for axis, cells in enumerate((rows, columns)):
            at = np.arange(self.canvas.shape[0], dtype=np.float32) * (cells / self.canvas.shape[0])
            cell = at.astype(np.intp)
            part = (at - cell)[:, None] if axis == 0 else at - cell
            low, high = grid.take(cell, axis), grid.take(cell + 1, axis)
            grid = low + part * (high - low)
        return grid

    def place(self, x: float, y: float, lift: float = 0) -> Pixel:
        """Find a point of the turned head's surface, or one lifted off it, on the canvas."""
        z = 0.7 * math.sqrt(max(1 - (x / self.half_width) ** 2 - y * y, 0)) + lift
        (xx, xy, xz, x0), (yx, yy, yz, y0) = self.view
        return xx * x + xy * y + xz * z + x0, yx * x + yy * y + yz * z + y0

    def around(
        self, centre: Pixel, columns: float, rows: float, sine: float, along: float, across: float
    ) -> tuple[Window, Plane, Plane]:
        """Cut out the surroundings of a pixel: so many columns and rows to each side (none, beside the canvas).

        Returns:
            The window, and the distances from the pixel along a direction, given by its sine, and across it,
            in units of so many pixels.
        """
        (x, y), side = centre, len(self.canvas)
        window = (
            slice(max(int(y - rows), 0), max(min(int(y + rows) + 2, side), 0)),
            slice(max(int(x - columns), 0), max(min(int(x + columns) + 2, side), 0)),
        )
        right, down = self.pixels[window[1]] - x, self.pixels[window[0], None] - y
        cosine = math.sqrt(max(1 - sine * sine, 0))
        u = right * (cosine / along) + down * (sine / along)
        return window, u, down * (cosine / across) - right * (sine / across)

    def spot(self, x: float, y: float, wide: float, high: float, lift: float = 0) -> _Mask:
        """An ellipse with half axes ``wide`` and ``high``."""
        window, radius2 = self._ellipse(x, y, wide, high, lift)
        return _Mask(window, _cover((1 - np.sqrt(radius2)) * (self.scale * min(wide, high))))

    def glow(self, x: float, y: float, wide: float, high: float) -> _Mask:
        """An ellipse that fades from its middle to its edge."""
        window, radius2 = self._ellipse(x, y, wide, high, 0)
        inside = np.maximum(1 - radius2, 0)
        return _Mask(window, inside * inside)

    def lens(self, a: Point, b: Point, top: float, bottom: float) -> _Mask:
        """What lies between two parabolas from a to b, ``top`` and ``bottom`` below the chord in the middle."""
        window, half, u, v = self._chord(a, b, max(abs(top), abs(bottom)))
        bow = self.scale * (1 - u * u)
        inside = np.minimum(v - top * bow, bottom * bow - v)
        return _Mask(window, _cover(np.minimum(inside, half * (1 - np.abs(u)))))

    def stroke(self, a: Point, b: Point, sag: float, width: float) -> _Mask:
        """A pencil stroke from a to b, its middle ``sag`` below the chord, pointed at both ends."""
        window, _, u, v = self._chord(a, b, abs(sag) + width)
        u2 = u * u
        off = np.abs(v + (self.scale * sag) * (u2 - 1))
        return _Mask(window, _cover((0.5 * self.scale * width) * (1 - u2 * u2) - off))

    def _ellipse(self, x: float, y: float, wide: float, high: float, lift: float) -> tuple[Window, Plane]:
        wide, high = wide * self.scale, high * self.scale
        reach = max(wide, high)
        window, u, v = self.around(self.place(x, y, lift), reach, reach, self.roll, wide, high)
        return window, u * u + v * v

    def _chord(self, a: Point, b: Point, reach: float) -> tuple[Window, float, Plane, Plane]:
        (ax, ay), (bx, by) = sorted((self.place(*a), self.place(*b)))  # from left to right, so below is below
        wide, high = (bx - ax) / 2, (by - ay) / 2
        half = max(math.sqrt(wide * wide + high * high), 1.0)
        sine, reach = high / half, reach * self.scale
        columns, rows = wide + abs(sine) * reach, abs(high) + reach
        window, u, v = self.around((ax + wide, ay + high), columns, rows, sine, half, 1)
        return window, half, u, v

    def paint(self, mask: _Mask, tone: float | Plane, opacity: float = 1) -> None:
        part = self.canvas[mask.window]
        new = tone if isinstance(tone, float) else tone[mask.window]
        part += mask.cover * opacity * (new - part)

    @contextmanager
    def inside(self, mask: _Mask) -> Iterator[None]:
        """Let only the mask's part of what is painted meanwhile stay."""
        before, self.canvas = self.canvas, self.canvas.copy()
        yield
        after, self.canvas = self.canvas, before
        self.paint(mask, after)


def _cover(inside: Plane) -> Plane:
    """Antialias: how much of a pixel lies in a shape whose edge is so many pixels away."""
    return np.minimum(np.maximum(inside + 0.5, 0), 1)


def _view(yaw: float, pitch: float, roll: float, scale: float, centre: Pixel) -> tuple[Axis, Axis]:
    """Turn to the side, then up or down, then tilt (all given by their sines): rows for column and row."""
    cy, cp, cr = (math.sqrt(1 - sine * sine) for sine in (yaw, pitch, roll))
    right = (cy, 0.0, yaw)
    down = (-pitch * yaw, cp, pitch * cy)
    column = tuple(scale * (cr * r - roll * d) for r, d in zip(right, down, strict=True))
    row = tuple(scale * (cr * d + roll * r) for r, d in zip(right, down, strict=True))
    return (*column, centre[0]), (*row, centre[1])


def _paint_surroundings(face: _Portrait) -> None:
    face.canvas[:] = face.vary(0.05, 0.75) + face.vary(0, 0.4) * (face.texture(4, 4) - 0.3)
    volume, flow = face.vary(0.02, 0.16), face.vary(0.15, 0.8) if face.chance(0.5) else 0
    face.paint(face.spot(0, flow, face.half_width + volume, 1 + flow + volume / 2, lift=-0.7), face.hair)
    face.paint(face.spot(0, 0.9, 0.45, 0.7, lift=-0.3), 0.6 * face.skin)
    face.paint(face.spot(0, 2.05, 1.5, 0.8), face.vary(0.05, 0.95))


def _paint_head(face: _Portrait) -> None:
    for side in _SIDES:
        face.paint(face.spot(side * face.half_width, 0, 0.1, 0.2), 0.8 * face.skin)
    face.paint(face.head, face.skin)


def _paint_eyes(face: _Portrait) -> None:
    au = face.units
    apart, half, level = face.vary(0.3, 0.36), face.vary(0.14, 0.18), -0.12
    top = face.vary(0.07, 0.1) * (1 + 0.7 * au[5] - 0.45 * au[7] - 0.25 * au[6] - 0.3 * au[9])
    bottom = face.vary(0.035, 0.055) * (1 + 0.2 * au[5] - 0.7 * au[7] - 0.8 * au[6] - 0.5 * au[9])
    look, iris, lash = face.vary(-0.04, 0.04), face.vary(0.05, 0.35), face.vary(0.02, 0.04)
    bag = min(0.3 * face.age + 0.5 * au[7] + 0.4 * au[6], 0.8)
    for side in _SIDES:
        x = side * apart
        inner, outer = (x - side * half, level + 0.015), (x + side * half, level - 0.015)
        face.paint(face.glow(x, level - 0.04, 0.3, 0.24), 0.55 * face.skin, 0.7)
        eye = face.lens(inner, outer, -top, bottom)
        face.paint(eye, 0.7 + 0.25 * face.skin)
        with face.inside(eye):
            face.paint(face.spot(x + look, level - 0.015, 0.08, 0.08), iris)
            face.paint(face.spot(x + look, level - 0.015, 0.035, 0.035), 0.02)
            face.paint(face.spot(x + look - 0.025, level - 0.04, 0.02, 0.02), 0.95, 0.8)
        face.paint(face.stroke(inner, outer, -top, lash), 0.08)
        face.paint(face.stroke(inner, outer, -top - 0.045, 0.015), 0.4 * face.skin, 0.6)
        face.paint(face.stroke(inner, outer, bottom, 0.012), 0.35 * face.skin, 0.6)
        face.paint(face.stroke(inner, outer, bottom + 0.05, 0.02), 0.5 * face.skin, bag)
        for fan in (-0.05, 0.0, 0.05) if au[6] > _FAINT else ():  # crow's feet
            start, end = (x + side * (half + 0.03), level + fan / 2), (x + side * (half + 0.14), level + 2 * fan)
            face.paint(face.stroke(start, end, 0, 0.015), 0.45 * face.skin, 0.8 * au[6])


def _paint_brows(face: _Portrait) -> None:
    au = face.units
    level = face.vary(-0.36, -0.3) + 0.05 * au[9]
    thick, tone = face.vary(0.035, 0.085), face.vary(0.08, 0.35)
    tilt, arch = face.vary(-0.02, 0.02), face.vary(0.02, 0.06) + 0.04 * au[2] - 0.03 * au[4]
    for side in _SIDES:
        lively = face.vary(0.8, 1.2)
        inner = level + tilt + lively * (0.1 * au[4] + 0.03 * au[9] - 0.13 * au[1])
        outer = level - tilt + 0.03 + lively * (0.03 * au[4] - 0.12 * au[2])
        ends = (side * (0.15 - 0.05 * au[4]), inner), (side * 0.54, outer)
        face.paint(face.stroke(*ends, -arch, thick), tone, 0.9)
        if au[4] > _FAINT:
            furrow = (side * 0.035, level - 0.02), (side * 0.05, level + 0.12)
            face.paint(face.stroke(*furrow, 0, 0.04), 0.6 * face.skin, 0.8 * au[4])
    wrinkled = min(0.15 * face.age + 0.4 * (au[1] + au[2]), 0.7)
    for row in (-0.62, -0.54, -0.46) if wrinkled > _FAINT else ():
        ends = (-0.36, row - 0.04 * au[1]), (0.36, row - 0.04 * au[1])
        face.paint(face.stroke(*ends, 0.03, 0.022), 0.6 * face.skin, wrinkled)


def _paint_nose(face: _Portrait) -> None:
    au = face.units
    tip, wide = face.vary(0.2, 0.28) - 0.04 * au[9], face.vary(0.08, 0.12) + 0.03 * au[9]
    bright = min(1.15 * face.skin, 1.0)
    face.paint(face.glow(0, tip - 0.2, 0.07, 0.36), bright, 0.8)
    face.paint(face.glow(0, tip - 0.02, 0.1, 0.1), bright, 0.7)
    face.paint(face.glow(0, tip + 0.1, 0.2, 0.1), 0.5 * face.skin, 0.6)
    for side in _SIDES:
        bridge, wing = (side * 0.08, -0.2), (side * (wide + 0.02), tip - 0.04)
        face.paint(face.stroke(bridge, wing, 0.03, 0.04), 0.65 * face.skin, 0.4)
        face.paint(face.stroke(wing, (side * (wide + 0.01), tip + 0.07), -0.03, 0.025), 0.5 * face.skin, 0.7)
        face.paint(face.spot(side * 0.55 * wide, tip + 0.06, 0.035, 0.02), 0.2 * face.skin, 0.9)
        for row in (-0.12, -0.05, 0.02) if au[9] > _FAINT else ():
            wrinkle = (side * 0.01, row), (side * 0.12, row + 0.05)
            face.paint(face.stroke(*wrinkle, 0.01, 0.03), 0.55 * face.skin, 0.85 * au[9])


def _paint_cheeks(face: _Portrait) -> None:
    au = face.units
    fold = min(0.1 + 0.3 * face.age + 0.6 * max(au[12], au[9]), 0.9)
    for side in _SIDES:
        face.paint(face.glow(side * 0.42, 0.2 - 0.05 * au[6], 0.24, 0.2), min(1.12 * face.skin, 1.0), 0.3 + 0.5 * au[6])
        face.paint(face.stroke((side * 0.16, 0.22 - 0.04 * au[9]), (side * (0.34 + 0.06 * au[12]), 0.52), -0.05 - 0.04 * au[12], 0.03), 0.5 * face.skin, fold)


def _paint_mouth(face: _Portrait) -> None:
    au = face.units
    level = face.vary(0.48, 0.54)
    half = face.vary(0.2, 0.27) * (1 + 0.3 * au[12] + 0.3 * au[20] - 0.2 * au[23] - 0.2 * au[26])
    corner = face.vary(-0.02, 0.02) - 0.14 * au[12] + 0.1 * au[15] + 0.03 * au[20] + 0.1 * au[26]
    parted = max(face.vary(-0.05, 0.03) + face.vary(-0.05, 0.17) * au[12], 0)
    parted += 0.32 * au[26] + 0.06 * au[20] * au[26] + 0.07 * au[16]
    full = face.vary(0.7, 1.2) * (1 - 0.6 * au[23]) * (1 - 0.3 * au[12])
    upper = -0.04 * au[9] - 0.03 * au[26] - corner  # below the line between the corners, like all that follows
    lower = upper + parted
    tone = face.skin * face.vary(0.5, 0.8)
    left, right = ((side * half, level + corner + face.vary(-0.01, 0.01)) for side in _SIDES)
    face.paint(face.glow(0, level + corner + lower + 0.16, 0.22, 0.1), 0.6 * face.skin, 0.8)
    face.paint(face.lens(left, right, upper - 0.065 * full, upper + 0.01), 0.85 * tone)
    face.paint(face.lens(left, right, lower - 0.01, lower + 0.085 * full + 0.03 * au[16]), tone)
    opening = face.lens(left, right, upper, lower)
    face.paint(opening, 0.08)
    with face.inside(opening):
        face.paint(face.glow(0, level + corner + lower, 0.2, 0.16), 0.4, 0.8)
        white = 0.35 + 0.6 * face.skin
        face.paint(face.lens(left, right, upper - 0.1, upper + 0.08 + 0.06 * au[12]), white)
        face.paint(face.lens(left, right, lower - 0.06, lower + 0.1), white, au[16])
    face.paint(face.stroke(left, right, upper, 0.022), 0.2 * face.skin, 0.9)
    for x, y in (left, right):
        face.paint(face.glow(1.08 * x, y, 0.07, 0.06), 0.4 * face.skin, 0.7)


def _paint_beard(face: _Portrait) -> None:
    if not face.chance(0.2):
        return
    edge, density = face.vary(0.35, 0.6), face.vary(0.2, 0.7)
    across, down = face.across - 0.5 * face.yaw, face.down - 0.5 * face.pitch
    beard = np.clip(6 * (down - edge + 0.5 * across * across), 0, 1) * face.head.cover
    face.paint(_Mask(face.everywhere, beard), face.hair, density)
    face.paint(face.lens((-0.24, 0.5), (0.24, 0.5), -0.18, -0.07), face.hair, density)


def _paint_light(face: _Portrait) -> None:
    left, above, strength = face.vary(-0.7, 0.7), face.vary(-0.1, 0.6), face.vary(0.35, 0.9)
    front = np.sqrt(np.maximum(1 - 0.9 * face.radius * face.radius, 0.1))
    facing = np.maximum(face.across * left - face.down * above + front, 0)
    facing *= 1.15 * strength / math.sqrt(1 + left * left + above * above)
    lit = _Mask(face.everywhere, _cover((1.07 - face.radius) * face.scale))
    face.paint(lit, face.canvas * (1 - strength + facing))


def _paint_hair(face: _Portrait) -> None:
    if face.chance(0.08):
        return
    height, sides, parting = face.vary(0.42, 0.75), face.vary(0.2, 0.9), face.vary(-0.25, 0.25)
    across, down = face.across - 0.7 * face.yaw, face.down - 0.7 * face.pitch
    a2 = across * across
    inside = (sides * a2 * a2 + parting * across - height - down) * face.scale
    outline = (1.06 - face.radius) * face.scale
    face.paint(_Mask(face.everywhere, _cover(np.minimum(inside, outline))), face.hair)


def _paint_glasses(face: _Portrait) -> None:
    if not face.chance(0.15):
        return
    clear, tone, size = face.canvas.copy(), face.vary(0.05, 0.4), face.vary(0.19, 0.24)
    face.paint(face.stroke((-0.14, -0.12), (0.14, -0.12), -0.03, 0.035), tone)
    for side in _SIDES:
        face.paint(face.stroke((side * 0.5, -0.14), (side * 0.95 * face.half_width, -0.12), 0, 0.035), tone)
        face.paint(face.spot(side * 0.34, -0.1, size, 0.85 * size), tone)
        face.paint(face.spot(side * 0.34, -0.1, size - 0.03, 0.85 * size - 0.03), clear)


def _paint_hand(face: _Portrait) -> None:
    if not face.chance(0.4 * face.difficulty):
        return
    side = 1 if face.chance(0.5) else -1
    x, y = side * face.vary(0.35, 0.75), face.vary(-0.2, 0.7)
    for finger in range(4):
        root = (x + side * 0.5, y + 0.5 + 0.16 * finger)
        face.paint(face.stroke((x + 0.03 * finger, y + 0.14 * finger), root, 0.05, 0.16), face.skin * (0.95 - 0.08*finger))


def _expose(face: _Portrait) -> NDArray[np.uint8]:
    fine = face.canvas
    image = (fine[::2, ::2] + fine[1::2, ::2] + fine[::2, 1::2] + fine[1::2, 1::2]) / 4
    contrast, brightness = face.vary(1 - 0.5 * face.difficulty, 1.1), face.vary(-0.2, 0.2) * face.difficulty
    image = 0.5 + contrast * (image - 0.5) + brightness
    soft = face.vary(0, 0.3) * face.difficulty
    for axis in (0, 1):
        image = (1 - soft) * image + soft / 2 * (np.roll(image, 1, axis) + np.roll(image, -1, axis))
    grain = face.vary(0.005, 0.01 + 0.06 * face.difficulty)
    image += grain * face.rng.standard_normal(image.shape, dtype=np.float32)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
