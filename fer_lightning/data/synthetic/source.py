"""Faces drawn from facial action units, for machines that hold no photographs.

An expression is a set of action units (AU), the muscle movements of the Facial Action Coding System (Ekman &
Friesen 1978). ``ACTION_UNITS`` holds the prototypes of EMFACS (Friesen & Ekman 1983, "EMFACS-7: Emotional
Facial Action Coding System", unpublished manual). Each unit moves, opens or creases a part of the drawing, by
an intensity drawn for that face. All else varies beside the expression and says nothing about it: bones,
skin, hair, beard, glasses, features at rest, pose, light, backdrop, grain, a hand before the face.

Apart from the grain, a drawing is made of IEEE additions, products, quotients and square roots, which round
alike on every processor, so the same settings should give the same pixels everywhere.
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

from fer_lightning.core.errors import FERError
from fer_lightning.data.faces import SPLITS, Record
from fer_lightning.data.labels import EXPRESSIONS, canonical_name

GENERATOR_VERSION = 1  # part of the cache key: raise it with every change that moves a pixel

ACTION_UNITS: Mapping[str, tuple[int, ...]] = {
    "angry": (4, 5, 7, 23),  # brow lowerer, upper lid raiser, lid tightener, lip tightener
    "disgust": (9, 15, 16),  # nose wrinkler, lip corner depressor, lower lip depressor
    "fear": (
        1,
        2,
        4,
        5,
        7,
        20,
        26,
    ),  # brows raised and lowered at once, both lid units, lip stretcher, jaw drop
    "happy": (6, 12),  # cheek raiser, lip corner puller
    "neutral": (),
    "sad": (1, 4, 15),  # inner brow raiser, brow lowerer, lip corner depressor
    "surprise": (1, 2, 5, 26),  # inner and outer brow raiser, upper lid raiser, jaw drop
}
_ALL_UNITS = sorted({unit for units in ACTION_UNITS.values() for unit in units})
_FAINT = 0.12  # fainter strokes are not drawn, to save time: most wrinkles of most faces

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
_SIDES = (-1, 1)  # left and right in the picture

ClassBalance = Literal["fer2013", "uniform"]
Plane = NDArray[np.floating]  # float32, one number a pixel of the canvas or of a window
Point = tuple[float, float]  # x, y on the face, in face units
Pixel = tuple[float, float]  # column, row on the canvas
Window = tuple[slice, slice]  # rows, columns of the canvas


class SyntheticFaces:
    """A source of drawn faces, each a pure function of its split, its index and the settings but the sizes.

    A larger split begins with the faces of a smaller one. Labels are never wrong.

    Args:
        root: Ignored: there is no file to read.
        classes: Some of the seven expressions, by name, in the order of the labels.
        image_size: Side of every face, in pixels, at least 16.
        num_train: Faces in the train split, at least 1, like the next two.
        num_val: Faces in the val split.
        num_test: Faces in the test split.
        seed: Not negative; another seed draws other faces.
        class_balance: ``fer2013`` for the class shares of its training split, ``uniform`` for equal ones.
            Either way a split of as many faces as classes holds every class.
        difficulty: From 0 (strong expressions, frontal, clean) to 1 (faint ones, turned heads, grain, hands
            before faces).

    Raises:
        FERError: If a setting is out of its range.
    """

    name = "synthetic"
    parallel = False  # many small numpy calls: two threads take nearly twice as long as one

    def __init__(
        self,
        *,
        root: str | None = None,  # noqa: ARG002 (sources are built alike)
        classes: Sequence[str],
        image_size: int = 48,
        num_train: int = 7000,
        num_val: int = 1000,
        num_test: int = 1000,
        seed: int = 0,
        class_balance: ClassBalance = "fer2013",
        difficulty: float = 0.5,
    ) -> None:
        self.classes: Sequence[str] = tuple(map(str, classes))
        self._expressions = tuple(map(canonical_name, self.classes))
        if not self.classes or not set(self._expressions) <= set(EXPRESSIONS):
            raise FERError(
                f"data.source.classes=[{','.join(self.classes)}]: the synthetic faces show "
                f"{', '.join(EXPRESSIONS)}; name some of these or choose another data set"
            )
        if len(set(self._expressions)) < len(self.classes):
            raise FERError(f"data.source.classes=[{','.join(self.classes)}]: name each expression once")
        self.image_size = _whole_number("image_size", image_size, at_least=16)
        sizes = {"num_train": num_train, "num_val": num_val, "num_test": num_test}
        self._sizes = [_whole_number(setting, size, at_least=1) for setting, size in sizes.items()]
        self._seed = _whole_number("seed", seed, at_least=0)
        if class_balance not in get_args(ClassBalance):
            expected = " or ".join(get_args(ClassBalance))
            raise FERError(f"data.source.class_balance={class_balance}: expected {expected}")
        self._class_balance = class_balance
        if type(difficulty) not in (int, float) or not 0 <= difficulty <= 1:
            raise FERError(f"data.source.difficulty={difficulty}: expected a number from 0 to 1")
        self._difficulty = float(difficulty)

    def cache_key(self) -> str:
        """Hash the settings and the version of the drawings."""
        look = (self.image_size, self._seed, self._class_balance, self._difficulty)
        settings = (GENERATOR_VERSION, self.classes, self._sizes, look)
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    def records(self) -> Iterator[Record]:
        """List every face, split by split; each is drawn when its ``pixels`` is called."""
        for split, size in zip(SPLITS, self._sizes, strict=True):
            for index, label in enumerate(self._labels(size)):
                yield Record(
                    id=f"{split}/{self.classes[label]}/{index:06d}",
                    split=split,
                    label=label,
                    where=f"synthetic {split} face {index}",
                    pixels=partial(self._draw, split, index, self._expressions[label]),
                )

    def _labels(self, size: int) -> list[int]:
        # Adams' apportionment: the next face goes to the class whose count is smallest for its share. So each
        # class comes once before any comes twice, and every prefix has the balance of the whole.
        uniform = self._class_balance == "uniform"
        shares = np.array([1 if uniform else _FER2013_COUNTS[name] for name in self._expressions])
        labels, counts = np.divmod(np.arange(len(shares) * size), size)
        ordered: list[int] = labels[np.lexsort((labels, counts / shares[labels]))][:size].tolist()
        return ordered

    def _draw(self, split: str, index: int, expression: str) -> NDArray[np.uint8]:
        key = np.random.SeedSequence(self._seed, spawn_key=(SPLITS.index(split), index))
        return draw_face(np.random.default_rng(key), expression, self.image_size, self._difficulty)


def _whole_number(setting: str, value: int, *, at_least: int) -> int:
    if type(value) is not int or value < at_least:  # True is an int to isinstance
        raise FERError(f"data.source.{setting}={value}: expected a whole number, {at_least} or more")
    return value


def draw_face(rng: Generator, expression: str, size: int, difficulty: float) -> NDArray[np.uint8]:
    """Draw a portrait.

    Generators in equal states draw one person in one pose, whatever the expression.

    Args:
        rng: Owner of everything that varies.
        expression: A key of ``ACTION_UNITS``.
        size: Side of the picture, in pixels.
        difficulty: From 0 to 1, see ``SyntheticFaces``.

    Returns:
        ``(size, size)`` uint8 grey levels.
    """
    face = _Portrait(rng, expression, size, difficulty)
    _paint_surroundings(face)
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
    return _photograph(face)


class _Mask(NamedTuple):
    """How much of each pixel of a window a shape covers, in [0, 1]."""

    window: Window
    cover: Plane


class _Portrait:
    """A face on the easel, and the brushes.

    Lengths are in face units: the origin is the middle of the head, x points right, y down, and the head is
    2 high. The canvas is twice as fine as the picture; tones go from 0 (black) to 1.
    """

    def __init__(self, rng: Generator, expression: str, size: int, difficulty: float) -> None:
        self.rng, self.difficulty = rng, difficulty
        self.units: dict[int, float] = {}
        strength = self.vary(1 - difficulty, 1)
        for unit in _ALL_UNITS:
            rest, share = self.vary(0, 0.4 * difficulty), self.vary(1 - 0.6 * difficulty, 1)
            self.units[unit] = strength * share if unit in ACTION_UNITS[expression] else rest

        self.skin, self.age, self.half_width = self.vary(0.5, 0.95), self.vary(0, 1), self.vary(0.68, 0.8)
        loose = 0.1 + 0.8 * difficulty
        self.scale = size * self.vary(1.22 - 0.12 * loose, 1.22 + 0.12 * loose)  # pixels a face unit
        x, y = self.vary(-0.1, 0.1), self.vary(-0.1, 0.1)
        self.centre = size * (1 + loose * x), size * (0.93 + loose * y)
        # Sines of the angles: turn to the side, nod, tilt; then what x, y and depth add to column and row.
        self.yaw, self.pitch, self.roll = (loose * self.vary(-most, most) for most in (0.6, 0.3, 0.35))
        turn, nod, tilt = (math.sqrt(1 - sine * sine) for sine in (self.yaw, self.pitch, self.roll))
        right, down = (turn, 0.0, self.yaw), (-self.pitch * self.yaw, nod, self.pitch * turn)
        self.columns = [self.scale * (tilt * r - self.roll * d) for r, d in zip(right, down, strict=True)]
        self.rows = [self.scale * (tilt * d + self.roll * r) for r, d in zip(right, down, strict=True)]

        self.canvas: Plane = np.zeros((2 * size, 2 * size), np.float32)
        self.pixels: Plane = np.arange(2 * size, dtype=np.float32)
        # The head's own coordinates at every pixel: their radius is 1 on the outline.
        self.everywhere, u, v = self.around(
            self.centre, 4 * size, 4 * size, self.roll, self.scale, self.scale
        )
        self.down: Plane = np.where(v > 0, v / (1 + 0.12 * self.units[26]), v)
        jaw = 1 - self.vary(0.05, 0.25) * np.maximum(self.down, 0) ** 2
        self.across: Plane = u / (self.half_width * jaw)
        self.radius: Plane = np.sqrt(self.across**2 + self.down**2)
        self.head = _Mask(self.everywhere, _antialias((1 - self.radius) * (self.scale * self.half_width)))
        self.hair: Plane = self.vary(0.06, 0.5) * (0.7 + 0.6 * self.clouds(2, 24))

    def vary(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.rng.random())

    def chance(self, probability: float) -> bool:
        return float(self.rng.random()) < probability

    def clouds(self, rows: int, columns: int) -> Plane:
        """Stretch a coarse grid of random tones over the canvas."""
        tones: Plane = self.rng.random((rows + 1, columns + 1), dtype=np.float32)
        for axis, cells in enumerate((rows, columns)):
            at = self.pixels * (cells / len(self.pixels))
            cell = at.astype(np.intp)
            low, high = tones.take(cell, axis), tones.take(cell + 1, axis)
            tones = low + np.expand_dims(at - cell, 1 - axis) * (high - low)
        return tones

    def place(self, x: float, y: float, lift: float = 0) -> Pixel:
        """Find a point of the turned head's surface, or one lifted off it, on the canvas."""
        z = 0.7 * math.sqrt(max(1 - (x / self.half_width) ** 2 - y * y, 0)) + lift
        (cx, cy, cz), (rx, ry, rz) = self.columns, self.rows
        return self.centre[0] + cx * x + cy * y + cz * z, self.centre[1] + rx * x + ry * y + rz * z

    def around(
        self, pixel: Pixel, columns: float, rows: float, sine: float, along: float, across: float
    ) -> tuple[Window, Plane, Plane]:
        """Measure the surroundings of a pixel, so many columns and rows to each side.

        Returns:
            The window, empty beside the canvas, and in it the distances from the pixel along a direction,
            given by its sine, and across it, in units of so many pixels.
        """
        (x, y), end = pixel, len(self.pixels)
        window = (
            slice(max(int(y - rows), 0), max(min(int(y + rows) + 2, end), 0)),
            slice(max(int(x - columns), 0), max(min(int(x + columns) + 2, end), 0)),
        )
        right, down = self.pixels[window[1]] - x, self.pixels[window[0], None] - y
        cosine = math.sqrt(max(1 - sine * sine, 0))
        u = right * (cosine / along) + down * (sine / along)
        return window, u, down * (cosine / across) - right * (sine / across)

    def paint(self, mask: _Mask, tone: float | Plane, opacity: float = 1) -> None:
        """Blend a tone, or another canvas, into what a mask covers."""
        part = self.canvas[mask.window]
        new = tone[mask.window] if isinstance(tone, np.ndarray) else tone
        part += (mask.cover if opacity == 1 else mask.cover * opacity) * (new - part)

    @contextmanager
    def inside(self, mask: _Mask) -> Iterator[None]:
        """Wipe off, at the end, what was painted outside a mask."""
        before, self.canvas = self.canvas, self.canvas.copy()
        yield
        after, self.canvas = self.canvas, before
        self.paint(mask, after)

    def spot(
        self, x: float, y: float, wide: float, high: float, tone: float | Plane, lift: float = 0
    ) -> None:
        """Fill an ellipse whose half axes are ``wide`` and ``high``."""
        window, radius2 = self._ellipse(self.place(x, y, lift), wide * self.scale, high * self.scale)
        cover = _antialias((1 - np.sqrt(radius2)) * (self.scale * min(wide, high)))
        self.paint(_Mask(window, cover), tone)

    def glow(self, x: float, y: float, wide: float, high: float, tone: float, opacity: float) -> None:
        """Dab an ellipse that fades from its middle to its edge."""
        window, radius2 = self._ellipse(self.place(x, y), wide * self.scale, high * self.scale)
        self.paint(_Mask(window, np.maximum(1 - radius2, 0) ** 2), tone, opacity)

    def lens(
        self, a: Point, b: Point, top: float, bottom: float, tone: float | Plane, opacity: float = 1
    ) -> _Mask:
        """Fill what lies between two parabolas from a to b; their middles are so far below the chord."""
        window, half, u, v = self._chord(a, b, max(abs(top), abs(bottom)))
        bow = self.scale * (1 - u * u)
        inside = np.minimum(np.minimum(v - top * bow, bottom * bow - v), half * (1 - np.abs(u)))
        mask = _Mask(window, _antialias(inside))
        self.paint(mask, tone, opacity)
        return mask

    def stroke(self, a: Point, b: Point, sag: float, width: float, tone: float, opacity: float = 1) -> None:
        """Draw a line from a to b, pointed at both ends, its middle ``sag`` below the chord."""
        if opacity < _FAINT:
            return
        window, _, u, v = self._chord(a, b, abs(sag) + width)
        u2 = u * u
        off = np.abs(v + (self.scale * sag) * (u2 - 1))
        cover = _antialias((0.5 * self.scale * width) * (1 - u2 * u2) - off)
        self.paint(_Mask(window, cover), tone, opacity)

    def _ellipse(self, pixel: Pixel, wide: float, high: float) -> tuple[Window, Plane]:
        lean = abs(self.roll)
        window, u, v = self.around(pixel, wide + lean * high, high + lean * wide, self.roll, wide, high)
        return window, u * u + v * v

    def _chord(self, a: Point, b: Point, reach: float) -> tuple[Window, float, Plane, Plane]:
        (ax, ay), (bx, by) = sorted((self.place(*a), self.place(*b)))  # rightwards, so that v points down
        wide, high, reach = (bx - ax) / 2, (by - ay) / 2, reach * self.scale
        half = max(math.sqrt(wide * wide + high * high), 1)
        columns, rows = wide + abs(high / half) * reach, abs(high) + reach
        window, u, v = self.around((ax + wide, ay + high), columns, rows, high / half, half, 1)
        return window, half, u, v


