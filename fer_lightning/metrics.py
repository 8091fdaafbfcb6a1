"""The metrics of one split, each with its averaging in its name.

Sections 5 and 6 of the paper define the confusion matrix, precision, recall and F1 per class, the plain
accuracy of its Table 1 (``acc``) and a one-against-rest accuracy per class (``acc_ovr``).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
    MulticlassStatScores,
)

from fer_lightning.errors import FERError
from fer_lightning.predictions import OK, Predictions

NUM_CALIBRATION_BINS = 15  # Guo et al. 2017


class MulticlassOneVsRestAccuracy(MulticlassStatScores):
    """(TP + TN) / all of every class, the accuracy that section 5 of the paper defines.

    High by construction: with seven classes a predictor that never names a class still gets most of it right.
    """

    higher_is_better = True
    full_state_update = False

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes=num_classes, average=None, validate_args=False)

    def compute(self) -> Tensor:
        """Return ``(C,)`` float in [0, 1]."""
        true_positives, false_positives, true_negatives, false_negatives = self._final_state()
        right = true_positives + true_negatives
        return right / (right + false_positives + false_negatives)


def scalar_metrics(num_classes: int, prefix: str = "") -> MetricCollection:
    """Collect what is one number a split; updated with ``(N, C)`` probs and ``(N,)`` labels."""
    common: dict[str, Any] = {"num_classes": num_classes, "validate_args": False}
    return MetricCollection(
        {
            "acc": MulticlassAccuracy(average="micro", **common),
            "acc_macro": MulticlassAccuracy(average="macro", **common),
            "f1_macro": MulticlassF1Score(average="macro", **common),
            "f1_weighted": MulticlassF1Score(average="weighted", **common),
            "acc_top2": MulticlassAccuracy(average="micro", top_k=2, **common),
            "ece": MulticlassCalibrationError(n_bins=NUM_CALIBRATION_BINS, norm="l1", **common),
        },
        prefix=prefix,
        # torchmetrics would let metrics share a state that chance made equal in the first batch, and so
        # compute top-2 accuracy from top-1 counts ever after.
        compute_groups=False,
    )


def class_metrics(num_classes: int) -> MetricCollection:
    """Collect what is one number a class, and the confusion matrix (rows true, columns predicted)."""
    common: dict[str, Any] = {"num_classes": num_classes, "validate_args": False}
    metrics: dict[str, Metric | MetricCollection] = {
        "precision": MulticlassPrecision(average=None, **common),
        "recall": MulticlassRecall(average=None, **common),
        "f1": MulticlassF1Score(average=None, **common),
        "acc_ovr": MulticlassOneVsRestAccuracy(num_classes),
        "confusion": MulticlassConfusionMatrix(**common),
    }
    return MetricCollection(metrics, compute_groups=False)


def check_monitor(monitor: str, mode: str, num_classes: int) -> None:
    """Refuse a ``monitor`` that no epoch will log, before training.

    Raises:
        FERError: If it is not a validation metric, or ``mode`` would keep its worst epoch.
    """
    known = ["val/loss", *(f"val/{name}" for name in scalar_metrics(num_classes).keys())]  # noqa: SIM118
    if monitor not in known:
        raise FERError(f"monitor={monitor}: expected one of {', '.join(known)}")
    if mode not in ("max", "min"):
        raise FERError(f"monitor_mode={mode}: expected max or min")
    better = "min" if monitor in ("val/loss", "val/ece") else "max"
    if mode != better:
        raise FERError(f"monitor_mode={mode}: {monitor} is better the other way; set monitor_mode={better}")


def _measure(collection: MetricCollection, predictions: Predictions) -> dict[str, Tensor]:
    collection.update(torch.from_numpy(predictions.probs), torch.from_numpy(predictions.labels))
    result: dict[str, Tensor] = collection.compute()
    return result


def _scalars(predictions: Predictions) -> dict[str, Any]:
    collection = scalar_metrics(len(predictions.classes))
    if not len(predictions):  # torchmetrics would say 0.0
        nothing: dict[str, Any] = {str(name): None for name in collection.keys()}  # noqa: SIM118
        return nothing | {"n": 0}
    measured = _measure(collection, predictions)
    return {name: value.item() for name, value in measured.items()} | {"n": len(predictions)}


def evaluate(predictions: Predictions) -> dict[str, Any]:
    """Measure one split: what ``metrics.json`` holds for it.

    Args:
        predictions: What one predictor said; every image answered.

    Returns:
        Plain numbers: the scalars, ``per_class``, ``confusion`` (lists of counts), and ``leak_free``, the
        same scalars on the images without a copy in what the predictor was trained or selected on. None
        where nothing can be measured.
    """
    assert (predictions.status == OK).all(), "networks answer every image"
    result = _scalars(predictions)
    if len(predictions):
        measured = _measure(class_metrics(len(predictions.classes)), predictions)
        counts = np.bincount(predictions.labels, minlength=len(predictions.classes))
        result["per_class"] = {
            name: {key: measured[key][index].item() for key in ("precision", "recall", "f1", "acc_ovr")}
            | {"n": int(counts[index])}
            for index, name in enumerate(predictions.classes)
        }
        result["confusion"] = measured["confusion"].tolist()
    result["leak_free"] = _scalars(predictions.subset(~predictions.leaked))
    return result
