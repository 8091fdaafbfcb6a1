"""Train inside the test process: what train.py does between its config and its results."""

import csv
import signal
from contextlib import suppress

import torch
from lightning.pytorch import Callback

from fer_lightning.config.resolve import compose_config, to_plain
from fer_lightning.config.targets import ANY_TARGET
from fer_lightning.core.hardware import resolve_hardware
from fer_lightning.core.signals import RunStopped
from fer_lightning.data.locate import locate
from fer_lightning.runs.folder import RunFolder
from fer_lightning.training import fit as fitting
from fer_lightning.training.build import (
    build_callbacks,
    build_classifier,
    build_datamodule,
    build_loggers,
    build_trainer,
)
from fer_lightning.training.callbacks import ModelCheckpoint
from tests.commands import TINY


class StopAt(Callback):
    """Stops a run after a number of optimiser steps, as SIGTERM does."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            fitting.callback_of(trainer, ModelCheckpoint).signals.received = signal.SIGTERM


def fit(*overrides, folder, stop_at=()):
    """Train on small synthetic data; return the run, the data and the trained module.

    Args:
        overrides: Overrides as on the command line, applied after ``TINY``.
        folder: Folder for the run and the cache of decoded images.
        stop_at: Optimiser steps after which the run is stopped, and continued with new objects.
    """
    run = RunFolder(folder / f"run_{len(list(folder.glob('run_*')))}")
    run.start()
    try:
        for step in stop_at:
            with suppress(RunStopped):
                _fit_once(overrides, folder, run, [StopAt(step)])
                raise AssertionError(f"the run ended before step {step}")
        data, module = _fit_once(overrides, folder, run, [])
    finally:
        run.release()
    return run, data, module


def _fit_once(overrides, folder, run, callbacks):
    composed = compose_config("train", [*TINY, *overrides])
    composed.run_dir = str(run.folder)
    config = to_plain(composed)
    config["data"] = locate(config["data"] | {"cache_dir": str(folder / "cache")}, log=print)
    config = resolve_hardware(config)
    torch.manual_seed(0)
    module = build_classifier(config, trust=ANY_TARGET)
    data = build_datamodule(config["data"], trust=ANY_TARGET)
    data.setup()
    loggers = [] if "wandb" in config["logger"] else build_loggers(config["logger"], trust=ANY_TARGET)
    callbacks = build_callbacks(config, trust=ANY_TARGET) + callbacks
    trainer = build_trainer(config, run.folder, callbacks, loggers, trust=ANY_TARGET)
    fitting.fit(trainer, module, data, run.folder)
    return data, module


def epochs(run):
    """Read metrics.csv: one dict of numbers per epoch."""
    with (run.folder / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