def _antialias(inside: Plane) -> Plane:
    """Tell how much of a pixel is covered from how many pixels inside the edge it lies."""
    return (inside + 0.5).clip(0, 1)


def _paint_surroundings(face: _Portrait) -> None:
    face.canvas += face.vary(0.05, 0.75) + face.vary(0, 0.4) * (face.clouds(4, 4) - 0.3)
    volume, flow = face.vary(0.02, 0.16), max(face.vary(-0.8, 0.8), 0)
    face.spot(0, flow, face.half_width + volume, 1 + flow + volume / 2, face.hair, lift=-0.7)
    face.spot(0, 0.9, 0.45, 0.7, 0.6 * face.skin, lift=-0.3)  # neck
    face.spot(0, 2.05, 1.5, 0.8, face.vary(0.05, 0.95))  # clothes
    for side in _SIDES:
        face.spot(side * face.half_width, 0, 0.1, 0.2, 0.8 * face.skin)  # ears
    face.paint(face.head, face.skin)


def _paint_eyes(face: _Portrait) -> None:
    au, skin, level = face.units, face.skin, -0.12
    apart, half, look = face.vary(0.3, 0.36), face.vary(0.14, 0.18), face.vary(-0.04, 0.04)
    top = face.vary(0.07, 0.1) * (1 + 0.7 * au[5] - 0.45 * au[7] - 0.25 * au[6] - 0.3 * au[9])
    bottom = face.vary(0.035, 0.055) * (1 + 0.2 * au[5] - 0.6 * au[7] - 0.7 * au[6] - 0.5 * au[9])
    bottom = max(bottom, 0.005)
    iris, lash, bag = face.vary(0.05, 0.35), face.vary(0.02, 0.04), 0.3 * face.age + 0.25 * (au[6] + au[7])
    for side in _SIDES:
        x = side * apart
        inner, outer = (x - side * half, level + 0.015), (x + side * half, level - 0.015)
        face.glow(x, level - 0.04, 0.3, 0.24, 0.55 * skin, 0.7)  # socket
        with face.inside(face.lens(inner, outer, -top, bottom, 0.7 + 0.25 * skin)):
            face.spot(x + look, level - 0.015, 0.08, 0.08, iris)
            face.spot(x + look, level - 0.015, 0.035, 0.035, 0.02)
            face.spot(x + look - 0.025, level - 0.04, 0.02, 0.02, 0.9)
        face.stroke(inner, outer, -top, lash, 0.08)
        face.stroke(inner, outer, -top - 0.045, 0.015, 0.4 * skin, 0.6)
        face.stroke(inner, outer, bottom + 0.05, 0.02, 0.5 * skin, bag)
        for fan in (-0.05, 0.0, 0.05):  # crow's feet
            near, far = (
                (x + side * (half + 0.03), level + fan / 2),
                (x + side * (half + 0.14), level + 2 * fan),
            )
            face.stroke(near, far, 0, 0.015, 0.45 * skin, 0.8 * au[6])


