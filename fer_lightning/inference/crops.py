"""From a box in a photograph to the square that a network sees, and what is wrong with it."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fer_lightning.data.audit.quality import FIGURES, measure_quality
from fer_lightning.data.decode import to_square
from fer_lightning.inference.results import Box

# Of the box's longest side, added on each side. FER-2013 is framed like YuNet's boxes: on 1,378 PublicTest
# images the median side of the image is 1.02 heights of the box. Accuracies at other margins:
# benchmarks/README.md.
MARGIN = 0.05
MIN_SIDE = 20  # pixels of a box; below it a face is flagged as small
# Of PublicTest's 3,589 images, 0.5 % are below each.
MIN_SHARPNESS = 282.0
MIN_BRIGHTNESS = 41.7


def crop_face(image: Image.Image, box: Box | None, *, margin: float = MARGIN) -> Image.Image:
    """Cut out a square around a box; what lies outside the image repeats its border.

    Args:
        image: Upright, in mode ``L`` or ``RGB``.
        box: None for the whole image, whatever its aspect ratio.
        margin: Of the box's longest side, added on each of the four sides.
    """
    if box is None:
        return image
    side = max(1, round(max(box.width, box.height) * (1 + 2 * margin)))
    left = round(box.x + box.width / 2 - side / 2)
    upper = round(box.y + box.height / 2 - side / 2)
    right, lower = left + side, upper + side
    inside = (
        min(max(left, 0), image.width - 1),
        min(max(upper, 0), image.height - 1),
        max(min(right, image.width), 1),
        max(min(lower, image.height), 1),
    )
    cropped = image.crop(inside)
    if inside == (left, upper, right, lower):
        return cropped
    rows = np.arange(upper, lower).clip(inside[1], inside[3] - 1) - inside[1]
    columns = np.arange(left, right).clip(inside[0], inside[2] - 1) - inside[0]
    return Image.fromarray(np.asarray(cropped)[rows[:, None], columns])


def square_face(
    image: Image.Image, box: Box | None, *, size: int, channels: int, margin: float = MARGIN
) -> NDArray[np.uint8]:
    """Cut out a face, and convert and resize it as the images of training are.

    Returns:
        ``(size, size)`` uint8 grey levels, or ``(size, size, 3)`` uint8 colours.
    """
    return to_square(crop_face(image, box, margin=margin), size=size, channels=channels)


def flag_face(face: NDArray[np.uint8], box: Box | None) -> tuple[str, ...]:
    """Name what makes a prediction doubtful: ``small``, ``blank``, ``blurred``, ``dark``.

    Args:
        face: ``(S, S)`` or ``(S, S, 3)`` uint8, as the network sees it.
        box: Where it was in its image.
    """
    small = ("small",) if box is not None and max(box.width, box.height) < MIN_SIDE else ()
    if face.min() == face.max():
        return (*small, "blank")
    measured = dict(zip(FIGURES, measure_quality(face[None])[:, 0].tolist(), strict=True))
    found = {
        "blurred": measured["sharpness"] < MIN_SHARPNESS,
        "dark": measured["brightness"] < MIN_BRIGHTNESS,
    }
    return (*small, *(name for name, is_so in found.items() if is_so))
