"""Five steps of every network: what is made faster, or only rearranged, must lead to the same losses."""

import csv

import pytest
import torch

import train
from fer_lightning.config import instantiate, register_resolvers
from fer_lightning.data.locate import locate
from fer_lightning.machine import choose_arithmetic
from fer_lightning.run import Run
from fer_lightning.signals import StopSignals
from tests.commands import TINY
from tests.test_conf import composed

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

SETTINGS = (
    *(*TINY, "data.protocol=paper", "data.batch_size=28", "optimizer.lr=0.001", "trainer=cpu"),
    *("trainer.precision=32-true", "trainer.max_epochs=5", "trainer.limit_train_batches=1"),
)


@pytest.mark.parametrize(("recipe", "model"), GOLDEN)
def test_five_steps_lead_to_the_recorded_losses(recipe, model, tmp_path):
    register_resolvers()
    named = () if recipe == "plain" else (f"recipe={recipe}",)
    # Adam divides by what is almost nothing at first, of which so deep a network makes 2 % within five steps.
    slow = ("optimizer.lr=0.00001",) if (recipe, model) == ("plain", "resnet") else ()
    config = composed("train", f"model={model}", *named, *SETTINGS, *slow)
    config["data"] = locate(config["data"] | {"cache_dir": str(tmp_path)}, say=print)
    config = choose_arithmetic(config)
    data = instantiate(config["data"])
    data.setup()
    torch.manual_seed(0)
    run = Run(tmp_path / "run")
    run.start()
    train.fit(config, run, data, None, StopSignals())
    run.release()
    with (run.folder / "metrics.csv").open(newline="") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file)]
    # Another processor adds in another order.
    assert losses == pytest.approx(GOLDEN[recipe, model], rel=2e-3)