def _paint_brows(face: _Portrait) -> None:
    au, skin, level = face.units, face.skin, face.vary(-0.36, -0.3) + 0.05 * face.units[9]
    thick, tone, tilt = face.vary(0.035, 0.085), face.vary(0.08, 0.35), face.vary(-0.02, 0.02)
    arch = face.vary(0.02, 0.06) + 0.04 * au[2] - 0.03 * au[4]
    for side in _SIDES:
        lively = face.vary(0.8, 1.2)
        inner = level + tilt + lively * (0.1 * au[4] + 0.03 * au[9] - 0.13 * au[1])
        outer = level - tilt + 0.03 + lively * (0.03 * au[4] - 0.12 * au[2])
        face.stroke((side * (0.15 - 0.05 * au[4]), inner), (side * 0.54, outer), -arch, thick, tone, 0.9)
        furrow = (side * 0.035, level - 0.02), (side * 0.05, level + 0.12)
        face.stroke(*furrow, 0, 0.04, 0.6 * skin, 0.8 * au[4])
    wrinkled = min(0.15 * face.age + 0.4 * (au[1] + au[2]), 0.7)
    for row in (-0.62, -0.54, -0.46):
        y = row - 0.04 * au[1]
        face.stroke((-0.36, y), (0.36, y), 0.03, 0.022, 0.6 * skin, wrinkled)


