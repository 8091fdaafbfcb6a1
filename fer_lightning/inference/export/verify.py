"""Checks that an exported file answers as the network it was made of."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.data.decode import to_square
from fer_lightning.evaluation.calibration import with_temperature
from fer_lightning.inference.network import Network

BATCHES = (1, 2, 5, 64)
TOLERANCE = 1e-4  # of a probability; float32 differs by less than 1e-6
# Of a probability, where the file resizes and not Pillow: a grey level is one more or less here and there.
RESIZE_TOLERANCE = 0.02
RESIZED = ((30, 30), (64, 80), (224, 180))  # width and height, in pixels
_NUM_RESIZED = 32  # images of each size

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
Images = NDArray[np.uint8]


class Verification(NamedTuple):
    """What a check found.

    Attributes:
        num_images: Images compared.
        images: What they are, in words.
        differences: Batch size -> largest difference of a probability.
        resized: The same for images of other sizes, that the file resizes; None if the file cannot.
        same_answers: Share of the images with the same most probable class, in [0, 1].
    """

    num_images: int
    images: str
    differences: dict[int, float]
    resized: float | None
    same_answers: float

    @property
    def largest(self) -> float:
        """The largest difference over all batch sizes."""
        return max(self.differences.values())


def reference(network: Network, images: Images) -> NDArray[np.float32]:
    """Predict as ``FERPredictor`` does, without anything that an export is made of.

    Args:
        network: The network that is exported.
        images: ``(N, C, S, S)`` uint8.

    Returns:
        ``(N, num_classes)`` calibrated probabilities.
    """
    with torch.inference_mode():
        parts = [
            network.classifier(torch.from_numpy(part)).float().softmax(dim=1).numpy()
            for part in batches_of(images, 64)
        ]
    probs = np.concatenate(parts)
    if not np.isfinite(probs).all():
        raise FERError(
            f"{network.path}: the network answers NaN, since its weights have diverged or are damaged; take "
            "another checkpoint"
        )
    return with_temperature(probs, network.calibration.temperature)


def batches_of(images: Images, size: int) -> Iterator[Images]:
    """Cut ``(N, ...)`` images into batches; the last one may be smaller."""
    return (images[first : first + size] for first in range(0, len(images), size))


def verify(run: Run, network: Network, images: Images, words: str, *, resizes: bool = True) -> Verification:
    """Compare a file with the network that it was made of.

    Args:
        run: Maps ``(N, C, H, W)`` uint8 faces to ``(N, num_classes)`` probabilities.
        network: The network.
        images: ``(N, C, S, S)`` uint8 in the size and channels of the network.
        words: What the images are.
        resizes: Whether the file takes faces of other sizes.
    """
    expected = reference(network, images)
    differences = {}
    for size in BATCHES:
        found = np.concatenate([run(part) for part in batches_of(images, size)])
        differences[size] = float(np.abs(found - expected).max())
    same = float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())
    resized = _resize_difference(run, network, images) if resizes else None
    return Verification(len(images), words, differences, resized, same)


def _resize_difference(run: Run, network: Network, images: Images) -> float:
    """Compare faces of other sizes with what Pillow makes of them, as for training and prediction."""
    size, channels = images.shape[-1], images.shape[1]
    largest = 0.0
    for shape in RESIZED:
        photos = [_photo(image).resize(shape, Image.Resampling.BICUBIC) for image in images[:_NUM_RESIZED]]
        given = _stacked([np.asarray(photo) for photo in photos])
        expected = reference(
            network, _stacked([to_square(photo, size=size, channels=channels) for photo in photos])
        )
        largest = max(largest, float(np.abs(run(given) - expected).max()))
    return largest


def _photo(image: Images) -> Image.Image:
    return Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))


def _stacked(images: list[Images]) -> Images:
    """Stack ``(H, W)`` or ``(H, W, 3)`` images as ``(N, C, H, W)``."""
    stacked = np.stack(images)
    return stacked[:, None] if stacked.ndim == 3 else np.ascontiguousarray(stacked.transpose(0, 3, 1, 2))


def check_same(found: Verification, what: str) -> None:
    """Refuse a file that answers otherwise than its network.

    Raises:
        FERError: With the largest difference.
    """
    if not found.largest <= TOLERANCE:  # NaN, too
        raise FERError(
            f"{what}: its probabilities differ from the network's by up to {found.largest:.2g}, "
            "expected at most "
            f"{TOLERANCE:g} on {found.num_images:,} images; no file was written"
        )
    if found.resized is not None and not found.resized <= RESIZE_TOLERANCE:
        raise FERError(
            f"{what}: on resized images its probabilities differ from the network's by up to "
            f"{found.resized:.2g}, "
            f"expected at most {RESIZE_TOLERANCE:g}; no file was written"
        )
