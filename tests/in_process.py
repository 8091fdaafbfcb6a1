"""Train within the test's own process: what train.py does between its config and its results."""

import csv

import torch

import train
from fer_lightning.config.resolve import instantiate, register_resolvers
from fer_lightning.core.hardware import resolve_hardware
from fer_lightning.core.signals import StopSignals
from fer_lightning.data.locate import locate
from fer_lightning.runs.folder import Run
from tests.commands import TINY
from tests.config.test_conf import composed


def fit(*overrides, folder):
    """Train on small synthetic data; return the run, the data and the trained module.

    Args:
        overrides: As on the command line, after ``TINY``.
        folder: Holds the run and the cache of decoded faces.
    """
    register_resolvers()
    config = composed("train", *TINY, *overrides)
    config["data"] = locate(config["data"] | {"cache_dir": str(folder / "cache")}, log=print)
    config = resolve_hardware(config)
    data = instantiate(config["data"])
    data.setup()
    torch.manual_seed(0)
    number = len(list(folder.glob("run_*")))
    run = Run(folder / f"run_{number}")
    run.start()
    try:
        module = train.fit(config, run, data, None, StopSignals())
    finally:
        run.release()
    return run, data, module


def epochs(run):
    """Read metrics.csv: one dict of numbers for each epoch."""
    with (run.folder / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