def _paint_nose(face: _Portrait) -> None:
    au, skin, bright = face.units, face.skin, min(1.15 * face.skin, 1)
    tip, wide = face.vary(0.2, 0.28) - 0.04 * au[9], face.vary(0.08, 0.12) + 0.03 * au[9]
    face.glow(0, tip - 0.2, 0.07, 0.36, bright, 0.8)
    face.glow(0, tip - 0.02, 0.1, 0.1, bright, 0.7)
    face.glow(0, tip + 0.1, 0.2, 0.1, 0.5 * skin, 0.6)
    for side in _SIDES:
        wing = (side * (wide + 0.02), tip - 0.04)
        face.stroke((side * 0.08, -0.2), wing, 0.03, 0.04, 0.65 * skin, 0.4)
        face.stroke(wing, (side * (wide + 0.01), tip + 0.07), -0.03, 0.025, 0.5 * skin, 0.7)
        face.spot(side * 0.55 * wide, tip + 0.06, 0.035, 0.02, 0.25 * skin)  # nostril
        for y in (-0.12, -0.05, 0.02):
            face.stroke((side * 0.01, y), (side * 0.12, y + 0.05), 0.01, 0.03, 0.55 * skin, 0.85 * au[9])


def _paint_cheeks(face: _Portrait) -> None:
    au, bright = face.units, min(1.12 * face.skin, 1)
    crease = 0.1 + 0.3 * face.age + 0.5 * max(au[12], au[9])
    for side in _SIDES:
        face.glow(side * 0.42, 0.2 - 0.05 * au[6], 0.24, 0.2, bright, 0.3 + 0.5 * au[6])
        wing, corner = (side * 0.16, 0.22 - 0.04 * au[9]), (side * (0.34 + 0.06 * au[12]), 0.52)
        face.stroke(wing, corner, -0.05 - 0.04 * au[12], 0.03, 0.5 * face.skin, crease)


