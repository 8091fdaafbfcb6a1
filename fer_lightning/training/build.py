"""The parts of a training run, each built once from the config before data are decoded.

``trust`` is what a config may name besides the allow-list of ``config.targets``: everything if the user
composed it, the packages that the user trusts if it was read from a file.
"""

import logging
import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger
from torch import nn

from fer_lightning.config.checks import check_values
from fer_lightning.config.instantiate import instantiate
from fer_lightning.config.known_keys import TRAIN_KEYS, check_known_keys
from fer_lightning.config.resolve import compose_config, to_plain
from fer_lightning.config.secrets import check_no_secrets
from fer_lightning.config.targets import ANY_TARGET
from fer_lightning.config.types import TrainConfig
from fer_lightning.core.errors import FERError
from fer_lightning.core.hardware import check_compiler, prefers_channels_last, prepare, resolve_hardware
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.locate import locate
from fer_lightning.models.build import build_backbone
from fer_lightning.training.callbacks import MetricsCSV, ModelCheckpoint
from fer_lightning.training.checkpoint import find_checkpoint, init_backbone
from fer_lightning.training.checkpoint_metadata import seen_by
from fer_lightning.training.classifier import FERClassifier
from fer_lightning.training.loggers.failsafe import make_failsafe
from fer_lightning.training.loggers.step_loss import step_loss_callbacks
from fer_lightning.training.metrics import check_monitor

log = logging.getLogger(__name__)


class Parts(NamedTuple):
    """What ``build`` returns.

    Attributes:
        data: The data module; nothing is read yet.
        module: The classifier with its initial weights.
        trainer: The Trainer with callbacks and loggers, whose files go to ``trainer.default_root_dir``.
    """

    data: FERDataModule
    module: FERClassifier
    trainer: Trainer


def build(overrides: Sequence[str] = (), *, folder: str | Path | None = None) -> Parts:
    """Build data module, classifier and Trainer of a command line, for a notebook or a script.

    ``data, module, trainer = build(["model=cnn"])`` is what ``python train.py model=cnn`` trains, before
    ``trainer.fit(module, datamodule=data)``.

    Args:
        overrides: As on the command line of train.py.
        folder: Where checkpoints, metrics and loggers write; None is a new folder below ``outputs``.

    Raises:
        FERError: If a setting is wrong, or there is no such device or data.
    """
    composed = compose_config("train", overrides)
    if folder is None:
        folder = Path("outputs") / f"{datetime.now():%Y-%m-%d/%H-%M-%S}_{secrets.token_hex(3)}"
    composed.run_dir = str(folder)
    plain = to_plain(composed)
    check_no_secrets(plain, overrides)
    check_known_keys(plain, TRAIN_KEYS)
    check_values(plain)
    plain = resolve_hardware(plain)
    prepare(plain["num_threads"])
    plain["data"] = locate(plain["data"], log=log.warning)
    config = cast(TrainConfig, plain)
    seed_everything(config["seed"], verbose=False)
    module = build_classifier(config, trust=ANY_TARGET)
    data = build_datamodule(config["data"], trust=ANY_TARGET)
    Path(folder).mkdir(parents=True, exist_ok=True)
    loggers = build_loggers(config["logger"], trust=ANY_TARGET)
    callbacks = build_callbacks(config, trust=ANY_TARGET)
    return Parts(data, module, build_trainer(config, Path(folder), callbacks, loggers, trust=ANY_TARGET))


def build_datamodule(node: Mapping[str, Any], *, trust: Collection[str] = ()) -> FERDataModule:
    """Build the data module of a located data node; nothing is read yet."""
    data = instantiate(node, name="data", kind="fer_lightning.data.", trust=trust)
    if not isinstance(data, FERDataModule):
        raise FERError(f"data: {node.get('_target_')}: expected a FERDataModule or a subclass of it")
    return data


