"""Sharpness-aware minimisation: the step that its paper defines, and what it refuses."""

import pytest
import torch

from fer_lightning.core.errors import FERError
from fer_lightning.training.optimizers import SAM
from tests.in_process import fit

SMALL = ("model=mlp", "model.hidden=[8]", "data.image_size=16", "logger=none", "trainer.max_epochs=1")


def test_a_step_uses_the_gradient_at_the_worst_weights_nearby():
    weights = torch.tensor([3.0, 4.0], requires_grad=True)
    curvature = torch.tensor([1.0, 10.0])
    optimizer = SAM([weights], lr=0.1, rho=0.5)
    seen = []

    def closure():
        optimizer.zero_grad()
        seen.append(weights.detach().clone())
        with torch.enable_grad():
            loss = (curvature * weights**2).sum() / 2
            loss.backward()
        return loss

    loss = optimizer.step(closure)
    gradient = torch.tensor([3.0, 40.0])
    worst = torch.tensor([3.0, 4.0]) + 0.5 * gradient / gradient.norm()
    assert loss.item() == pytest.approx((9 + 160) / 2)
    torch.testing.assert_close(seen[1], worst)
    torch.testing.assert_close(weights.detach(), torch.tensor([3.0, 4.0]) - 0.1 * curvature * worst)


def test_weights_without_a_gradient_and_gradients_of_zero_stay():
    used, unused = (torch.ones(2, requires_grad=True) for _ in range(2))
    optimizer = SAM([used, unused], lr=0.1)

    def closure():
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = (0 * used).sum()
            loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.equal(used, torch.ones(2))
    assert torch.equal(unused, torch.ones(2))


def test_the_option_trains_as_plain_sgd_does_where_the_distance_is_almost_nothing(tmp_path):
    def trained(name, *words):
        return fit(*SMALL, "model.dropout=0", *words, "optimizer.lr=0.01", folder=tmp_path / name)[2]

    sam = trained("sam", "optimizer=sam", "optimizer.rho=1e-7")
    sgd = trained("sgd", "optimizer=sgd", "optimizer.fused=false")
    for one, other in zip(sam.parameters(), sgd.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rho", [0, -1, float("inf"), True, "a"])
def test_a_distance_out_of_range_is_refused(rho):
    with pytest.raises(ValueError, match=r"rho=.*: expected a number above 0"):
        SAM([torch.ones(1, requires_grad=True)], lr=0.1, rho=rho)


def test_scaled_gradients_are_refused():
    with pytest.raises(FERError, match=r"optimizer=sam .* trainer\.precision=bf16-mixed"):
        SAM([torch.ones(1, requires_grad=True)], lr=0.1).step()


def test_gradients_of_several_batches_are_refused(tmp_path):
    with pytest.raises(FERError, match=r"trainer\.accumulate_grad_batches=2: optimizer=sam"):
        fit(*SMALL, "optimizer=sam", "+trainer.accumulate_grad_batches=2", folder=tmp_path)
