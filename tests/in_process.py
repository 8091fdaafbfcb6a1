"""Train inside the test process: what train.py does between its config and its results."""

import csv

import torch

from fer_lightning.config.resolve import register_resolvers
from fer_lightning.core.hardware import resolve_hardware
from fer_lightning.data.locate import locate
from fer_lightning.runs.folder import RunFolder
from fer_lightning.training import fit as fitting
from fer_lightning.training.build import build_callbacks, build_classifier, build_datamodule, build_trainer
from tests.commands import TINY
from tests.config.test_conf import composed


def fit(*overrides, folder):
    """Train on small synthetic data; return the run, the data and the trained module.

    Args:
        overrides: Overrides as on the command line, applied after ``TINY``.
        folder: Folder for the run and the cache of decoded images.
    """
    register_resolvers()
    config = composed("train", *TINY, *overrides)
    config["data"] = locate(config["data"] | {"cache_dir": str(folder / "cache")}, log=print)
    config = resolve_hardware(config)
    torch.manual_seed(0)
    module = build_classifier(config)
    data = build_datamodule(config["data"])
    data.setup()
    run = RunFolder(folder / f"run_{len(list(folder.glob('run_*')))}")
    run.start()
    trainer = build_trainer(config, run.folder, build_callbacks(config), [])
    try:
        fitting.fit(trainer, module, data, run.folder)
    finally:
        run.release()
    return run, data, module


def epochs(run):
    """Read metrics.csv: one dict of numbers per epoch."""
    with (run.folder / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
