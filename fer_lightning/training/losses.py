"""Losses: modules that map ``(N, C)`` logits and targets to a scalar.

Targets are ``(N,)`` int64 classes, or ``(N, C)`` float distributions over the classes (soft labels, mixup).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

from fer_lightning.core.errors import FERError

ClassWeights = Literal["none", "balanced", "effective"]
EFFECTIVE_BETA = 0.999  # Cui et al. 2019 try 0.9 to 0.9999; with 436 to 7,215 images per class this is mild


class ClassWeightedLoss(nn.Module):
    """A loss that can weight the classes by their frequency.

    Args:
        class_weights: How the classes are weighted, see ``compute_class_weights``.

    Attributes:
        weight: ``(C,)`` float32; None for equal weights, and before ``set_class_counts``.
    """

    weight: Tensor | None

    def __init__(self, *, class_weights: ClassWeights = "none") -> None:
        super().__init__()
        if class_weights not in ("none", "balanced", "effective"):
            raise FERError(f"loss.class_weights={class_weights}: expected none, balanced or effective")
        self.class_weights = class_weights
        # Not persistent: a checkpoint's weights are for prediction, which needs no loss.
        self.register_buffer("weight", None, persistent=False)

    def set_class_counts(self, counts: Sequence[int]) -> None:
        """Compute the weights; called before training.

        Args:
            counts: Training images of each class.
        """
        self.weight = compute_class_weights(self.class_weights, counts)


class CrossEntropy(ClassWeightedLoss):
    """Cross-entropy with label smoothing (Szegedy et al. 2016) and class weights.

    Args:
        label_smoothing: The part of the target that is spread evenly over the classes, in [0, 1).
        class_weights: How the classes are weighted, see ``compute_class_weights``.
    """

    def __init__(self, *, label_smoothing: float = 0.0, class_weights: ClassWeights = "none") -> None:
        super().__init__(class_weights=class_weights)
        if not _is_number(label_smoothing) or not 0 <= label_smoothing < 1:
            raise FERError(f"loss.label_smoothing={label_smoothing}: expected a number in [0, 1)")
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the batch, of classes weighted by ``weight``."""
        return F.cross_entropy(logits, targets, self.weight, label_smoothing=self.label_smoothing)


class FocalLoss(ClassWeightedLoss):
    """Focal loss (Lin et al. 2017, arXiv:1708.02002): cross-entropy that counts certain answers less.

    Args:
        gamma: How much less; 0 is cross-entropy, 2 the paper's.
        class_weights: How the classes are weighted, see ``compute_class_weights``.
    """

    def __init__(self, *, gamma: float = 2.0, class_weights: ClassWeights = "none") -> None:
        super().__init__(class_weights=class_weights)
        if not _is_number(gamma) or gamma < 0:
            raise FERError(f"loss.gamma={gamma}: expected a number of at least 0")
        self.gamma = gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the batch, of classes weighted by ``weight`` as in cross-entropy."""
        log_probs = logits.log_softmax(dim=1)
        soft = (
            targets if targets.is_floating_point() else F.one_hot(targets, logits.shape[1]).to(logits.dtype)
        )
        weights = soft if self.weight is None else soft * self.weight
        each = -(weights * (1 - log_probs.exp()) ** self.gamma * log_probs).sum(dim=1)
        total = len(logits) if self.weight is None or targets.is_floating_point() else weights.sum()
        return each.sum() / total


def compute_loss(loss: nn.Module, logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the loss of a batch.

    Args:
        loss: Any module of (logits, targets).
        logits: ``(N, C)``.
        targets: ``(N,)`` int64 or ``(N, C)`` float.

    Returns:
        A scalar.

    Raises:
        FERError: If a loss of torch does not take such targets, or any returns something else.
    """
    try:
        value: Tensor = loss(logits, targets)
    except (RuntimeError, ValueError) as error:
        takes_them = isinstance(error, torch.AcceleratorError | torch.OutOfMemoryError)
        if takes_them or not type(loss).__module__.startswith("torch.nn."):  # a bug, with its traceback
            raise
        kind = "soft targets" if targets.is_floating_point() else "labels"
        raise FERError(
            f"loss: {type(loss).__name__} refuses {kind} of shape {tuple(targets.shape)} "
            f"({' '.join(str(error).split())[:200]})"
        ) from error
    if not isinstance(value, Tensor) or value.ndim:
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise FERError(
            f"loss: {type(loss).__name__} returned {found}, expected a scalar, the mean over the batch"
        )
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


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
            f"loss.class_weights={scheme}: class number {list(counts).index(0)} has no training image"
        )
    numbers = torch.tensor(counts, dtype=torch.float64)
    if scheme == "balanced":
        return (numbers.sum() / (len(numbers) * numbers)).float()
    weights = (1 - EFFECTIVE_BETA) / (1 - EFFECTIVE_BETA**numbers)
    return (weights / weights.mean()).float()
