"""ROC and precision-recall curves of every class, as W&B's custom charts."""

from typing import Any

import numpy as np
import wandb
from numpy.typing import NDArray

from fer_lightning.training.loggers.wandb_media import SplitPredictions

MAX_POINTS = 200  # of a class; a curve of 3,589 images looks the same


def roc_points(
    is_class: NDArray[np.bool_], probs: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the ROC curve of one class against the others.

    Args:
        is_class: ``(N,)`` bool, some True and some False.
        probs: ``(N,)`` of the class.

    Returns:
        False and true positive rates, ``(K,)`` each, from (0, 0) to (1, 1), one point for each distinct
        probability.
    """
    true, false = _counts(is_class, probs)
    return false / false[-1], true / true[-1]


def pr_points(
    is_class: NDArray[np.bool_], probs: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the precision-recall curve of one class, one point for each distinct probability.

    Args:
        is_class: ``(N,)`` bool, some True.
        probs: ``(N,)`` of the class.

    Returns:
        Recall, rising to 1, and precision, ``(K,)`` each.
    """
    true, false = (counts[1:] for counts in _counts(is_class, probs))
    return true / true[-1], true / (true + false)


def _counts(
    is_class: NDArray[np.bool_], probs: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Count images at or above each threshold, of the class and of the others, starting with none."""
    order = np.argsort(-probs, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(probs[order])), len(probs) - 1)
    true = np.append(0.0, is_class[order].cumsum()[ends])
    return true, np.append(0.0, ends + 1.0) - true


def curves(split: str, predictions: SplitPredictions) -> dict[str, Any]:
    """Make the charts ``<split>/roc`` and ``<split>/pr``; W&B's own functions would need scikit-learn.

    A class without images, or without others, is left out.
    """
    answered = predictions.predicted >= 0
    labels, probs = predictions.labels[answered], predictions.probs[answered]
    roc_rows: list[list[Any]] = []
    pr_rows: list[list[Any]] = []
    for index, name in enumerate(predictions.classes):
        is_class = labels == index
        if is_class.any() and not is_class.all():
            roc_rows += _rows(name, *roc_points(is_class, probs[:, index]))
            pr_rows += _rows(name, *pr_points(is_class, probs[:, index]))
    if not roc_rows:
        return {}
    return {
        f"{split}/roc": _chart(f"{split}: ROC", "false positive rate", "true positive rate", roc_rows),
        f"{split}/pr": _chart(f"{split}: precision and recall", "recall", "precision", pr_rows),
    }


def _rows(name: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> list[list[Any]]:
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), MAX_POINTS)).round().astype(int))
    return [[name, round(float(x[i]), 4), round(float(y[i]), 4)] for i in kept]


def _chart(title: str, x: str, y: str, rows: list[list[Any]]) -> Any:
    return wandb.plot_table(
        vega_spec_name="wandb/area-under-curve/v0",
        data_table=wandb.Table(columns=["class", x, y], data=rows),
        fields={"x": x, "y": y, "class": "class"},
        string_fields={"title": title, "x-axis-title": x, "y-axis-title": y},
    )
