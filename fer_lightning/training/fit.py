"""Fitting: from a built module and its data to the checkpoints in the run folder."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from fer_lightning.config.compare import config_hash
from fer_lightning.config.types import TrainConfig
from fer_lightning.core.errors import FERError, is_out_of_memory
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.training.callbacks import MetricsCSV, ModelCheckpoint
from fer_lightning.training.checkpoint import CheckpointMetadata, read_checkpoint
from fer_lightning.training.classifier import FERClassifier

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
        if trainer.max_epochs is not None and begun > trainer.max_epochs:
            raise FERError(
                f"trainer.max_epochs={trainer.max_epochs}: this run has begun epoch {begun}; "
                "expected at least as many"
            )
        log.info("continuing from %s", last)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=last if resumes else None, weights_only=True)
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        if checkpoint.started or not resumes or isinstance(error, FERError) or is_out_of_memory(error):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise FERError(
            f"{last}: its state does not fit this run ({reason[:200]}); it is another run's or was altered; "
            "its weights can start a new run: init_from=PATH"
        ) from error


def check_same_data(metadata: CheckpointMetadata, data: FERDataModule, folder: Path) -> None:
    """Refuse to continue a run on other images, labels or splits than it was started on.

    Args:
        metadata: Of ``last.ckpt``.
        data: After ``setup``.
        folder: The run folder.

    Raises:
        FERError: If the fingerprints differ.
    """
    found = data.faces.fingerprint
    if metadata.fingerprint != found:
        raise FERError(
            f"{data.root or data.name}: images, labels or splits have changed since this run was started "
            f"(fingerprint {metadata.fingerprint[:12]}, now {found[:12]}); restore them, or start a new run "
            f"from its weights with init_from={folder}"
        )


def check_best(metadata: CheckpointMetadata, config: TrainConfig, data: FERDataModule, path: Path) -> None:
    """Refuse a ``best.ckpt`` that another run has written.

    Args:
        metadata: Of ``best.ckpt``.
        config: The run's.
        data: After ``setup``.
        path: Of ``best.ckpt``.

    Raises:
        FERError: If its config or data are not those of this run.
    """
    if metadata.fingerprint != data.faces.fingerprint or config_hash(metadata.config) != config_hash(config):
        raise FERError(
            f"{path}: not a checkpoint of this run, whose config or data differ; it was replaced: put the "
            "run's own back, or start a new run"
        )


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
