"""The parts of one synthetic face, painted from the background to the foreground.

Each action unit moves, opens or creases a part of the face, by an intensity drawn for that face. Everything
else varies independently of the expression: bones, skin, hair, beard, glasses, features at rest, pose, light,
backdrop, grain, a hand in front of the face.
"""

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fer_lightning.data.synthetic.canvas import FaceCanvas, Mask, antialias

_SIDES = (-1, 1)  # left and right in the image


def draw_face(rng: Generator, expression: str, size: int, difficulty: float) -> NDArray[np.uint8]:
    """Draw a face.

    Generators in equal states draw the same person in the same pose, whatever the expression.

    Args:
        rng: The generator of everything that varies.
        expression: A key of ``ACTION_UNITS``.
        size: Side of the image, in pixels.
        difficulty: A number from 0 to 1, see ``SyntheticFaces``.

    Returns:
        ``(size, size)`` uint8 grey levels.
    """
    face = FaceCanvas(rng, expression, size, difficulty)
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


def _paint_surroundings(face: FaceCanvas) -> None:
    face.canvas += face.vary(0.05, 0.75) + face.vary(0, 0.4) * (face.clouds(4, 4) - 0.3)
    volume, flow = face.vary(0.02, 0.16), max(face.vary(-0.8, 0.8), 0)
    face.spot(0, flow, face.half_width + volume, 1 + flow + volume / 2, face.hair, lift=-0.7)
    face.spot(0, 0.9, 0.45, 0.7, 0.6 * face.skin, lift=-0.3)  # neck
    face.spot(0, 2.05, 1.5, 0.8, face.vary(0.05, 0.95))  # clothes
    for side in _SIDES:
        face.spot(side * face.half_width, 0, 0.1, 0.2, 0.8 * face.skin)  # ears
    face.paint(face.head, face.skin)


def _paint_eyes(face: FaceCanvas) -> None:
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


def _paint_brows(face: FaceCanvas) -> None:
    au, skin, level = face.units, face.skin, face.vary(-0.36, -0.3) + 0.05 * face.units[9]
    thick, tone, tilt = face.vary(0.035, 0.085), face.vary(0.08, 0.35), face.vary(-0.02, 0.02)
    arch = face.vary(0.02, 0.06) + 0.04 * au[2] - 0.03 * au[4]
    for side in _SIDES:
        liveliness = face.vary(0.8, 1.2)
        inner = level + tilt + liveliness * (0.1 * au[4] + 0.03 * au[9] - 0.13 * au[1])
        outer = level - tilt + 0.03 + liveliness * (0.03 * au[4] - 0.12 * au[2])
        face.stroke((side * (0.15 - 0.05 * au[4]), inner), (side * 0.54, outer), -arch, thick, tone, 0.9)
        furrow = (side * 0.035, level - 0.02), (side * 0.05, level + 0.12)
        face.stroke(*furrow, 0, 0.04, 0.6 * skin, 0.8 * au[4])
    wrinkled = min(0.15 * face.age + 0.4 * (au[1] + au[2]), 0.7)
    for row in (-0.62, -0.54, -0.46):
        y = row - 0.04 * au[1]
        face.stroke((-0.36, y), (0.36, y), 0.03, 0.022, 0.6 * skin, wrinkled)


def _paint_nose(face: FaceCanvas) -> None:
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


def _paint_cheeks(face: FaceCanvas) -> None:
    au, bright = face.units, min(1.12 * face.skin, 1)
    crease = 0.1 + 0.3 * face.age + 0.5 * max(au[12], au[9])
    for side in _SIDES:
        face.glow(side * 0.42, 0.2 - 0.05 * au[6], 0.24, 0.2, bright, 0.3 + 0.5 * au[6])
        wing, corner = (side * 0.16, 0.22 - 0.04 * au[9]), (side * (0.34 + 0.06 * au[12]), 0.52)
        face.stroke(wing, corner, -0.05 - 0.04 * au[12], 0.03, 0.5 * face.skin, crease)


def _paint_beard(face: FaceCanvas) -> None:
    if not face.chance(0.2):
        return
    edge, density = face.vary(0.35, 0.6), face.vary(0.2, 0.7)
    across, down = face.across - 0.5 * face.yaw, face.down - 0.5 * face.pitch
    beard = np.clip(6 * (down - edge + 0.5 * across * across), 0, 1) * face.head.cover
    face.paint(Mask(face.everywhere, beard), face.hair, density)
    face.lens((-0.24, 0.5), (0.24, 0.5), -0.18, -0.07, face.hair, density)


def _paint_mouth(face: FaceCanvas) -> None:
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


def _paint_hair(face: FaceCanvas) -> None:
    if face.chance(0.08):
        return
    height, sides, parting = face.vary(0.42, 0.75), face.vary(0.2, 0.9), face.vary(-0.25, 0.25)
    across, down = face.across - 0.7 * face.yaw, face.down - 0.7 * face.pitch
    above = sides * across**2 * across**2 + parting * across - height - down
    hair = antialias(face.scale * np.minimum(above, 1.06 - face.radius))
    face.paint(Mask(face.everywhere, hair), face.hair)


def _paint_light(face: FaceCanvas) -> None:
    sideways, above, strength = face.vary(-0.7, 0.7), face.vary(-0.1, 0.6), face.vary(0.35, 0.9)
    front = np.sqrt(np.maximum(1 - 0.9 * face.radius**2, 0.1))
    facing = np.maximum(face.across * sideways - face.down * above + front, 0)
    facing *= 1.15 * strength / math.sqrt(1 + sideways * sideways + above * above)
    head_and_hair = Mask(face.everywhere, antialias((1.07 - face.radius) * face.scale))
    face.paint(head_and_hair, face.canvas * (1 - strength + facing))


def _paint_glasses(face: FaceCanvas) -> None:
    if not face.chance(0.15):
        return
    bare, tone, size = face.canvas.copy(), face.vary(0.05, 0.4), face.vary(0.19, 0.24)
    face.stroke((-0.14, -0.12), (0.14, -0.12), -0.03, 0.035, tone)
    for side in _SIDES:
        face.stroke((side * 0.5, -0.14), (side * 0.95 * face.half_width, -0.12), 0, 0.035, tone)
        face.spot(side * 0.34, -0.1, size, 0.85 * size, tone)
        face.spot(side * 0.34, -0.1, size - 0.03, 0.85 * size - 0.03, bare)


def _paint_hand(face: FaceCanvas) -> None:
    if not face.chance(0.4 * face.difficulty):
        return
    side = 1 if face.chance(0.5) else -1
    x, y = side * face.vary(0.35, 0.75), face.vary(-0.2, 0.7)
    for finger in range(4):
        tip, knuckle = (x + 0.03 * finger, y + 0.14 * finger), (x + side * 0.5, y + 0.5 + 0.16 * finger)
        face.stroke(tip, knuckle, 0.05, 0.16, (0.95 - 0.08 * finger) * face.skin)


def _photograph(face: FaceCanvas) -> NDArray[np.uint8]:
    """Reduce the canvas to the image, with the exposure, blur and grain of a camera."""
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
