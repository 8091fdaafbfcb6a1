"""The metrics of ``core.metrics.METRICS`` as torchmetrics objects, and those that torchmetrics lacks."""

import pkgutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation
from torchmetrics import Metric, MetricCollection

from fer_lightning.core.errors import FERError
from fer_lightning.core.metrics import METRICS, MetricSpec


class _MeanOverImages(Metric):
    """The mean of a number per image, from ``(N, C)`` probs and ``(N,)`` labels."""

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    total: Tensor
    num_images: Tensor

    def __init__(self, num_classes: int, validate_args: bool = False) -> None:
        super().__init__()
        del validate_args  # torchmetrics' classes take it
        self.num_classes = num_classes
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_images", torch.tensor(0), dist_reduce_fx="sum")

    def per_image(self, probs: Tensor, labels: Tensor) -> Tensor:
        """Return ``(N,)`` numbers."""
        raise NotImplementedError

    def update(self, probs: Tensor, labels: Tensor) -> None:
        """Add a batch."""
        self.total += self.per_image(probs, labels).sum(dtype=torch.float64)
        self.num_images += len(labels)

    def compute(self) -> Tensor:
        """Return the mean."""
        mean: Tensor = (self.total / self.num_images).float()
        return mean


class BrierScore(_MeanOverImages):
    """The squared distance between probs and label, in [0, 2] (Brier 1950)."""

    def per_image(self, probs: Tensor, labels: Tensor) -> Tensor:
        """Return ``(N,)`` squared distances."""
        return (probs - F.one_hot(labels, self.num_classes)).square().sum(dim=1)


class NegativeLogLikelihood(_MeanOverImages):
    """The negative logarithm of the label's probability: the cross-entropy without smoothing or weights."""

    def per_image(self, probs: Tensor, labels: Tensor) -> Tensor:
        """Return ``(N,)`` negative logarithms; a probability of 0 counts as the smallest float32."""
        chosen = probs.gather(1, labels[:, None]).squeeze(1)
        return -chosen.clamp_min(torch.finfo(torch.float32).tiny).log()


def make_metric(spec: MetricSpec, num_classes: int) -> Metric:
    """Build a metric, updated with ``(N, C)`` probs and ``(N,)`` labels."""
    metric: Metric = pkgutil.resolve_name(spec.target)(
        num_classes=num_classes, validate_args=False, **spec.settings
    )
    return metric


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress torchmetrics' warnings about a class without images, as small splits have."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No (positive|negative) samples in targets")
        warnings.filterwarnings("ignore", message="Average precision score for one or more classes was `nan`")
        yield


class QuietMetrics(MetricCollection):
    """A collection whose metrics do not warn where a small split lacks a class."""

    def compute(self) -> dict[str, Any]:
        """Compute all metrics."""
        with _quiet():
            return dict(super().compute())


def measure(metric: MetricSpec, predicted: Tensor, labels: Tensor, num_classes: int) -> float:
    """Compute one metric of a whole split.

    Args:
        metric: A row of ``METRICS``.
        predicted: ``(N, C)`` probs, or ``(N,)`` int64 classes for one that needs no probs.
        labels: ``(N,)`` int64.
        num_classes: C.
    """
    made = make_metric(metric, num_classes)
    made.update(predicted, labels)
    with _quiet():
        return float(made.compute().item())


def scalar_metrics(num_classes: int) -> QuietMetrics:
    """Collect ``METRICS``; updated with ``(N, C)`` probs and ``(N,)`` labels.

    Here a class without images lowers ``acc_macro`` once it is predicted, unlike in
    ``evaluation.metrics.compute_metrics``.
    """
    metrics = QuietMetrics(
        {metric.key: make_metric(metric, num_classes) for metric in METRICS},
        # torchmetrics would let metrics share a state that chance made equal in the first batch, and so
        # compute top-2 accuracy from top-1 counts ever after.
        compute_groups=False,
    )
    for metric in metrics.values():
        metric.sync_on_compute = False  # it is given the outputs of all processes
    return metrics


def check_monitor(monitor: str, mode: str) -> None:
    """Refuse a ``monitor`` that no epoch will log, before training.

    Raises:
        FERError: If it is not a validation metric, or ``mode`` would keep its worst epoch.
    """
    better = {"val/loss": "min"}
    better |= {f"val/{metric.key}": "max" if metric.higher_is_better else "min" for metric in METRICS}
    if monitor not in better:
        raise FERError(f"monitor={monitor}: expected one of {', '.join(better)}")
    if mode not in ("max", "min"):
        raise FERError(f"monitor_mode={mode}: expected max or min")
    if mode != better[monitor]:
        raise FERError(
            f"monitor_mode={mode}: {monitor} is better the other way; set monitor_mode={better[monitor]}"
        )