def build_classifier(config: TrainConfig, *, trust: Collection[str] = ()) -> FERClassifier:
    """Build backbone and LightningModule, in the memory format that suits the device.

    Args:
        config: Plain, with its device and precision resolved.
        trust: See above.

    Raises:
        FERError: If a setting of the model, the loss, the classifier, the optimiser or the scheduler is
            wrong, or ``init_from`` does not fit.
    """
    classes = tuple(map(str, config["data"]["classes"]))
    check_monitor(config["monitor"], config["monitor_mode"])
    trainer = config["trainer"]
    if config["compile"]:
        check_compiler(trainer["accelerator"])
    backbone = build_backbone(config.get("model") or {}, trust=trust)
    if prefers_channels_last(backbone, trainer["accelerator"], trainer["precision"]):
        backbone.to(memory_format=torch.channels_last)
    seen, unknown = np.empty(0, np.uint64), None
    if config["init_from"] is not None:
        try:
            checkpoint = find_checkpoint(config["init_from"])
        except FERError as error:
            raise FERError(f"init_from={error}") from None
        before = init_backbone(backbone, checkpoint, classes, log.info)
        seen, unknown = seen_by(before, config["data"])
    loss = instantiate(config["loss"], name="loss", trust=trust)
    if loss is not None and not isinstance(loss, nn.Module):
        raise FERError(f"loss: {config['loss'].get('_target_')}: expected a module of (logits, targets)")
    module = instantiate(
        config["classifier"],
        name="classifier",
        trust=trust,
        backbone=backbone,
        classes=classes,
        loss=loss,
        optimizer=instantiate(_as_partial(config["optimizer"]), name="optimizer", trust=trust),
        scheduler=instantiate(_as_partial(config["scheduler"]), name="scheduler", trust=trust),
    )
    if not isinstance(module, FERClassifier):
        raise FERError(f"classifier: {config['classifier'].get('_target_')}: expected a FERClassifier")
    module.config, module.seen_before, module.unknown_before = config, seen, unknown
    if config["compile"]:
        backbone.compile()
    return module


def _as_partial(node: Any) -> Any:
    """Make a node one that builds a ``functools.partial``: parameters or optimiser are given later."""
    return {"_partial_": True, **node} if isinstance(node, Mapping) and "_target_" in node else node


def build_callbacks(config: TrainConfig, *, trust: Collection[str] = ()) -> list[Callback]:
    """Build the callbacks of a run, in the order of the config; early stopping comes last.

    Raises:
        FERError: If a node is no callback's, or there is not one ``ModelCheckpoint`` and one ``MetricsCSV``
            of this package.
    """
    callbacks: list[Callback] = []
    if not isinstance(config["callbacks"], Mapping):
        raise FERError(f"callbacks={config['callbacks']}: expected nodes by name, as in callbacks=default")
    for name, node in config["callbacks"].items():
        callback = instantiate(node, name=f"callbacks.{name}", trust=trust)
        if not isinstance(callback, Callback):
            raise FERError(
                f"callbacks.{name}={node}: expected the node of a callback, with _target_ and settings"
            )
        callbacks.append(callback)
    for kind, files in ((ModelCheckpoint, "best.ckpt and last.ckpt"), (MetricsCSV, "metrics.csv")):
        if sum(isinstance(callback, kind) for callback in callbacks) != 1:
            raise FERError(
                f"callbacks: a run needs one fer_lightning.training.callbacks.{kind.__name__}, which writes "
                f"{files}; callbacks=default has it, and +callbacks.NAME._target_=... adds others"
            )
    if config["early_stopping"] is not None:
        mode, patience = config["monitor_mode"], config["early_stopping"]
        callbacks.append(EarlyStopping(config["monitor"], patience=patience, mode=mode))
    return callbacks


def build_trainer(
    config: TrainConfig,
    folder: Path,
    callbacks: list[Callback],
    loggers: list[Logger],
    *,
    trust: Collection[str] = (),
) -> Trainer:
    """Build the Trainer of a run; loggers and callbacks are given."""
    node = config["trainer"]
    steps = [callback for logger in loggers for callback in step_loss_callbacks(logger)]
    trainer = instantiate(
        node,
        name="trainer",
        trust=trust,
        logger=loggers or False,
        callbacks=[*callbacks, *steps],
        default_root_dir=str(folder),
    )
    if not isinstance(trainer, Trainer):
        raise FERError(f"trainer: {node.get('_target_')}: expected a Trainer")
    return trainer


def build_loggers(nodes: Mapping[str, Any], *, trust: Collection[str] = ()) -> list[Logger]:
    """Build the loggers of a run: none, one or several.

    Raises:
        FERError: If a node is no logger's.
    """
    loggers: list[Logger] = []
    if not isinstance(nodes, Mapping):
        raise FERError(f"logger={nodes}: expected nodes by name, as in logger=[wandb,csv]")
    for name, node in nodes.items():
        is_node = isinstance(node, Mapping)
        logger = instantiate(node, name=f"logger.{name}", trust=trust) if is_node else None
        if not isinstance(logger, Logger):
            raise FERError(
                f"logger.{name}={node}: expected the node of a logger, with _target_ and settings; choose "
                "loggers with logger=[wandb,csv], and set one's options with logger.wandb.project=..."
            )
        loggers.append(make_failsafe(logger))
    return loggers
