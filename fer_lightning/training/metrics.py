"""Metrics of an epoch, as torchmetrics collections; each key states its averaging."""

from typing import Any

from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassF1Score,
)

from fer_lightning.core.errors import FERError

CALIBRATION_BINS = 15  # as in evaluation/stats.py


def scalar_metrics(num_classes: int, prefix: str = "") -> MetricCollection:
    """Collect the metrics of a split; updated with ``(N, C)`` probs and ``(N,)`` labels.

    Here a class without images lowers ``acc_macro`` once it is predicted, unlike in
    ``evaluation.metrics.compute_metrics``.
    """
    common: dict[str, Any] = {"num_classes": num_classes, "validate_args": False}
    return MetricCollection(
        {
            "acc": MulticlassAccuracy(average="micro", **common),
            "acc_macro": MulticlassAccuracy(average="macro", **common),
            "f1_macro": MulticlassF1Score(average="macro", **common),
            "f1_weighted": MulticlassF1Score(average="weighted", **common),
            "acc_top2": MulticlassAccuracy(average="micro", top_k=2, **common),
            "ece": MulticlassCalibrationError(n_bins=CALIBRATION_BINS, norm="l1", **common),
        },
        prefix=prefix,
        # torchmetrics would let metrics share a state that chance made equal in the first batch, and so
        # compute top-2 accuracy from top-1 counts ever after.
        compute_groups=False,
    )


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
