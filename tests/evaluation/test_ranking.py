import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, binary_average_precision, binary_roc

from fer_lightning.evaluation.ranking import ranking_curves


def test_known_areas():
    scores = np.array([0.1, 0.4, 0.35, 0.8])

    curves = ranking_curves(scores, np.array([False, False, True, True]))

    assert curves.auroc == pytest.approx(0.75)  # the example of scikit-learn's documentation
    assert curves.average_precision == pytest.approx(0.8333, abs=1e-4)
    assert curves.false_positive_rate.tolist() == [0, 0, 0.5, 0.5, 1]
    assert curves.true_positive_rate.tolist() == [0, 0.5, 0.5, 1, 1]
    assert curves.precision == pytest.approx([1, 1, 1 / 2, 2 / 3, 1 / 2])


@pytest.mark.parametrize("decimals", [1, 8])  # with ties and without
def test_agrees_with_torchmetrics(decimals):
    rng = np.random.default_rng(0)
    positive = rng.random(500) < 0.3
    scores = (np.clip(rng.normal(0.4 + 0.2 * positive, 0.2), 0, 1)).round(decimals)

    curves = ranking_curves(scores, positive)

    given = torch.tensor(scores), torch.tensor(positive, dtype=torch.int64)
    assert curves.auroc == pytest.approx(float(binary_auroc(*given)), abs=1e-6)
    assert curves.average_precision == pytest.approx(float(binary_average_precision(*given)), abs=1e-6)
    false, true, _ = binary_roc(*given)
    assert curves.false_positive_rate == pytest.approx(false.numpy(), abs=1e-6)
    assert curves.true_positive_rate == pytest.approx(true.numpy(), abs=1e-6)


@pytest.mark.parametrize("positive", [True, False])
def test_class_of_all_images_or_of_none_has_no_curves(positive):
    assert ranking_curves(np.array([0.1, 0.9]), np.array([positive, positive])) is None
