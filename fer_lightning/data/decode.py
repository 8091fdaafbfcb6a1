"""The one conversion from a picture file to a face: every source and every predictor decodes through it."""

import threading
import warnings
from contextlib import suppress
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fer_lightning.core.errors import FERError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MAX_PIXELS = 64_000_000  # above any camera's; as RGBA it takes 256 MB to decode

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM")  # of the four formats


class _Silence:
    """Hold back warnings while any thread is inside.

    Pillow warns about odd files (broken EXIF, large sizes) that are judged here anyway. ``catch_warnings``
    saves and restores a process-wide list, so overlapping threads would restore each other's: the first one
    in enters it, the last one out leaves it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._caught.__exit__(None, None, None)


_silence = _Silence()


def to_grey(image: Image.Image) -> Image.Image:
    """Turn any picture upright and to 8-bit grey levels.

    EXIF rotation is applied. Transparent parts are laid on white, as picture viewers and pages show them.
    Colours become ITU-R 601 luma. 16-bit grey is divided by 257, so that 65,535 becomes 255; Pillow's own
    conversion would clip nearly everything to white.

    Args:
        image: Any size and mode.

    Returns:
        The same picture in mode ``L``.
    """
    with suppress(Exception):  # a broken EXIF block: the picture as it is stored, like every viewer
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # I;16 and its byte orders, or I
        levels = (np.asarray(image).astype(np.int64) + 128) // 257
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("L")
    if image.mode == "L":
        return image
    return image.convert("RGB").convert("L")  # CMYK and palettes have no straight way to grey


def decode(data: bytes, *, size: int, exact: bool) -> NDArray[np.uint8]:
    """Decode a picture file to a square of grey levels; see ``to_grey`` for the conversion.

    Args:
        data: A JPEG, PNG, WebP or BMP file; of several frames, the first.
        size: Side of the face, in pixels.
        exact: Whether any other size is an error; else the whole picture is resized (bicubic, antialiased)
            to the square, whatever its aspect.

    Returns:
        ``(size, size)`` uint8 grey levels.

    Raises:
        FERError: The reason alone, such as ``truncated image``; the caller knows which file it was.
    """
    if not data:
        raise FERError("0 bytes")
    with _silence:
        image = _load(data, size=size, exact=exact)
        image = to_grey(image)
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BICUBIC)
        return np.array(image)


def _load(data: bytes, *, size: int, exact: bool) -> Image.Image:
    too_many = f"more than {MAX_PIXELS:,} pixels"
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
        width, height = image.size  # of the header: nothing is decoded yet
        if width * height > MAX_PIXELS:
            raise FERError(f"{too_many} ({width}x{height})")
        if exact and (width, height) != (size, size):
            raise FERError(f"{width}x{height} pixels, expected {size}x{size}")
        image.load()
    except FERError:
        raise
    except Image.DecompressionBombError as error:
        raise FERError(too_many) from error
    except UnidentifiedImageError as error:
        if data.startswith(_SIGNATURES):
            raise FERError("truncated or damaged image") from error
        raise FERError("not an image (expected JPEG, PNG, WebP or BMP)") from error
    except Exception as error:  # decoders fed a stranger's bytes raise nearly anything
        if "truncated" in str(error).lower():
            raise FERError("truncated image") from error
        raise FERError(f"truncated or damaged image ({error})") from error
    return image
