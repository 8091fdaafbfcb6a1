"""What a process does that torchrun or srun has started with others, and that is not the first of them."""

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything

from fer_lightning.config.targets import ANY_TARGET
from fer_lightning.core import hardware
from fer_lightning.core.errors import FERError, as_user_error, exit_with_error
from fer_lightning.core.parallel import available_cores
from fer_lightning.core.processes import Processes, getting_ready, leave
from fer_lightning.core.signals import StopSignals, check_stopped
from fer_lightning.training.build import (
    Parts,
    build_callbacks,
    build_classifier,
    build_datamodule,
    build_trainer,
)
from fer_lightning.training.callbacks import ModelCheckpoint
from fer_lightning.training.fit import callback_of, fit


def follow(processes: Processes) -> None:
    """Train what the first process announces, and write and print nothing; an error alone is printed."""
    for name in ("fer_lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    node: dict[str, Any] = {}
    folder = Path()
    try:
        with getting_ready(processes) as announced:
            check_stopped()
            if announced is None:
                return
            node, folder = announced["config"]["data"], Path(announced["folder"])
            parts = _build(announced["config"], folder, processes)
        try:
            _fit(parts, folder)
        except FERError:  # which the first process has, too, and says
            sys.exit(1)
    except Exception as error:
        check_stopped()
        known = as_user_error(error, folder, node)
        if not isinstance(known, FERError):
            raise
        exit_with_error(FERError(f"process {processes.rank}: {known}"))


def _build(config: Any, folder: Path, processes: Processes) -> Parts:
    hardware.prepare(config["num_threads"], default=processes.threads(available_cores()))
    seed_everything(config["seed"], verbose=False)
    # The first process has checked what the config names.
    module = build_classifier(config, trust=ANY_TARGET)
    data = build_datamodule(config["data"], trust=ANY_TARGET)
    callbacks = build_callbacks(config, trust=ANY_TARGET)
    trainer = build_trainer(config, folder, callbacks, [], trust=ANY_TARGET)
    module.config = config
    data.setup()
    return Parts(data, module, trainer)


def _fit(parts: Parts, folder: Path) -> None:
    data, module, trainer = parts
    with StopSignals() as signals:
        callback_of(trainer, ModelCheckpoint).signals = signals
        try:
            fit(trainer, module, data, folder)
        finally:
            leave()
