import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from fer_lightning.evaluation.calibration import (
    MIN_IMAGES,
    Calibration,
    calibrate,
    choose_threshold,
    describe_calibration,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    with_temperature,
)
from fer_lightning.evaluation.predictions import OK, Predictions


def drawn(temperature, n=4000, seed=0):
    """Probabilities whose logits are ``temperature`` times the calibrated ones, and their labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, 4))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (true.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    scaled = np.exp(logits * temperature)
    return (scaled / scaled.sum(axis=1, keepdims=True)).astype(np.float32), labels


def as_predictions(probs, labels):
    n = len(labels)
    ids = np.array([f"val/a/{number}" for number in range(n)])
    return Predictions(ids, labels, probs, np.full(n, OK), np.zeros(n, bool), ("a", "b", "c", "d"))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_is_the_one_of_lowest_likelihood(temperature):
    probs, labels = drawn(temperature)
    found = fit_temperature(probs, labels)
    expected = minimize_scalar(
        lambda t: negative_log_likelihood(with_temperature(probs, t), labels), bounds=(0.05, 20)
    )
    assert found == pytest.approx(expected.x, rel=1e-3)
    assert found == pytest.approx(temperature, rel=0.08)


def test_temperature_divides_the_logits():
    logits = np.array([[2.0, 0.0, -1.0]])
    probs = np.exp(logits) / np.exp(logits).sum()
    expected = np.exp(logits / 4) / np.exp(logits / 4).sum()
    assert with_temperature(probs.astype(np.float32), 4) == pytest.approx(expected, rel=1e-6)


def test_probability_of_zero_stays_finite():
    assert np.isfinite(with_temperature(np.array([[1.0, 0.0]], np.float32), 0.1)).all()
    assert np.isfinite(negative_log_likelihood(np.array([[1.0, 0.0]], np.float32), np.array([1])))


def test_threshold_keeps_as_many_answers_as_its_precision_allows():
    confidence = [0.99, 0.9, 0.8, 0.7, 0.6, 0.6]
    probs = np.array([[each, 1 - each] for each in confidence], np.float32)
    labels = np.array([0, 0, 1, 0, 0, 1])  # right: yes, yes, no, yes, yes, no
    assert choose_threshold(probs, labels, 1.0) == pytest.approx(0.9)
    assert choose_threshold(probs, labels, 0.75) == pytest.approx(0.7)  # both of 0.6, or none: 4 of 6
    assert choose_threshold(probs, labels, 0.6) == pytest.approx(0.6)
    assert choose_threshold(probs, 1 - labels, 0.9) is None


def test_calibration_is_fitted_on_val_and_measured_on_both():
    val, test = as_predictions(*drawn(3.0)), as_predictions(*drawn(3.0, seed=1))
    calibration = calibrate(val)
    described = describe_calibration(calibration, {"val": val, "test": test})
    assert calibration.temperature == fit_temperature(val.probs, val.labels)
    assert described["temperature"] == calibration.temperature
    for split, predictions in (("val", val), ("test", test)):
        before = expected_calibration_error(predictions.probs, predictions.labels)
        assert described[split]["ece_before"] == before > 0.1
        assert described[split]["ece_after"] < 0.03
        assert described[split]["nll_after"] < described[split]["nll_before"]
    assert described["val"]["sure_right"] >= 0.9
    sure = with_temperature(val.probs, calibration.temperature).max(axis=1) >= calibration.threshold
    assert described["val"]["sure"] == pytest.approx(sure.mean())


def test_few_images_give_no_calibration():
    val = as_predictions(*drawn(3.0))
    assert calibrate(val.subset(np.arange(MIN_IMAGES - 1))) is None
    assert calibrate(val.subset(np.arange(MIN_IMAGES))) is not None


def test_without_a_threshold_no_share_of_sure_answers_is_claimed():
    val = as_predictions(*drawn(3.0))
    described = describe_calibration(Calibration(2.0), {"val": val})["val"]
    assert (described["sure"], described["sure_right"]) == (None, None)
