"""Decode image files to square grey images; all sources and predictors use this conversion."""

import threading
import warnings
from contextlib import suppress
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fer_lightning.core.errors import FERError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MAX_PIXELS = 64_000_000  # more than any camera has; decoding as RGBA takes 256 MB

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM")  # of the four formats


class _NoWarnings:
    """Suppress warnings while any thread is inside.

    Pillow warns about files (broken EXIF, large sizes) that are checked here anyway. ``catch_warnings`` saves
    and restores a process-wide list, which overlapping threads would restore in the wrong order: the first
    thread to enter enters it, and the last thread to leave leaves it.
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


_no_warnings = _NoWarnings()


def to_grey(image: Image.Image) -> Image.Image:
    """Convert an image to upright 8-bit grey levels.

    EXIF rotation is applied. Transparent parts become white, as image viewers show them. Colours become ITU-R
    601 luma. 16-bit grey is divided by 257, so that 65,535 becomes 255; the conversion of Pillow would clip
    nearly everything to white.

    Args:
        image: An image of any size and mode.

    Returns:
        The image in mode ``L``.
    """
    with suppress(Exception):  # a broken EXIF block: keep the stored orientation, like image viewers
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
    return image.convert("RGB").convert("L")  # CMYK and palettes have no direct conversion to grey


def decode(data: bytes, *, size: int, exact: bool) -> NDArray[np.uint8]:
    """Decode an image file to a square of grey levels; see ``to_grey`` for the conversion.

    Args:
        data: The content of a JPEG, PNG, WebP or BMP file; only the first frame is used.
        size: Side of the square, in pixels.
        exact: Whether any other size is an error; otherwise the whole image is resized (bicubic, antialiased)
            to the square, whatever its aspect ratio.

    Returns:
        ``(size, size)`` uint8 grey levels.

    Raises:
        FERError: The reason alone, such as ``truncated image``; the caller adds the file.
    """
    if not data:
        raise FERError("0 bytes")
    with _no_warnings:
        image = _load(data, size=size, exact=exact)
        image = to_grey(image)
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BICUBIC)
        return np.array(image)


def _load(data: bytes, *, size: int, exact: bool) -> Image.Image:
    too_many = f"more than {MAX_PIXELS:,} pixels"
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
        width, height = image.size  # from the header: nothing is decoded yet
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
    except Exception as error:  # decoders may raise anything on damaged files
        if "truncated" in str(error).lower():
            raise FERError("truncated image") from error
        raise FERError(f"truncated or damaged image ({error})") from error
    return image
