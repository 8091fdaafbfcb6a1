"""Five steps of every network: what is made faster, or only rearranged, must lead to the same losses."""

import pytest

from tests.in_process import epochs, fit
from tests.slow import slow_except

# The losses of five batches of 28 drawn faces in float32, recorded on 2026-11-24 (torch 2.14.1, Intel).
GOLDEN = {
    ("plain", "mlp"): [2.04110622, 1.99219906, 1.99467123, 2.16329265, 1.82336426],
    ("plain", "cnn"): [2.17847633, 2.1680336, 2.01628613, 2.02318907, 2.1458385],
    ("plain", "rnn"): [1.94570136, 1.95336437, 1.94198966, 1.94029117, 1.9325943],
    ("plain", "resnet"): [2.06381464, 2.0448029, 2.04256892, 1.88382137, 1.95928395],
    ("improved", "mlp"): [1.97539032, 2.00179195, 1.9412657, 1.93676341, 2.18678427],
    ("improved", "cnn"): [1.98283851, 2.05614924, 2.01218629, 1.99378037, 2.01979446],
    ("improved", "rnn"): [1.94047952, 1.95282292, 1.93703973, 1.91707361, 1.9434967],
    ("improved", "resnet"): [2.21493149, 2.08362246, 2.05983305, 1.98160112, 1.96844578],
}

# An epoch of one batch each, so that metrics.csv has the loss of every step.
FIVE_STEPS = (
    *("data.protocol=paper", "data.batch_size=28", "optimizer.lr=0.001", "trainer.max_epochs=5"),
    "trainer.limit_train_batches=1",
)

# Adam divides by what is almost nothing at first, of which so deep a network makes 2 % within five steps.
SLOW = {("plain", "resnet"): ("optimizer.lr=0.00001",)}


@pytest.mark.parametrize(("recipe", "model"), slow_except(GOLDEN.keys() - {("plain", "resnet")}, GOLDEN))
def test_five_steps_lead_to_the_recorded_losses(recipe, model, tmp_path):
    named = () if recipe == "plain" else (f"experiment={recipe}_{model}",)
    float32 = ("trainer=cpu", "trainer.precision=32-true")
    settings = (f"model={model}", *named, *float32, *FIVE_STEPS, *SLOW.get((recipe, model), ()))
    run, _, _ = fit(*settings, folder=tmp_path)
    losses = [epoch["train/loss"] for epoch in epochs(run)]
    # Another processor adds in another order.
    assert losses == pytest.approx(GOLDEN[recipe, model], rel=2e-3)
