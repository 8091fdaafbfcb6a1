"""Calibrated probabilities: a temperature, and a threshold below which an answer is unsure."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_calibration_error

from fer_lightning.core.errors import FERError
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.evaluation.stats import NUM_CALIBRATION_BINS
from fer_lightning.training.checkpoint_metadata import CheckpointMetadata

PRECISION = 0.9  # of the answers that count as sure, on the split that chose the threshold
MIN_IMAGES = 100  # of that split; on fewer, temperature and threshold are mostly chance
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

    @classmethod
    def checked(cls, temperature: object, threshold: object) -> Self:
        """Take what a file holds.

        Raises:
            ValueError: If it is no calibration.
        """
        if not isinstance(temperature, float) or not 1 / MAX_TEMPERATURE <= temperature <= MAX_TEMPERATURE:
            raise ValueError(f"temperature={temperature}: expected a number up to {MAX_TEMPERATURE}")
        if threshold is not None and not (isinstance(threshold, float) and 0 <= threshold <= 1):
            raise ValueError(f"threshold={threshold}: expected a number in [0, 1]")
        return cls(temperature, threshold)


def calibration_in(path: Path, metadata: CheckpointMetadata) -> Calibration | None:
    """Return the calibration that a checkpoint holds; None if it was not calibrated.

    Raises:
        FERError: If it is no calibration.
    """
    if metadata.temperature is None:
        return None
    try:
        return Calibration.checked(metadata.temperature, metadata.threshold)
    except ValueError as error:
        raise FERError(f"{path}: its calibration: {error}") from error


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


def calibrate(val: Predictions, *, precision: float = PRECISION) -> Calibration | None:
    """Choose temperature and threshold on val; None if it has fewer than ``MIN_IMAGES`` images.

    Args:
        val: Predictions of a split that did not train the network.
        precision: Share of sure answers that have to be right on val, in (0, 1].
    """
    if len(val) < MIN_IMAGES:
        return None
    temperature = fit_temperature(val.probs, val.labels)
    return Calibration(
        temperature, choose_threshold(with_temperature(val.probs, temperature), val.labels, precision)
    )


def describe_calibration(
    calibration: Calibration, predictions: Mapping[str, Predictions], *, precision: float = PRECISION
) -> dict[str, Any]:
    """Describe a calibration that was chosen on val, and measure splits before and after it.

    Args:
        calibration: From ``calibrate``.
        predictions: By split, as the network made them.
        precision: As for ``calibrate``.

    Returns:
        ``temperature``, ``threshold``, ``precision``, ``fitted_on``; for each split ``n``, ``ece_before``,
        ``ece_after``, ``nll_before``, ``nll_after``, all in [0, 1] or nats; ``sure``, the share of answers at
        or above the threshold, and ``sure_right``, the share of them that are right. Both are None if there
        is no threshold, the second also if no answer is sure.
    """
    measured = {split: _measure(predicted, calibration) for split, predicted in predictions.items()}
    return {**calibration._asdict(), "precision": precision, "fitted_on": "val", **measured}


def _measure(predictions: Predictions, calibration: Calibration) -> dict[str, float | int | None]:
    before, labels = predictions.probs, predictions.labels
    after = with_temperature(before, calibration.temperature)
    sure, sure_right = None, None
    if calibration.threshold is not None:
        is_sure = after.max(axis=1) >= calibration.threshold
        right = after.argmax(axis=1) == labels
        sure, sure_right = float(is_sure.mean()), float(right[is_sure].mean()) if is_sure.any() else None
    return {
        "n": len(labels),
        "ece_before": expected_calibration_error(before, labels),
        "ece_after": expected_calibration_error(after, labels),
        "nll_before": negative_log_likelihood(before, labels),
        "nll_after": negative_log_likelihood(after, labels),
        "sure": sure,
        "sure_right": sure_right,
    }
