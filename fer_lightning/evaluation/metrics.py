"""The metrics of one split, each with its averaging in its name.

Sections 5 and 6 of the paper define the confusion matrix, precision, recall and F1 per class, the plain
accuracy of its Table 1 (``acc``) and a one-vs-rest accuracy per class (``acc_ovr``).
"""

import math
from collections import Counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_calibration_error

from fer_lightning.core.metrics import METRICS, MetricSpec
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.evaluation.stats import (
    NUM_CALIBRATION_BINS,
    bootstrap_intervals,
    macro_averages,
    wilson_interval,
)
from fer_lightning.training.metrics import measure

SCALARS = tuple(metric.key for metric in METRICS)  # keys of a split, in the order of the file


def compute_metrics(predictions: Predictions) -> dict[str, Any]:
    """Compute what ``metrics.json`` holds for one split.

    An image without an answer counts as wrong, and as predicted to be of no class; only the calibration error
    leaves it out. A value is None where it is undefined: on no images, metrics of probabilities where the
    answers carry no confidence (all of them but ``acc_top2`` and ``ece`` also where an image has no answer),
    recall and F1 of a class without images, and precision of a class that no answer names.

    Args:
        predictions: The answers of one predictor.

    Returns:
        Plain numbers: the scalars and their 95 % intervals (``ci95``: Wilson's for ``acc``, bootstrap for the
        others), ``no_answer`` (number of images by reason), ``per_class``, ``confusion`` (lists of counts,
        rows true, columns predicted, answered images only), and ``leak_free``: scalars and intervals on the
        images without a duplicate in what the predictor was trained or selected on. ``leak_free_near`` leaves
        out the images with a near-duplicate there, too; None if these are not known.
    """
    result = _scalars(predictions)
    reasons = Counter(predictions.status[~predictions.answered].tolist())
    result["no_answer"] = dict(sorted(reasons.items()))
    if len(predictions):
        confusion = predictions.confusion
        result["per_class"] = {
            name: _class_metrics(confusion, index) for index, name in enumerate(predictions.classes)
        }
        result["confusion"] = confusion[:, :-1].tolist()
    result["leak_free"] = _scalars(predictions.subset(~predictions.leaked))
    near = predictions.near_leaked
    result["leak_free_near"] = None if near is None else _scalars(predictions.subset(~near))
    return result


def _scalars(predictions: Predictions) -> dict[str, Any]:
    n = len(predictions)
    result: dict[str, Any] = dict.fromkeys(SCALARS) | {"n": n, "ci95": None}
    if not n:
        return result
    confusion = predictions.confusion
    correct, true, predicted = _counts(confusion)
    acc_macro, f1_macro = macro_averages(confusion)
    f1 = 2 * correct / np.maximum(true + predicted, 1)
    result |= {
        "acc": float(correct.sum() / n),
        "acc_macro": float(acc_macro),
        "f1_macro": float(f1_macro),
        "f1_weighted": float((f1 * true).sum() / n),
    }
    if predictions.graded:
        answered = predictions.subset(predictions.answered)
        result["acc_top2"] = float(_is_in_top(answered, 2).sum() / n)
        result["ece"] = multiclass_calibration_error(
            torch.from_numpy(answered.probs),
            torch.from_numpy(answered.labels),
            num_classes=len(answered.classes),
            n_bins=NUM_CALIBRATION_BINS,
            norm="l1",
            validate_args=False,
        ).item()
    for metric in METRICS:
        if metric.key not in _OWN:
            result[metric.key] = _measure(metric, predictions)
    intervals = {"acc": wilson_interval(result["acc"], n)} | bootstrap_intervals(predictions)
    return result | {"ci95": {name: list(interval) for name, interval in intervals.items()}}


# Metrics whose treatment of missing answers and of absent classes is this module's own.
_OWN = ("acc", "acc_macro", "f1_macro", "f1_weighted", "acc_top2", "ece")


def _measure(metric: MetricSpec, predictions: Predictions) -> float | None:
    """Compute a metric by torchmetrics; an image without an answer is predicted to be of one more class."""
    labels, num_classes = torch.from_numpy(predictions.labels), len(predictions.classes)
    if metric.needs_probs:
        if not predictions.graded or not predictions.answered.all():
            return None
        value = measure(metric, torch.from_numpy(predictions.probs), labels, num_classes)
    else:
        predicted = np.where(predictions.predicted < 0, num_classes, predictions.predicted)
        value = measure(metric, torch.from_numpy(predicted), labels, num_classes + 1)
    return value if math.isfinite(value) else None


def _counts(
    confusion: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Count for each class, from ``(C, C + 1)``, correct images, its images, and answers that name it."""
    return confusion.diagonal(), confusion.sum(axis=1), confusion[:, :-1].sum(axis=0)


def _is_in_top(predictions: Predictions, k: int) -> NDArray[np.bool_]:
    """Return whether each image's class is among the ``k`` most probable ones."""
    top = np.argsort(-predictions.probs, axis=1, kind="stable")[:, :k]
    found: NDArray[np.bool_] = (top == predictions.labels[:, None]).any(axis=1)
    return found


def _class_metrics(confusion: NDArray[np.int64], index: int) -> dict[str, float | int | None]:
    """Compute the metrics of one class from ``(C, C + 1)`` counts, None where they are undefined."""
    correct, true, predicted = (int(counts[index]) for counts in _counts(confusion))
    total = int(confusion.sum())
    return {
        "precision": correct / predicted if predicted else None,
        "recall": correct / true if true else None,
        "f1": 2 * correct / (true + predicted) if true else None,
        "acc_ovr": (total - true - predicted + 2 * correct) / total,
        "n": true,
        "no_answer": int(confusion[index, -1]),
    }
