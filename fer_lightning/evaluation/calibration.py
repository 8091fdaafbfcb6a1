"""Calibrated probabilities: a temperature, and a threshold below which an answer is unsure."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_calibration_error

from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.evaluation.stats import NUM_CALIBRATION_BINS

MAX_TEMPERATURE = 20.0  # and its inverse: the bounds of the search
_SMALLEST = 1e-30  # a probability that float32 rounded to 0 has no logarithm


class Calibration(NamedTuple):
    """How the probabilities of a network become calibrated.

    Attributes:
        temperature: By which the logits are divided, above 0; 1 changes nothing.
        threshold: Smallest highest probability, in [0, 1], of an answer that counts as sure; None if no
            threshold was chosen.
    """

    temperature: float = 1.0
    threshold: float | None = None


def with_temperature(probs: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Divide the logits by a temperature.

    Args:
        probs: ``(N, C)`` probabilities: their logarithms are logits.
        temperature: Above 0; more than 1 makes the probabilities more equal.

    Returns:
        ``(N, C)`` float32 probabilities.
    """
    logits = np.log(np.maximum(probs, _SMALLEST).astype(np.float64)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scaled: NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return scaled


def negative_log_likelihood(probs: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the mean negative logarithm of the true classes' probabilities, in nats."""
    true = probs[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(true, _SMALLEST)).mean())


def expected_calibration_error(probs: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the calibration error, in [0, 1], in the bins of ``metrics.json``."""
    return float(
        multiclass_calibration_error(
            torch.from_numpy(probs), torch.from_numpy(labels), num_classes=probs.shape[1],
            n_bins=NUM_CALIBRATION_BINS, norm="l1", validate_args=False,
        )
    )  # fmt: skip


def fit_temperature(probs: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Find the temperature with the lowest negative log-likelihood.

    The likelihood is convex in the inverse temperature, so that a golden-section search finds the minimum.
    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, section 4.2.

    Args:
        probs: ``(N, C)`` probabilities of a split that did not train the network.
        labels: ``(N,)`` int64 true classes.
    """
    golden = (math.sqrt(5) - 1) / 2
    low, high = -math.log(MAX_TEMPERATURE), math.log(MAX_TEMPERATURE)

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(with_temperature(probs, math.exp(log_temperature)), labels)

    while high - low > 1e-5:
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return math.exp((low + high) / 2)


def choose_threshold(probs: NDArray[np.float32], labels: NDArray[np.int64], precision: float) -> float | None:
    """Choose the threshold that most answers reach, of those with at least some precision.

    Args:
        probs: ``(N, C)`` probabilities.
        labels: ``(N,)`` int64 true classes.
        precision: Share of the answers at or above the threshold that have to be right, in (0, 1].

    Returns:
        The threshold, a highest probability; None if no threshold has the precision.
    """
    confidence = probs.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    confidence, right = confidence[order], (probs.argmax(axis=1) == labels)[order]
    shares = np.cumsum(right) / np.arange(1, len(right) + 1)
    is_last = np.append(confidence[1:] < confidence[:-1], True)  # of equal confidences, all or none
    reached = np.flatnonzero((shares >= precision) & is_last)
    return float(confidence[reached[-1]]) if len(reached) else None


def describe_calibration(predictions: Predictions, calibration: Calibration) -> dict[str, float | int | None]:
    """Measure a split before and after calibration.

    Returns:
        ``n``, ``ece_before``, ``ece_after``, ``nll_before``, ``nll_after``, all in [0, 1] or nats; ``sure``,
        the share of answers at or above the threshold, and ``sure_right``, the share of them that are right
        (None if there are none).
    """
    before, labels = predictions.probs, predictions.labels
    after = with_temperature(before, calibration.temperature)
    sure = after.max(axis=1) >= (calibration.threshold or 0.0)
    right = after.argmax(axis=1) == labels
    return {
        "n": len(labels),
        "ece_before": expected_calibration_error(before, labels),
        "ece_after": expected_calibration_error(after, labels),
        "nll_before": negative_log_likelihood(before, labels),
        "nll_after": negative_log_likelihood(after, labels),
        "sure": float(sure.mean()),
        "sure_right": float(right[sure].mean()) if sure.any() else None,
    }


def calibrate(val: Predictions, test: Predictions, *, precision: float) -> tuple[Calibration, dict[str, Any]]:
    """Fit temperature and threshold on val, and measure both splits.

    Args:
        val: Predictions of the split on which both are chosen.
        test: Predictions of the split that is only measured.
        precision: Share of sure answers that have to be right on val, in (0, 1].

    Returns:
        The calibration, and what the description of a network says of it.
    """
    temperature = fit_temperature(val.probs, val.labels)
    threshold = choose_threshold(with_temperature(val.probs, temperature), val.labels, precision)
    calibration = Calibration(temperature, threshold)
    return calibration, {
        **calibration._asdict(),
        "precision": precision,
        "fitted_on": "val",
        "val": describe_calibration(val, calibration),
        "test": describe_calibration(test, calibration),
    }
