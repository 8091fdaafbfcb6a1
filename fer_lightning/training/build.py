"""The parts of a training run, each built once from the config before data are decoded."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger
from numpy.typing import NDArray

from fer_lightning.config.instantiate import instantiate
from fer_lightning.config.types import TrainConfig
from fer_lightning.core.errors import FERError
from fer_lightning.core.hardware import check_compiler, prefers_channels_last
from fer_lightning.core.signals import StopSignals
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.models.build import build_backbone
from fer_lightning.training.callbacks import MetricsCSV, ModelCheckpoint, ProgressBar, StopOnNonFiniteLoss
from fer_lightning.training.checkpoint import AtomicCheckpointIO, find_checkpoint, init_backbone
from fer_lightning.training.classifier import FERClassifier
from fer_lightning.training.metrics import check_monitor
from fer_lightning.training.overhead import NoProfiler

log = logging.getLogger(__name__)


def build_datamodule(node: Mapping[str, Any]) -> FERDataModule:
    """Build the data module of a located data node; nothing is read yet."""
    data = instantiate(node, name="data", kind="fer_lightning.data.")
    if not isinstance(data, FERDataModule):
        raise FERError(f"data: {node.get('_target_')}: expected a data module")
    return data


def build_classifier(config: TrainConfig) -> tuple[FERClassifier, NDArray[np.uint64]]:
    """Build backbone and LightningModule, in the memory format that suits the device.

    Args:
        config: Plain, with its device and precision resolved.

    Returns:
        The module, and ``(N,)`` uint64 hashes of the images that its initial weights have seen.

    Raises:
        FERError: If a setting of the model, the classifier, the optimiser or the scheduler is wrong, or
            ``init_from`` does not fit.
    """
    classes = tuple(map(str, config["data"]["classes"]))
    check_monitor(config["monitor"], config["monitor_mode"], len(classes))
    trainer = config["trainer"]
    if config["compile"]:
        check_compiler(trainer["accelerator"])
    backbone = build_backbone(config.get("model") or {})
    if prefers_channels_last(backbone, trainer["accelerator"], trainer["precision"]):
        backbone.to(memory_format=torch.channels_last)
    seen = np.empty(0, np.uint64)
    if config["init_from"] is not None:
        try:
            checkpoint = find_checkpoint(config["init_from"])
        except FERError as error:
            raise FERError(f"init_from={error}") from None
        before = init_backbone(backbone, checkpoint, classes, log.info)
        seen = np.concatenate([before.trained_on, before.selected_on])
    module = instantiate(
        config["classifier"],
        name="classifier",
        backbone=backbone,
        classes=classes,
        optimizer=instantiate(config["optimizer"], name="optimizer"),
        scheduler=instantiate(config["scheduler"], name="scheduler"),
    )
    if not isinstance(module, FERClassifier):
        raise FERError(f"classifier: {config['classifier'].get('_target_')}: expected a FERClassifier")
    if config["compile"]:
        backbone.compile()
    return module, seen


def build_callbacks(
    config: TrainConfig, folder: Path, signals: StopSignals, seen_before: NDArray[np.uint64]
) -> list[Callback]:
    """Build the callbacks of a run, in the order in which they must be called.

    The metrics file comes first and the progress last; the guard comes before the checkpoint.
    """
    metrics = MetricsCSV(folder)
    checkpoint = ModelCheckpoint(
        dirpath=folder,
        config=config,
        monitor=config["monitor"],
        mode=config["monitor_mode"],
        signals=signals,
        seen_before=seen_before,
        keep_epochs=config["keep_epochs"],
        every_steps=config["save_every_steps"],
        every_minutes=config["save_every_minutes"],
    )
    callbacks: list[Callback] = [
        metrics,
        StopOnNonFiniteLoss(folder),
        checkpoint,
        ProgressBar(metrics, checkpoint),
    ]
    if config["early_stopping"] is not None:
        mode, patience = config["monitor_mode"], config["early_stopping"]
        callbacks.append(EarlyStopping(config["monitor"], patience=patience, mode=mode))
    return callbacks


def build_trainer(
    config: TrainConfig, folder: Path, callbacks: list[Callback], logger: Logger | None
) -> Trainer:
    """Build the Trainer of a run; logger and callbacks are given, checkpoints are written atomically."""
    node = config["trainer"]
    trainer = instantiate(
        node,
        name="trainer",
        logger=logger or False,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=str(folder),
        profiler=node.get("profiler") or NoProfiler(),
    )
    if not isinstance(trainer, Trainer):
        raise FERError(f"trainer: {node.get('_target_')}: expected a Trainer")
    return trainer


def build_logger(node: Any) -> Logger | None:
    """Build the logger of a run; None for ``logger=none``."""
    logger: Logger | None = instantiate(node, name="logger")
    return logger
