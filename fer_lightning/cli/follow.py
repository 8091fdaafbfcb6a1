"""What a process does that torchrun or srun has started with others, and that is not the first of them."""

import logging
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch import seed_everything
from torch.distributed import DistError

from fer_lightning.config.targets import ANY_TARGET
from fer_lightning.core import hardware
from fer_lightning.core.errors import FERError, as_user_error, exit_with_error
from fer_lightning.core.parallel import available_cores
from fer_lightning.core.processes import Follower, LostProcessError, Processes, leave
from fer_lightning.core.signals import RunStopped, StopSignals, check_stopped
from fer_lightning.training.build import (
    Parts,
    build_callbacks,
    build_classifier,
    build_datamodule,
    build_trainer,
)
from fer_lightning.training.callbacks import ModelCheckpoint
from fer_lightning.training.fit import callback_of, fit
from fer_lightning.training.loggers.silent import SilentLogger


def follow(processes: Processes) -> None:
    """Train what the first process announces, and write and print nothing: it says what went wrong here."""
    for name in ("fer_lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    try:
        follower = Follower(processes)
    except DistError:  # the first process never came, and says why
        sys.exit(1)
    try:
        announced = follower.await_run()
        if announced is None:
            return
        parts = _get_ready(announced, follower, processes)
        with StopSignals() as signals:
            check_stopped()
            callback_of(parts.trainer, ModelCheckpoint).signals = signals
            if not follower.await_start():
                sys.exit(1)
            _fit(parts, announced, follower, processes)
    except DistError:  # the first process has ended, and says why
        sys.exit(1)
    except RunStopped as stop:
        with suppress(DistError):
            follower.stop(stop.signal_number)
        raise


def _get_ready(announced: Any, follower: Follower, processes: Processes) -> Parts:
    try:
        return _build(announced, processes)
    except Exception as error:  # noqa: BLE001 - any
        _end(error, announced, processes, follower.refuse)


def _end(error: Exception, announced: Any, processes: Processes, report: Callable[[str], bool]) -> NoReturn:
    """End this process with the words of the first one, or with its own if the first one is not there."""
    known = as_user_error(error, Path(announced["folder"]), announced["config"]["data"])
    sentence = f"process {processes.rank} of {processes.world_size}: {known}"
    if not isinstance(known, FERError):
        report(sentence)
        raise error
    if not report(sentence):
        exit_with_error(FERError(sentence))
    sys.exit(1)


def _build(announced: Any, processes: Processes) -> Parts:
    config = announced["config"]
    hardware.prepare(config["num_threads"], default=processes.threads(available_cores()))
    seed_everything(config["seed"], verbose=False)
    # The first process has checked what the config names.
    module = build_classifier(config, trust=ANY_TARGET)
    data = build_datamodule(config["data"], trust=ANY_TARGET)
    callbacks = build_callbacks(config, trust=ANY_TARGET)
    loggers = [SilentLogger() for _ in config["logger"]]
    trainer = build_trainer(config, Path(announced["folder"]), callbacks, [*loggers], trust=ANY_TARGET)
    module.config = config
    data.setup()
    found, expected = data.faces.fingerprint, announced["fingerprint"]
    if found != expected:
        raise FERError(
            f"{data.root or data.name}: other images, labels or splits than those of the first process "
            f"(fingerprint {found[:12]}, expected {expected[:12]}); copy the same data to each node"
        )
    return Parts(data, module, trainer)


def _fit(parts: Parts, announced: Any, follower: Follower, processes: Processes) -> None:
    data, module, trainer = parts
    try:
        fit(trainer, module, data, Path(announced["folder"]))
    except Exception as error:  # noqa: BLE001 - any
        check_stopped()
        if isinstance(error, LostProcessError):
            sys.exit(1)
        leave()  # the others notice it
        _end(error, announced, processes, follower.report)
    finally:
        leave()