def _paint_beard(face: _Portrait) -> None:
    if not face.chance(0.2):
        return
    edge, density = face.vary(0.35, 0.6), face.vary(0.2, 0.7)
    across, down = face.across - 0.5 * face.yaw, face.down - 0.5 * face.pitch
    beard = np.clip(6 * (down - edge + 0.5 * across * across), 0, 1) * face.head.cover
    face.paint(_Mask(face.everywhere, beard), face.hair, density)
    face.lens((-0.24, 0.5), (0.24, 0.5), -0.18, -0.07, face.hair, density)


def _paint_mouth(face: _Portrait) -> None:
    au, skin, middle = face.units, face.skin, face.vary(0.48, 0.54)
    half = face.vary(0.2, 0.27) * (1 + 0.3 * au[12] + 0.3 * au[20] - 0.2 * au[23] - 0.2 * au[26])
    y = middle + face.vary(-0.02, 0.02) - 0.14 * au[12] + 0.1 * au[15] + 0.03 * au[20] + 0.1 * au[26]
    left, right = ((side * half, y + face.vary(-0.01, 0.01)) for side in _SIDES)
    parted = max(face.vary(-0.05, 0.03) + face.vary(-0.05, 0.17) * au[12], 0)
    parted += (0.32 + 0.06 * au[20]) * au[26] + 0.07 * au[16]
    full = face.vary(0.7, 1.2) * (1 - 0.6 * au[23]) * (1 - 0.3 * au[12])
    upper = middle - y - 0.04 * au[9] - 0.03 * au[26]  # below the line between the corners
    lower, lips, teeth = upper + parted, skin * face.vary(0.5, 0.8), 0.35 + 0.6 * skin
    face.glow(0, y + lower + 0.16, 0.22, 0.1, 0.6 * skin, 0.8)  # the lower lip's shadow
    face.lens(left, right, upper - 0.065 * full, upper + 0.01, 0.85 * lips)
    face.lens(left, right, lower - 0.01, lower + 0.085 * full + 0.03 * au[16], lips)
    with face.inside(face.lens(left, right, upper, lower, 0.08)):
        face.glow(0, y + lower, 0.2, 0.16, 0.4, 0.8)  # tongue
        face.lens(left, right, upper - 0.1, upper + 0.08 + 0.06 * au[12], teeth)
        face.lens(left, right, lower - 0.06, lower + 0.1, teeth, au[16])
    face.stroke(left, right, upper, 0.022, 0.2 * skin, 0.9)
    for corner in (left, right):
        face.glow(1.08 * corner[0], corner[1], 0.07, 0.06, 0.4 * skin, 0.7)


