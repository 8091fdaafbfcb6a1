"""The table of metrics that training, files, tables and pages read.

A new row of ``METRICS`` is measured after each epoch (``metrics.csv``, ``monitor``, the loggers) and after
testing (``metrics.json``, tables and pages). Plain data: torch is not imported here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

CALIBRATION_BINS = 15


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """One row of ``METRICS``.

    Attributes:
        key: In files, such as ``f1_macro``; it states the averaging.
        title: For people.
        unit: ``%`` for a fraction that is shown as a percentage, else empty.
        target: A class of torchmetrics by its import path. It is built with ``num_classes`` and ``settings``,
            and updated with ``(N, C)`` probs and ``(N,)`` labels; without ``needs_probs`` also with ``(N,)``
            predicted classes.
        settings: Of the class.
        higher_is_better: Whether a higher value is better.
        needs_probs: Whether it is undefined for answers without confidence.
    """

    key: str
    title: str
    unit: Literal["%", ""] = ""
    target: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    higher_is_better: bool = True
    needs_probs: bool = False


_TORCHMETRICS = "torchmetrics.classification"
_OURS = "fer_lightning.training.metrics"

METRICS = [
    MetricSpec(
        key="acc",
        title="accuracy",
        unit="%",
        target=f"{_TORCHMETRICS}.MulticlassAccuracy",
        settings={"average": "micro"},
    ),
    MetricSpec(
        key="acc_macro",
        title="macro accuracy",
        unit="%",
        target=f"{_TORCHMETRICS}.MulticlassAccuracy",
        settings={"average": "macro"},
    ),
    MetricSpec(
        key="f1_macro",
        title="macro F1",
        unit="%",
        target=f"{_TORCHMETRICS}.MulticlassF1Score",
        settings={"average": "macro"},
    ),
    MetricSpec(
        key="f1_weighted",
        title="weighted F1",
        unit="%",
        target=f"{_TORCHMETRICS}.MulticlassF1Score",
        settings={"average": "weighted"},
    ),
    MetricSpec(
        key="acc_top2",
        title="top-2 accuracy",
        unit="%",
        target=f"{_TORCHMETRICS}.MulticlassAccuracy",
        settings={"average": "micro", "top_k": 2},
        needs_probs=True,
    ),
    MetricSpec(
        key="auroc_macro",
        title="macro AUROC",
        unit="%",
        target=f"{_TORCHMETRICS}.MulticlassAUROC",
        settings={"average": "macro"},
        needs_probs=True,
    ),
    MetricSpec(key="kappa", title="Cohen's kappa", target=f"{_TORCHMETRICS}.MulticlassCohenKappa"),
    MetricSpec(key="mcc", title="Matthews correlation", target=f"{_TORCHMETRICS}.MulticlassMatthewsCorrCoef"),
    MetricSpec(
        key="ece",
        title="calibration error (ECE)",
        unit="%",
        target=f"{_TORCHMETRICS}.MulticlassCalibrationError",
        settings={"n_bins": CALIBRATION_BINS, "norm": "l1"},
        higher_is_better=False,
        needs_probs=True,
    ),
    MetricSpec(
        key="brier",
        title="Brier score",
        target=f"{_OURS}.BrierScore",
        higher_is_better=False,
        needs_probs=True,
    ),
    MetricSpec(
        key="nll",
        title="negative log-likelihood",
        target=f"{_OURS}.NegativeLogLikelihood",
        higher_is_better=False,
        needs_probs=True,
    ),
]
