"""Soft targets: votes or probabilities of the classes, checked and normalised."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.data.faces import Record


def label_and_target(record: Record, num_classes: int) -> tuple[int, NDArray[np.float32] | None]:
    """Return the label of a record and its normalised target.

    Args:
        record: A record of a source; its own label has no effect if it has a target.
        num_classes: The length of the class list of the source.

    Returns:
        The class with the most votes, the first of equals, and ``(C,)`` float32 numbers that sum to 1. For a
        record without a target, its label and None.

    Raises:
        FERError: If the target has another length, or if a number is negative, not finite, or none is
            positive.
    """
    if record.target is None:
        return record.label, None
    target = np.asarray(record.target, np.float64)
    if target.shape != (num_classes,):
        raise FERError(
            f"{record.where}: a target of shape {target.shape}, expected ({num_classes},), one number for "
            "each class of data.classes"
        )
    total = target.sum()
    if not np.isfinite(total) or target.min() < 0 or total <= 0:
        raise FERError(
            f"{record.where}: a target of {_listed(target)}, expected finite numbers of at least 0, and one "
            "above 0"
        )
    return int(target.argmax()), (target / total).astype(np.float32)


def _listed(target: NDArray[Any]) -> str:
    shown = ", ".join(f"{number:g}" for number in target[:10])
    return f"[{shown}{', ...' if len(target) > 10 else ''}]"
