"""Fitting: from a built module and its data to the checkpoints in the run folder."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging

from fer_lightning.core.errors import FERError, is_out_of_memory
from fer_lightning.core.processes import lost_process
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.training.callbacks import MetricsCSV, ModelCheckpoint
from fer_lightning.training.checkpoint import read_checkpoint
from fer_lightning.training.classifier import FERClassifier
from fer_lightning.training.continuation import check_same_data

log = logging.getLogger(__name__)


def fit(trainer: Trainer, module: FERClassifier, data: FERDataModule, folder: Path) -> None:
    """Train from the start, or continue from ``last.ckpt`` in the run folder.

    Args:
        trainer: From ``build_trainer``.
        module: From ``build_classifier``.
        data: After ``setup``.
        folder: The run folder.

    Raises:
        FERError: If ``last.ckpt`` is damaged or of another run, or training diverges.
    """
    check_monitors(trainer, module, data)
    if not len(data.rows["val"]):
        log.info("no validation split: best.ckpt is the last epoch's, selected by nothing")
        trainer.limit_val_batches = 0  # Lightning warns about an empty list of loaders otherwise
    checkpoint = callback_of(trainer, ModelCheckpoint)
    last = folder / "last.ckpt"
    resumes = last.is_file()
    if resumes:
        metadata = read_checkpoint(last)[1]  # a damaged file fails here, in one sentence
        check_same_data(metadata, data, folder)
        begun = metadata.epoch + 1
        most = trainer.max_epochs
        if most is not None and begun > most + extra_epochs(trainer):
            raise FERError(
                f"trainer.max_epochs={trainer.max_epochs}: this run has begun epoch {begun}; "
                "expected at least as many"
            )
        log.info("continuing from %s", last)
    try:
        with without_false_warnings(resumes=resumes):
            trainer.fit(module, datamodule=data, ckpt_path=last if resumes else None, weights_only=True)
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        if trainer.world_size > 1 and (lost := lost_process(error)) is not None:
            raise lost from error
        if checkpoint.started or not resumes or isinstance(error, FERError) or is_out_of_memory(error):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise FERError(
            f"{last}: its state does not fit this run ({reason[:200]}); it is another run's or was altered; "
            "its weights can start a new run: init_from=PATH"
        ) from error


def check_monitors(trainer: Trainer, module: FERClassifier, data: FERDataModule) -> None:
    """Refuse what follows a metric of a validation split that the data have not.

    Raises:
        FERError: If it is the scheduler or a callback; ``ModelCheckpoint`` of this package does without.
    """
    if len(data.rows["val"]):
        return
    followers: dict[str, Any] = (
        {"scheduler: ReduceLROnPlateau": module.monitor} if module.follows_metric else {}
    )
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if not isinstance(callback, ModelCheckpoint):
            followers[f"callbacks: {type(callback).__name__}"] = getattr(callback, "monitor", None)
    for name, monitor in followers.items():
        if isinstance(monitor, str) and monitor.startswith("val/"):
            raise FERError(
                f"{name} follows {monitor}, and there is no validation split; set data.val_fraction=0.1 to "
                "hold a tenth of train out, or data.protocol=official"
            )


def extra_epochs(trainer: Trainer) -> int:
    """Return the number of passes after the last epoch: one for batch normalisation, of Lightning's SWA."""
    return int(any(isinstance(callback, StochasticWeightAveraging) for callback in trainer.callbacks))  # type: ignore[attr-defined]


@contextmanager
def without_false_warnings(*, resumes: bool) -> Iterator[None]:
    """Suppress what Lightning warns of wrongly.

    Args:
        resumes: Whether a run continues, whose folders are not empty.
    """
    with warnings.catch_warnings():
        # FERDataModule repeats the same batches.
        warnings.filterwarnings("ignore", message="You requested to overfit but enabled")
        # FERClassifier.optimizer_step counts optimiser steps.
        warnings.filterwarnings(
            "ignore", message="When using `Trainer.accumulate_grad_batches != 1.` and overr"
        )
        # In these the schedule has as many steps as epochs.
        warnings.filterwarnings("ignore", message="A `OneCycleLR` scheduler is using 'interval': 'epoch'")
        if resumes:
            warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
        yield


def callback_of(trainer: Trainer, kind: type[Any]) -> Any:
    """Return the trainer's callback of a class."""
    return next(callback for callback in trainer.callbacks if isinstance(callback, kind))  # type: ignore[attr-defined]


def training_times(trainer: Trainer) -> dict[str, Any]:
    """Return what ``run.json`` records of training so far, in this process and in previous ones."""
    metrics = callback_of(trainer, MetricsCSV)
    rates = metrics.images_per_s
    facts = {
        "first_step": metrics.first_step,
        "epoch_seconds": metrics.epoch_seconds,
        "epoch_end_seconds": metrics.epoch_end_seconds,
        "images_per_s": round(sum(rates) / len(rates), 1) if rates else None,
    }
    return {name: value for name, value in facts.items() if value}
