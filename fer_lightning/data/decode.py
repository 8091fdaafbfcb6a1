"""Decode image files to square images, grey or colour; all sources and predictors use this conversion."""

import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fer_lightning.core.errors import FERError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MAX_PIXELS = 64_000_000  # more than any camera has; decoding as RGBA takes 256 MB
_CHUNK_PIXELS = 2048 * 48 * 48  # of decoded images, converted at a time

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


def check_channels(channels: object) -> None:
    """Refuse any number of channels but 1 (grey) and 3 (colour)."""
    if isinstance(channels, bool) or channels not in (1, 3):
        raise FERError(f"data.channels={channels}: expected 1 (grey) or 3 (colour)")


def convert(image: Image.Image, channels: int = 1) -> Image.Image:
    """Convert an image to upright 8-bit grey levels or colours.

    EXIF rotation is applied. Transparent parts become white, as image viewers show them. As grey levels,
    colours become ITU-R 601 luma; as colours, grey levels are repeated. 16-bit grey is divided by 257, so
    that 65,535 becomes 255; the conversion of Pillow would clip nearly everything to white.

    Args:
        image: An image of any size and mode.
        channels: 1 for grey, 3 for colour.

    Returns:
        The image in mode ``L`` or ``RGB``.
    """
    mode = "L" if channels == 1 else "RGB"
    with suppress(Exception):  # a broken EXIF block: keep the stored orientation, like image viewers
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # I;16 and its byte orders, or I
        levels = (np.asarray(image).astype(np.int64) + 128) // 257
        grey = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
        return grey if channels == 1 else grey.convert(mode)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert(mode)
    if image.mode == mode:
        return image
    return image.convert("RGB").convert(mode)  # CMYK and palettes have no direct conversion to grey


def to_grey_levels(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert ``(N, S, S)`` grey or ``(N, S, S, 3)`` colour images to ``(N, S, S)`` uint8 grey levels.

    Colours become ITU-R 601 luma, with the integer weights of Pillow; grey images are returned as they are.
    """
    if images.ndim == 3:
        return images
    weights = np.array([19595, 38470, 7471], np.uint32)  # in 1/65,536
    levels: NDArray[np.uint8] = ((images @ weights + 0x8000) >> 16).astype(np.uint8)
    return levels


def chunks(images: NDArray[np.uint8], n: int) -> Iterator[slice]:
    """Cut ``n`` rows of images into slices of a few MB, whatever the size of the images."""
    step = max(1, _CHUNK_PIXELS // math.prod(images.shape[1:]))
    return (slice(start, start + step) for start in range(0, n, step))


def decode(data: bytes, *, size: int, exact: bool, channels: int = 1) -> NDArray[np.uint8]:
    """Decode an image file to a square; see ``convert`` for the conversion to grey or colour.

    Args:
        data: The content of a JPEG, PNG, WebP or BMP file; only the first frame is used.
        size: Side of the square, in pixels.
        exact: Whether any other size is an error; otherwise the whole image is resized (bicubic, antialiased)
            to the square, whatever its aspect ratio.
        channels: 1 for grey, 3 for colour.

    Returns:
        ``(size, size)`` uint8 grey levels, or ``(size, size, 3)`` uint8 colours.

    Raises:
        FERError: The reason alone, such as ``truncated image``; the caller adds the file.
    """
    if not data:
        raise FERError("0 bytes")
    with _no_warnings:
        image = _load(data, size=size, exact=exact)
        image = convert(image, channels)
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
