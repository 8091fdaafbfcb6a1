"""The metrics of one split, each with its averaging in its name.

Sections 5 and 6 of the paper define the confusion matrix, precision, recall and F1 per class, the plain
accuracy of its Table 1 (``acc``) and a one-against-rest accuracy per class (``acc_ovr``).
"""

from collections import Counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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

from fer_lightning.core.errors import FERError
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.evaluation.stats import (
    NUM_CALIBRATION_BINS,
    bootstrap_intervals,
    macro_averages,
    wilson_interval,
)


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
    """Collect what is one number a split; updated with ``(N, C)`` probs and ``(N,)`` labels.

    Here a class without images lowers ``acc_macro`` once it is named, unlike in ``evaluate``.
    """
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


def _measure(
    collection: MetricCollection, probs: NDArray[np.float32], labels: NDArray[np.int64]
) -> dict[str, Tensor]:
    collection.update(torch.from_numpy(probs), torch.from_numpy(labels))
    result: dict[str, Tensor] = collection.compute()
    return result


def _measure_classes(predictions: Predictions) -> dict[str, Tensor]:
    """Measure ``class_metrics`` with a last class of its own for images without an answer."""
    answered = predictions.answered
    probs = np.column_stack([np.where(answered[:, None], predictions.probs, 0), ~answered])
    return _measure(class_metrics(len(predictions.classes) + 1), probs, predictions.labels)


def _class_figures(measured: dict[str, Tensor], index: int) -> dict[str, float | None]:
    """Give the figures of one class, with None where torchmetrics divides by no image and says 0."""
    figures: dict[str, float | None] = {
        key: measured[key][index].item() for key in ("precision", "recall", "f1", "acc_ovr")
    }
    confusion = measured["confusion"]
    n = int(confusion[index].sum())
    if not n:
        figures["recall"] = figures["f1"] = None
    if not confusion[:, index].any():
        figures["precision"] = None
    return figures | {"n": n}


def _scalars(predictions: Predictions) -> dict[str, Any]:
    collection, n = scalar_metrics(len(predictions.classes)), len(predictions)
    result: dict[str, Any] = dict.fromkeys(map(str, collection.keys()))
    result |= {"n": n, "ci95": None}
    if not n:
        return result
    result |= _averages(predictions)
    if predictions.graded:
        answered = predictions.subset(predictions.answered)
        measured = _measure(collection, answered.probs, answered.labels)
        result["acc_top2"] = measured["acc_top2"].item() * len(answered) / n
        result["ece"] = measured["ece"].item()
    intervals = {"acc": wilson_interval(result["acc"], n)} | bootstrap_intervals(predictions)
    return result | {"ci95": {name: list(interval) for name, interval in intervals.items()}}


def _averages(predictions: Predictions) -> dict[str, float]:
    """Average over all images: unanswered ones are wrong, and taken for no class.

    As torchmetrics does where every image is answered and every class has images; see ``macro_averages``.
    """
    cells = predictions.confusion
    right, true, said = cells.diagonal(), cells.sum(axis=1), cells[:, :-1].sum(axis=0)
    recall_macro, f1_macro = macro_averages(cells)
    return {
        "acc": float(right.sum() / true.sum()),
        "acc_macro": float(recall_macro),
        "f1_macro": float(f1_macro),
        "f1_weighted": float((2 * right / np.maximum(true + said, 1) * true).sum() / true.sum()),
    }


def evaluate(predictions: Predictions) -> dict[str, Any]:
    """Measure one split: what ``metrics.json`` holds for it.

    An image without an answer counts as wrong, and as taken for no class; only the calibration error leaves
    it out. None stands where nothing can be measured: on no images, for ``acc_top2`` and ``ece`` where the
    answers carry no confidence, for recall and F1 of a class without images, and for precision of a class
    that no answer names.

    Args:
        predictions: What one predictor said.

    Returns:
        Plain numbers: the scalars and their 95 % intervals (``ci95``: Wilson's for ``acc``, others by
        bootstrap), ``no_answer`` (how many images for each reason), ``per_class``, ``confusion`` (lists of
        counts, answered images only), and ``leak_free``: scalars and intervals on the images without a copy
        in what the predictor was trained or selected on.
    """
    result = _scalars(predictions)
    reasons = Counter(predictions.status[~predictions.answered].tolist())
    result["no_answer"] = dict(sorted(reasons.items()))
    if len(predictions):
        measured, num_classes = _measure_classes(predictions), len(predictions.classes)
        confusion = measured["confusion"]
        result["per_class"] = {
            name: _class_figures(measured, index) | {"no_answer": int(confusion[index, num_classes])}
            for index, name in enumerate(predictions.classes)
        }
        result["confusion"] = confusion[:num_classes, :num_classes].tolist()
    result["leak_free"] = _scalars(predictions.subset(~predictions.leaked))
    return result
