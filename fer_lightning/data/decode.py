"""Decode image files to square images, grey or colour; all sources and predictors use this conversion."""

import functools
import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from fer_lightning.core.errors import FERError

MAX_PIXELS = 64_000_000  # of an image in a data set; decoding as RGBA takes 256 MB, in each of 16 processes
MAX_PHOTO_PIXELS = 256_000_000  # of a single photograph: cameras have up to 200 million
MAX_SIDE = 65_535  # pixels, as in JPEG; resizing takes 32 bytes for each of a side's pixels
_CHUNK_PIXELS = 2048 * 48 * 48  # of decoded images, converted at a time

# Of Pillow's formats those that hold photographs. Others start programs (EPS) or have no signature (TGA).
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM")
_SIGNATURES = (
    *(b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*"),
    *(b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


@functools.cache
def formats() -> tuple[str, ...]:
    """Return the formats that the installed Pillow decodes, HEIF where its plugin is installed."""
    Image.init()
    found = [name for name in _FORMATS if name in Image.OPEN]
    if find_spec("pillow_heif") is not None:
        with suppress(Exception):  # a plugin that does not fit this Pillow
            import_module("pillow_heif").register_heif_opener()
            found += [name for name in ("HEIF",) if name in Image.OPEN]
    return tuple(found)


def _describe_unknown(data: bytes) -> str:
    """Say why no format fits the first bytes of a file, and what to install if that helps."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "HEIC is not decoded here; pip install pillow-heif, or save it as JPEG"
    if data[4:12] == b"ftypavif":
        return "AVIF is not decoded by this Pillow, or damaged; pip install -U pillow, or save it as JPEG"
    if data.startswith(b"\xff\x0a") or data[4:12] == b"JXL \r\n\x87\n":
        return "JPEG XL is not decoded here; save it as JPEG or PNG"
    if data.startswith(b"8BPS"):
        return "Photoshop's format is not decoded here; save it as JPEG or PNG"
    if data.startswith(_SIGNATURES):
        return "truncated or damaged image"
    return "not an image (expected JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF, JPEG 2000 or PPM)"


class _NoWarnings:
    """Suppress warnings, and Pillow's own limit of pixels, while any thread is inside.

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
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_PHOTO_PIXELS
            self._inside += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                Image.MAX_IMAGE_PIXELS = self._limit
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
    if image.mode == "F":
        raise FERError("pixels of floating-point numbers, whose range is unknown; save it with 8 or 16 bits")
    with suppress(Exception):  # a broken EXIF block: keep the stored orientation, like image viewers
        if (
            image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        ):  # exif_transpose copies upright images, too
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


def decode(
    data: bytes, *, size: int, exact: bool, channels: int = 1, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Decode an image file to a square; see ``convert`` for the conversion to grey or colour.

    Args:
        data: The content of an image file of one of ``formats``; only the first frame is used.
        size: Side of the square, in pixels.
        exact: Whether any other size is an error; otherwise the whole image is resized (bicubic, antialiased)
            to the square, whatever its aspect ratio.
        channels: 1 for grey, 3 for colour.
        max_pixels: Largest width times height, checked in the header.

    Returns:
        ``(size, size)`` uint8 grey levels, or ``(size, size, 3)`` uint8 colours.

    Raises:
        FERError: The reason alone, such as ``truncated image``; the caller adds the file.
    """
    with _no_warnings:
        image = _load(data, size=size if exact else None, max_pixels=max_pixels)
        with _damage_as_error():
            return to_square(image, size=size, channels=channels)


def decode_photo(data: bytes, *, channels: int = 3, max_pixels: int = MAX_PHOTO_PIXELS) -> Image.Image:
    """Decode an image file in its own size, upright; see ``convert``.

    Args:
        data: The content of an image file of one of ``formats``; only the first frame is used.
        channels: 1 for grey, 3 for colour.
        max_pixels: Largest width times height, checked in the header.

    Returns:
        An image in mode ``L`` or ``RGB``.

    Raises:
        FERError: The reason alone; the caller adds the file.
    """
    with _no_warnings:
        image = _load(data, size=None, max_pixels=max_pixels)
        with _damage_as_error():
            return convert(image, channels)


def decode_crop(
    data: bytes, box: tuple[float, float, float, float], *, size: int, channels: int = 1
) -> NDArray[np.uint8]:
    """Decode a part of an image file to a square: it is cut out, then resized as ``decode`` does.

    Args:
        data: The content of an image file of one of ``formats``; only the first frame is used.
        box: Left, top, width and height in pixels of the upright image, rounded to whole pixels. What is
            outside the image is cut off.
        size: Side of the square, in pixels.
        channels: 1 for grey, 3 for colour.

    Returns:
        ``(size, size)`` uint8 grey levels, or ``(size, size, 3)`` uint8 colours.

    Raises:
        FERError: The reason alone, also if the box has no pixel of the image; the caller adds the file.
    """
    image = decode_photo(data, channels=channels, max_pixels=MAX_PIXELS)
    left, top, width, height = box
    edges = (left, top, left + width, top + height)
    limits = (*image.size, *image.size)
    x0, y0, x1, y1 = (round(min(max(edge, 0), limit)) for edge, limit in zip(edges, limits, strict=True))
    if x1 <= x0 or y1 <= y0:
        raise FERError(
            f"a box of {width:g}x{height:g} pixels at ({left:g}, {top:g}), expected one that has pixels of "
            f"the image of {image.size[0]}x{image.size[1]}"
        )
    return to_square(image.crop((x0, y0, x1, y1)), size=size, channels=channels)


def to_square(image: Image.Image, *, size: int, channels: int = 1) -> NDArray[np.uint8]:
    """Convert an image as ``convert`` does, and resize it (bicubic, antialiased) to a square.

    Args:
        image: Of any size, mode and aspect ratio.
        size: Side of the square, in pixels.
        channels: 1 for grey, 3 for colour.

    Returns:
        ``(size, size)`` uint8 grey levels, or ``(size, size, 3)`` uint8 colours.
    """
    image = convert(image, channels)
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.array(image)


@contextmanager
def _damage_as_error() -> Iterator[None]:
    """Describe what Pillow raises for a palette or a mode that it cannot convert."""
    try:
        yield
    except FERError:
        raise
    except (ValueError, OSError) as error:
        raise FERError(f"truncated or damaged image ({error})") from error


def _load(data: bytes, *, size: int | None, max_pixels: int) -> Image.Image:
    """Load the first frame; ``size`` is the only side that is allowed, None for any."""
    if not data:
        raise FERError("0 bytes")
    too_many = f"more than {max_pixels:,} pixels"
    try:
        image = Image.open(BytesIO(data), formats=formats())
        width, height = image.size  # from the header: nothing is decoded yet
        if width * height > max_pixels:
            raise FERError(f"{too_many} ({width}x{height})")
        if max(width, height) > MAX_SIDE:
            raise FERError(f"a side of more than {MAX_SIDE:,} pixels ({width}x{height})")
        if size is not None and (width, height) != (size, size):
            raise FERError(f"{width}x{height} pixels, expected {size}x{size}")
        image.load()
    except FERError:
        raise
    except Image.DecompressionBombError as error:
        raise FERError(too_many) from error
    except UnidentifiedImageError as error:
        raise FERError(_describe_unknown(data)) from error
    except Exception as error:  # decoders may raise anything on damaged files
        if "truncated" in str(error).lower():
            raise FERError("truncated image") from error
        raise FERError(f"truncated or damaged image ({error})") from error
    return image
