"""Draw what a network looked at: heat maps over faces, below their photograph."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fer_lightning.inference.crops import MARGIN, crop_face
from fer_lightning.inference.results import Explanation

_HEAT = np.array([[255, 220, 80], [255, 130, 0], [200, 0, 40]], np.float32)  # from low to high
_MOST = 0.75  # opacity of the highest value: the face below remains visible
_SIDES = (96, 224)  # pixels, the smallest and the largest side of a crop
_PAPER, _INK = (255, 255, 255), (20, 20, 20)
_TITLES = {
    "grad-cam": "Grad-CAM: what speaks for the predicted class",
    "occlusion": "Occlusion: where hiding a part lowers the probability",
}


def overlay_heat(face: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """Lay a heat map over a face, from transparent to dark red.

    Args:
        face: In any mode and size.
        heat: ``(S, S)`` in [0, 1]; enlarged to the size of the face.

    Returns:
        An image in mode ``RGB``; the face is grey.
    """
    enlarged = Image.fromarray(np.asarray(heat, np.float32)).resize(face.size, Image.Resampling.BILINEAR)
    values = np.asarray(enlarged).clip(0, 1)
    steps = np.linspace(0, 1, len(_HEAT))
    colours = np.stack([np.interp(values, steps, channel) for channel in _HEAT.T], axis=-1)
    grey = np.asarray(face.convert("L").convert("RGB"), np.float32)
    opacity = _MOST * values[..., None]
    return Image.fromarray((grey * (1 - opacity) + colours * opacity).round().astype(np.uint8))


def add_explanations(
    drawn: Image.Image, image: Image.Image, explanations: Sequence[Explanation], *, margin: float = MARGIN
) -> Image.Image:
    """Add one tile for each face below an annotated photograph: the face, and its heat map over it.

    Args:
        drawn: The annotated photograph.
        image: The photograph itself, from which the faces are cut out.
        explanations: From left to right.
        margin: Of the boxes, as in ``crop_face``.

    Returns:
        An image in mode ``RGB``; ``drawn`` itself if there are no explanations.
    """
    if not explanations:
        return drawn
    side = min(max(max(drawn.size) // 6, _SIDES[0]), _SIDES[1])
    gap = max(4, side // 16)
    font = ImageFont.load_default(size=max(11, side / 10))
    line = round(font.getbbox("Ag")[3]) + gap
    width, height = 2 * side + 2 * gap, side + line + gap
    # A JPEG holds 65,500 pixels a side: more columns than fit the photograph where there are many faces.
    columns = max(1, (drawn.width - gap) // width, math.isqrt(len(explanations) // 2))
    num_rows = -(-len(explanations) // columns)
    canvas = Image.new(
        "RGB",
        (max(drawn.width, columns * width + gap), drawn.height + gap + line + num_rows * height),
        _PAPER,
    )
    canvas.paste(drawn)
    draw = ImageDraw.Draw(canvas)
    draw.text((gap, drawn.height + gap), _TITLES[explanations[0].method], fill=_INK, font=font)
    for number, explained in enumerate(explanations):
        left = gap + number % columns * width
        top = drawn.height + gap + line + number // columns * height
        crop = crop_face(image, explained.face.box, margin=margin).convert("RGB")
        crop = crop.resize((side, side), Image.Resampling.BICUBIC)
        text = f"{explained.face.expression} {100 * explained.face.probability:.0f} %"
        draw.text((left, top), text, fill=_INK, font=font)
        canvas.paste(crop, (left, top + line))
        canvas.paste(overlay_heat(crop, explained.heat), (left + side, top + line))
    return canvas
