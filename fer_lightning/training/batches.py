"""What a step makes of the batches of any loader."""

from typing import Any

import torch
from torch import Tensor

from fer_lightning.core.errors import FERError
from fer_lightning.data.loader import Batch


def as_batch(batch: Any) -> Batch:
    """Turn what a loader yields into a ``Batch``.

    Args:
        batch: A ``Batch``, or ``(images, labels)`` of any ``DataLoader``, which has no seed and no rows: its
            seed is -1. Floats must be pixels in [0, 255].

    Raises:
        FERError: If it is neither, or its pixels are not in [0, 255].
    """
    if isinstance(batch, Batch):
        return batch
    if (
        isinstance(batch, list | tuple)
        and len(batch) == 2
        and all(isinstance(part, Tensor) for part in batch)
    ):
        images, labels = batch
        check_pixels(images)
        return Batch(images, labels, torch.empty(0, dtype=torch.int64), -1)
    raise FERError(
        f"batch: expected (images, labels) as tensors, or the batches of FERDataModule; got "
        f"{type(batch).__name__} of "
        f"{[type(part).__name__ for part in batch] if hasattr(batch, '__iter__') else ''}"
    )


def check_pixels(images: Tensor) -> None:
    """Refuse images whose floats are in [0, 1], which would all look black.

    The check of floats waits for the device; uint8 needs none.

    Args:
        images: ``(N, C, S, S)``, uint8 or float.

    Raises:
        FERError: If they are not pixels in [0, 255].
    """
    if images.ndim != 4:
        raise FERError(f"images: expected (N, C, S, S), got {tuple(images.shape)}")
    if images.dtype == torch.uint8 or not images.numel():
        return
    if not images.is_floating_point():
        raise FERError(f"images: expected uint8 or float pixels in [0, 255], got {images.dtype}")
    low, high = (value.item() for value in images.aminmax())
    if low < 0 or high > 255 or 0 < high <= 1:
        hint = "multiply them by 255" if low >= 0 else "do not normalise them, since the module does"
        raise FERError(f"images: floats in [{low:.3g}, {high:.3g}], expected pixels in [0, 255]; {hint}")
