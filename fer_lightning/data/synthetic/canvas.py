"""Canvas, pose and drawing primitives of one synthetic face.

A drawing uses only IEEE additions, products, quotients and square roots, which round in the same way on
every processor, so the same settings should give the same pixels everywhere.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fer_lightning.data.synthetic.expressions import ACTION_UNITS, ALL_UNITS

_FAINT = 0.12  # strokes of lower opacity are skipped to save time: most wrinkles of most faces

Plane = NDArray[np.floating]  # float32, one number for each pixel of the canvas or of a window
Point = tuple[float, float]  # x, y on the face, in face units
Pixel = tuple[float, float]  # column, row on the canvas
Window = tuple[slice, slice]  # rows, columns of the canvas


class Mask(NamedTuple):
    """The part of each pixel of a window that a shape covers, in [0, 1]."""

    window: Window
    cover: Plane


class FaceCanvas:
    """A canvas with one person in one pose, and the shapes that can be painted on it.

    Lengths are in face units: the origin is the middle of the head, x points right, y points down, and the
    head is 2 units high. The canvas has twice the resolution of the image; tones range from 0 (black) to 1.

    Args:
        rng: The generator of everything that varies.
        expression: A key of ``ACTION_UNITS``.
        size: Side of the image, in pixels.
        difficulty: A number from 0 to 1, see ``SyntheticFaces``.
    """

    def __init__(self, rng: Generator, expression: str, size: int, difficulty: float) -> None:
        self.rng, self.difficulty = rng, difficulty
        self.units: dict[int, float] = {}
        strength = self.vary(1 - difficulty, 1)
        for unit in ALL_UNITS:
            rest, share = self.vary(0, 0.4 * difficulty), self.vary(1 - 0.6 * difficulty, 1)
            self.units[unit] = strength * share if unit in ACTION_UNITS[expression] else rest

        self.skin, self.age, self.half_width = self.vary(0.5, 0.95), self.vary(0, 1), self.vary(0.68, 0.8)
        loose = 0.1 + 0.8 * difficulty
        self.scale = size * self.vary(1.22 - 0.12 * loose, 1.22 + 0.12 * loose)  # pixels per face unit
        x, y = self.vary(-0.1, 0.1), self.vary(-0.1, 0.1)
        self.centre = size * (1 + loose * x), size * (0.93 + loose * y)
        # Sines of the angles: turn to the side, nod, tilt. `columns` and `rows` hold what one unit of x, y
        # and depth adds to the column and the row of a point.
        self.yaw, self.pitch, self.roll = (loose * self.vary(-most, most) for most in (0.6, 0.3, 0.35))
        turn, nod, tilt = (math.sqrt(1 - sine * sine) for sine in (self.yaw, self.pitch, self.roll))
        right, down = (turn, 0.0, self.yaw), (-self.pitch * self.yaw, nod, self.pitch * turn)
        self.columns = [self.scale * (tilt * r - self.roll * d) for r, d in zip(right, down, strict=True)]
        self.rows = [self.scale * (tilt * d + self.roll * r) for r, d in zip(right, down, strict=True)]

        self.canvas: Plane = np.zeros((2 * size, 2 * size), np.float32)
        self.pixels: Plane = np.arange(2 * size, dtype=np.float32)
        # Coordinates of the head at every pixel; the radius is 1 on its outline.
        self.everywhere, u, v = self.around(
            self.centre, 4 * size, 4 * size, self.roll, self.scale, self.scale
        )
        self.down: Plane = np.where(v > 0, v / (1 + 0.12 * self.units[26]), v)
        jaw = 1 - self.vary(0.05, 0.25) * np.maximum(self.down, 0) ** 2
        self.across: Plane = u / (self.half_width * jaw)
        self.radius: Plane = np.sqrt(self.across**2 + self.down**2)
        self.head = Mask(self.everywhere, antialias((1 - self.radius) * (self.scale * self.half_width)))
        self.hair: Plane = self.vary(0.06, 0.5) * (0.7 + 0.6 * self.clouds(2, 24))

    def vary(self, low: float, high: float) -> float:
        """Draw a number uniformly from [low, high)."""
        return low + (high - low) * float(self.rng.random())

    def chance(self, probability: float) -> bool:
        """Return True with a probability."""
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
        """Project a point on the surface of the turned head, or one lifted off it, onto the canvas."""
        z = 0.7 * math.sqrt(max(1 - (x / self.half_width) ** 2 - y * y, 0)) + lift
        (cx, cy, cz), (rx, ry, rz) = self.columns, self.rows
        return self.centre[0] + cx * x + cy * y + cz * z, self.centre[1] + rx * x + ry * y + rz * z

    def around(
        self, pixel: Pixel, columns: float, rows: float, sine: float, along: float, across: float
    ) -> tuple[Window, Plane, Plane]:
        """Measure distances in the window around a pixel.

        Args:
            pixel: The centre of the window.
            columns: Half the width of the window, in pixels.
            rows: Half the height of the window, in pixels.
            sine: Sine of the angle of a direction to the horizontal.
            along: Unit of the distances along the direction, in pixels.
            across: Unit of the distances across the direction, in pixels.

        Returns:
            The window, empty where it lies outside the canvas, and the distances of its pixels from the
            centre along and across the direction.
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

    def paint(self, mask: Mask, tone: float | Plane, opacity: float = 1) -> None:
        """Blend a tone, or another canvas, into what a mask covers."""
        part = self.canvas[mask.window]
        new = tone[mask.window] if isinstance(tone, np.ndarray) else tone
        part += (mask.cover if opacity == 1 else mask.cover * opacity) * (new - part)

    @contextmanager
    def inside(self, mask: Mask) -> Iterator[None]:
        """Undo, at the end of the block, what was painted outside a mask."""
        before, self.canvas = self.canvas, self.canvas.copy()
        yield
        after, self.canvas = self.canvas, before
        self.paint(mask, after)

    def spot(
        self, x: float, y: float, wide: float, high: float, tone: float | Plane, lift: float = 0
    ) -> None:
        """Fill an ellipse whose half axes are ``wide`` and ``high``."""
        window, radius2 = self._ellipse(self.place(x, y, lift), wide * self.scale, high * self.scale)
        cover = antialias((1 - np.sqrt(radius2)) * (self.scale * min(wide, high)))
        self.paint(Mask(window, cover), tone)

    def glow(self, x: float, y: float, wide: float, high: float, tone: float, opacity: float) -> None:
        """Dab an ellipse that fades from its middle to its edge."""
        window, radius2 = self._ellipse(self.place(x, y), wide * self.scale, high * self.scale)
        self.paint(Mask(window, np.maximum(1 - radius2, 0) ** 2), tone, opacity)

    def lens(
        self, a: Point, b: Point, top: float, bottom: float, tone: float | Plane, opacity: float = 1
    ) -> Mask:
        """Fill the area between two parabolas from a to b, whose middles lie this far below the chord."""
        window, half, u, v = self._chord(a, b, max(abs(top), abs(bottom)))
        bow = self.scale * (1 - u * u)
        inside = np.minimum(np.minimum(v - top * bow, bottom * bow - v), half * (1 - np.abs(u)))
        mask = Mask(window, antialias(inside))
        self.paint(mask, tone, opacity)
        return mask

    def stroke(self, a: Point, b: Point, sag: float, width: float, tone: float, opacity: float = 1) -> None:
        """Draw a line from a to b that is pointed at both ends; its middle lies ``sag`` below the chord."""
        if opacity < _FAINT:
            return
        window, _, u, v = self._chord(a, b, abs(sag) + width)
        u2 = u * u
        off = np.abs(v + (self.scale * sag) * (u2 - 1))
        cover = antialias((0.5 * self.scale * width) * (1 - u2 * u2) - off)
        self.paint(Mask(window, cover), tone, opacity)

    def _ellipse(self, pixel: Pixel, wide: float, high: float) -> tuple[Window, Plane]:
        lean = abs(self.roll)
        window, u, v = self.around(pixel, wide + lean * high, high + lean * wide, self.roll, wide, high)
        return window, u * u + v * v

    def _chord(self, a: Point, b: Point, reach: float) -> tuple[Window, float, Plane, Plane]:
        (ax, ay), (bx, by) = sorted(
            (self.place(*a), self.place(*b))
        )  # from left to right, so that v points down
        wide, high, reach = (bx - ax) / 2, (by - ay) / 2, reach * self.scale
        half = max(math.sqrt(wide * wide + high * high), 1)
        columns, rows = wide + abs(high / half) * reach, abs(high) + reach
        window, u, v = self.around((ax + wide, ay + high), columns, rows, high / half, half, 1)
        return window, half, u, v


def antialias(inside: Plane) -> Plane:
    """Convert the distance of pixels to the inside of an edge, in pixels, to their coverage in [0, 1]."""
    return (inside + 0.5).clip(0, 1)
