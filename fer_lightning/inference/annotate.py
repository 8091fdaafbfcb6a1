"""Draw the predicted faces into their photograph: boxes, labels, bars."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from fer_lightning.inference.results import UNSURE, Box, Face, FaceList
from fer_lightning.inference.tracks import VideoFace

_MIN_SIDE = 360  # pixels; a label needs as much room
_LINE, _TEXT, _BAR, _TRACK = (255, 176, 0), (20, 20, 20), (0, 92, 175), (255, 236, 190)


ANNOTATED = b"annotated by fer_lightning"  # the comment of a JPEG file
_HEAD = 4096  # bytes in which it is looked for


def is_annotated(path: Path) -> bool:
    """Return whether a file holds an image with ``ANNOTATED`` as its comment."""
    try:
        with path.open("rb") as file:
            return ANNOTATED in file.read(_HEAD)
    except OSError:
        return False


def annotate(image: Image.Image, faces: FaceList) -> Image.Image:
    """Draw a box, the expression with its probability, and a bar of that length for each face.

    Args:
        image: Upright, in mode ``L`` or ``RGB``; not changed. A small one is enlarged.
        faces: What was found in it. A face without a box is the whole image.

    Returns:
        An image in mode ``RGB``. A question mark follows an expression that is unsure, and the number of its
        track precedes that of a face of a video.
    """
    drawn = image.convert("RGB")
    factor = -(-_MIN_SIDE // max(image.size))
    if factor > 1:
        drawn = drawn.resize((drawn.width * factor, drawn.height * factor), Image.Resampling.BICUBIC)
    elif drawn is image:
        drawn = image.copy()
    whole = Box(0, 0, image.width, image.height)
    for face in faces:
        _draw(drawn, face, Box(*(value * factor for value in face.box or whole)))
    return drawn


def _draw(image: Image.Image, face: Face, box: Box) -> None:
    draw = ImageDraw.Draw(image)
    line = max(2, round(max(image.size) / 400))
    left, upper = max(0, round(box.x)), max(0, round(box.y))
    right = min(image.width - 1, round(box.x + box.width))
    lower = min(image.height - 1, round(box.y + box.height))
    draw.rectangle((left, upper, max(left, right), max(upper, lower)), outline=_LINE, width=line)
    mark = "?" if UNSURE in face.flags else ""
    number = f"{face.track}  " if isinstance(face, VideoFace) else ""
    text = f"{number}{face.expression}{mark} {100 * face.probability:.0f} %"
    font = ImageFont.load_default(size=min(max(box.width / 7, 13), max(image.size) / 14))
    extent = draw.textbbox((0, 0), text, font=font)
    pad, bar = 2 * line, 3 * line
    width = max(right - left + 1, round(extent[2]) + 2 * pad)
    height = round(extent[3]) + 2 * pad + bar
    x = max(0, min(left, image.width - width))
    y = upper - height if upper >= height else min(lower + 1, image.height - height)
    y = max(0, y)
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=_LINE)
    draw.text((x + pad, y + pad), text, fill=_TEXT, font=font)
    track = (x + pad, y + height - bar - 1, x + width - 1 - pad, y + height - 1 - line)
    draw.rectangle(track, fill=_TRACK)
    filled = round((track[2] - track[0]) * face.probability)
    draw.rectangle((track[0], track[1], track[0] + filled, track[3]), fill=_BAR)
