"""What a predictor takes as images: paths, Pillow images, arrays and tensors, one or many."""

from collections.abc import Iterable, Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import special_kind
from fer_lightning.core.text import writable
from fer_lightning.data.decode import convert, decode_photo

MAX_PHOTO_BYTES = 2**30  # of one image file: 200 million pixels of 8 bits take 600 MB unpacked

Photo = Path | bytes | Image.Image | NDArray[np.uint8]


def named_images(images: Any) -> Iterator[tuple[str, Photo]]:
    """Give each image a name: its path, or its number from 0.

    Args:
        images: A path (str or ``Path``), the content of a file (bytes), a Pillow image, an array or a tensor,
            or an iterable of them. An array is ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or ``(N, H, W)``,
            ``(N, H, W, 1)``, ``(N, H, W, 3)``; a tensor has its channels before height and width: ``(H, W)``,
            ``(1, H, W)``, ``(3, H, W)``, ``(N, 1, H, W)``, ``(N, 3, H, W)``. Both are uint8, or float in
            [0, 1]; three channels are red, green, blue.

    Raises:
        FERError: If something else is given.
    """
    for number, image in enumerate(_one_by_one(images)):
        if isinstance(image, str | PathLike):
            path = Path(fspath(image)).expanduser()
            yield writable(str(path)), path
        elif isinstance(image, bytes | Image.Image):
            yield str(number), image
        else:
            yield str(number), _as_pixels(image)


def _one_by_one(images: Any) -> Iterable[Any]:
    if isinstance(images, str | PathLike | bytes | Image.Image):
        return [images]
    if isinstance(images, Tensor):
        return _split_tensor(images)
    if isinstance(images, np.ndarray):
        return _split_array(images)
    if isinstance(images, Iterable):
        return (part for image in images for part in _parts(image))
    raise FERError(
        f"images: {type(images).__name__}, expected paths, Pillow images, arrays or tensors, one or many"
    )


def _parts(image: Any) -> Iterable[Any]:
    """Return a member of a list, which has to be a single image."""
    found = list(_one_by_one(image)) if not isinstance(image, list | tuple) else []
    if len(found) != 1:
        raise FERError(
            f"images: a list that holds a {type(image).__name__} of several, expected single images"
        )
    return found


def _split_tensor(images: Tensor) -> Iterable[NDArray[Any]]:
    array = images.detach().cpu().float().numpy() if images.is_floating_point() else images.cpu().numpy()
    shape = tuple(images.shape)
    if images.ndim == 2:
        return [array]
    if images.ndim == 3 and shape[0] in (1, 3):
        return [array.transpose(1, 2, 0)]
    if images.ndim == 4 and shape[1] in (1, 3):
        return array.transpose(0, 2, 3, 1)
    raise FERError(
        f"images: a tensor {shape}, expected (H, W), (C, H, W) or (N, C, H, W) with 1 or 3 channels C"
    )


def _split_array(images: NDArray[Any]) -> Iterable[NDArray[Any]]:
    if images.ndim == 2 or (images.ndim == 3 and images.shape[-1] in (1, 3)):
        return [images]
    if images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3)):
        return images
    raise FERError(
        f"images: an array {images.shape}, expected (H, W), (H, W, C), (N, H, W) or (N, H, W, C) with 1 or 3 "
        "channels C"
    )


def _as_pixels(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Check the numbers of an image; return ``(H, W)`` or ``(H, W, 3)`` uint8."""
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[:, :, 0]
    if 0 in image.shape:
        raise FERError(f"images: {image.shape}, an image without pixels")
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    if not np.issubdtype(image.dtype, np.floating):
        raise FERError(f"images: {image.dtype}, expected uint8, or float in [0, 1]")
    low, high = float(image.min()), float(image.max())
    if not 0 <= low <= high <= 1:  # also if one of them is NaN
        raise FERError(
            f"images: floats from {low:g} to {high:g}, expected [0, 1]; divide pixels in [0, 255] by 255, "
            "and do not normalise them"
        )
    return np.ascontiguousarray((image * 255).round().astype(np.uint8))


def load_photo(photo: Photo, *, channels: int) -> Image.Image:
    """Load an image, upright.

    Args:
        photo: From ``named_images``.
        channels: 1 for mode ``L``, 3 for ``RGB``.

    Raises:
        FERError: If it cannot be read or decoded, without its name.
    """
    try:
        data = _read(photo) if isinstance(photo, Path) else photo
    except OSError as error:
        raise FERError(str(error.strerror or error)) from error
    if isinstance(data, bytes):
        return decode_photo(data, channels=channels)
    image = Image.fromarray(data) if isinstance(data, np.ndarray) else data
    return convert(image, channels)


def _read(path: Path) -> bytes:
    if kind := special_kind(path):
        raise FERError(f"{kind}, expected a file; save its content to a file first")
    with path.open("rb") as file:
        data = file.read(MAX_PHOTO_BYTES + 1)
    if len(data) > MAX_PHOTO_BYTES:
        raise FERError(f"more than the {MAX_PHOTO_BYTES:,} bytes allowed for an image")
    return data
