"""Losses: known values, losses of torch and of the user."""

import math

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from fer_lightning.config.instantiate import instantiate
from fer_lightning.config.targets import ANY_TARGET
from fer_lightning.core.errors import FERError
from fer_lightning.training.checkpoint import load_classifier
from fer_lightning.training.losses import FocalLoss, compute_loss
from tests.extending.conftest import SMALL
from tests.in_process import fit

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0], [0.0, 0.0, 3.0]])
LABELS = torch.tensor([0, 2, 2])


def test_focal_loss_with_gamma_0_is_cross_entropy():
    focal = FocalLoss(gamma=0.0)
    torch.testing.assert_close(focal(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS))
    soft = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5], [0.1, 0.1, 0.8]])
    torch.testing.assert_close(focal(LOGITS, soft), F.cross_entropy(LOGITS, soft))


def test_focal_loss_with_class_weights_and_gamma_0_is_weighted_cross_entropy():
    focal = FocalLoss(gamma=0.0, class_weights="balanced")
    focal.set_class_counts([6, 3, 1])
    torch.testing.assert_close(focal(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS, focal.weight))
    soft = F.one_hot(LABELS, 3).float()
    torch.testing.assert_close(focal(LOGITS, soft), F.cross_entropy(LOGITS, soft, focal.weight))


def test_focal_loss_computed_by_hand():
    # Two classes with logits (0, 0): p = 1/2, so (1 - p)^2 * -log(p) = log(2) / 4.
    assert FocalLoss()(torch.zeros(1, 2), torch.tensor([1])).item() == pytest.approx(math.log(2) / 4)
    # Logits (log 3, 0): p = 3/4 for the first class.
    loss = FocalLoss()(torch.tensor([[math.log(3), 0.0]]), torch.tensor([0]))
    assert loss.item() == pytest.approx(-math.log(0.75) / 16)


def test_loss_of_torch_that_takes_no_soft_targets_says_so():
    soft = torch.full((3, 3), 1 / 3)
    with pytest.raises(FERError, match=r"loss: MultiMarginLoss refuses soft targets of shape \(3, 3\) "):
        compute_loss(torch.nn.MultiMarginLoss(), LOGITS, soft)


def test_loss_that_is_no_scalar_is_refused():
    with pytest.raises(FERError, match=r"CrossEntropyLoss returned \(3,\), expected a scalar"):
        compute_loss(torch.nn.CrossEntropyLoss(reduction="none"), LOGITS, LABELS)


def test_settings_left_over_from_an_option_are_named_with_the_way_to_remove_them():
    node = {"_target_": "torch.nn.MultiMarginLoss", "label_smoothing": 0.0, "class_weights": "none"}
    with pytest.raises(FERError, match="add '~loss.label_smoothing' '~loss.class_weights'"):
        instantiate(node, name="loss", trust=ANY_TARGET)


@pytest.mark.slow
@pytest.mark.usefixtures("importable")
def test_parameters_of_a_loss_are_trained_and_needed_only_to_resume(tmp_path):
    recipe = (
        *SMALL,
        "logger=none",
        "trainer.deterministic=true",
        "~loss",
        "+loss._target_=my_package.mine.Scaled",
    )
    whole, _, module = fit(*recipe, folder=tmp_path)
    stopped, _, resumed = fit(*recipe, folder=tmp_path, stop_at=(3, 7))
    assert module.loss.scale.item() != 1.0
    assert resumed.loss.scale.item() == module.loss.scale.item()
    for name in ("best.ckpt", "last.ckpt"):
        load_classifier(stopped.folder / name)
    assert "loss.scale" in torch.load(whole.folder / "last.ckpt", weights_only=True)["state_dict"]
