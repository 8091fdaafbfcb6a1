"""Weights of the classes in the loss."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from fer_lightning.core.errors import FERError

ClassWeights = Literal["none", "balanced", "effective"]
EFFECTIVE_BETA = 0.999  # Cui et al. 2019 try 0.9 to 0.9999; with 436 to 7,215 images per class this is mild


def compute_class_weights(scheme: ClassWeights, counts: Sequence[int]) -> Tensor | None:
    """Weight the classes in the loss.

    Args:
        scheme: ``balanced`` is n / (C * count), ``effective`` the inverse effective number of samples
            (Cui et al. 2019), scaled to a mean of 1; ``none`` gives None.
        counts: Training images of each class.

    Returns:
        ``(C,)`` float32, or None.

    Raises:
        FERError: If a class that is to be weighted has no image.
    """
    if scheme == "none":
        return None
    if min(counts) == 0:
        raise FERError(
            f"classifier.class_weights={scheme}: class number {list(counts).index(0)} has no training image"
        )
    numbers = torch.tensor(counts, dtype=torch.float64)
    if scheme == "balanced":
        return (numbers.sum() / (len(numbers) * numbers)).float()
    weights = (1 - EFFECTIVE_BETA) / (1 - EFFECTIVE_BETA**numbers)
    return (weights / weights.mean()).float()