def _paint_hair(face: _Portrait) -> None:
    if face.chance(0.08):
        return
    height, sides, parting = face.vary(0.42, 0.75), face.vary(0.2, 0.9), face.vary(-0.25, 0.25)
    across, down = face.across - 0.7 * face.yaw, face.down - 0.7 * face.pitch
    above = sides * across**2 * across**2 + parting * across - height - down
    hair = _antialias(face.scale * np.minimum(above, 1.06 - face.radius))
    face.paint(_Mask(face.everywhere, hair), face.hair)


def _paint_light(face: _Portrait) -> None:
    aside, above, strength = face.vary(-0.7, 0.7), face.vary(-0.1, 0.6), face.vary(0.35, 0.9)
    front = np.sqrt(np.maximum(1 - 0.9 * face.radius**2, 0.1))
    facing = np.maximum(face.across * aside - face.down * above + front, 0)
    facing *= 1.15 * strength / math.sqrt(1 + aside * aside + above * above)
    head_and_hair = _Mask(face.everywhere, _antialias((1.07 - face.radius) * face.scale))
    face.paint(head_and_hair, face.canvas * (1 - strength + facing))


def _paint_glasses(face: _Portrait) -> None:
    if not face.chance(0.15):
        return
    bare, tone, size = face.canvas.copy(), face.vary(0.05, 0.4), face.vary(0.19, 0.24)
    face.stroke((-0.14, -0.12), (0.14, -0.12), -0.03, 0.035, tone)
    for side in _SIDES:
        face.stroke((side * 0.5, -0.14), (side * 0.95 * face.half_width, -0.12), 0, 0.035, tone)
        face.spot(side * 0.34, -0.1, size, 0.85 * size, tone)
        face.spot(side * 0.34, -0.1, size - 0.03, 0.85 * size - 0.03, bare)


def _paint_hand(face: _Portrait) -> None:
    if not face.chance(0.4 * face.difficulty):
        return
    side = 1 if face.chance(0.5) else -1
    x, y = side * face.vary(0.35, 0.75), face.vary(-0.2, 0.7)
    for finger in range(4):
        tip, knuckle = (x + 0.03 * finger, y + 0.14 * finger), (x + side * 0.5, y + 0.5 + 0.16 * finger)
        face.stroke(tip, knuckle, 0.05, 0.16, (0.95 - 0.08 * finger) * face.skin)


def _photograph(face: _Portrait) -> NDArray[np.uint8]:
    """Reduce the canvas to the picture, with a camera's exposure, blur and grain."""
    fine, difficulty = face.canvas, face.difficulty
    image = (fine[::2, ::2] + fine[1::2, ::2] + fine[::2, 1::2] + fine[1::2, 1::2]) / 4
    contrast, brightness = face.vary(1 - 0.5 * difficulty, 1.1), face.vary(-0.2, 0.2) * difficulty
    image = 0.5 + contrast * (image - 0.5) + brightness
    blur = face.vary(0, 0.3) * difficulty
    for axis in (0, 1):
        image = (1 - blur) * image + blur / 2 * (np.roll(image, 1, axis) + np.roll(image, -1, axis))
    grain = face.vary(0.005, 0.01 + 0.06 * difficulty)
    image += grain * face.rng.standard_normal(image.shape, dtype=np.float32)
    levels: NDArray[np.uint8] = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return levels
