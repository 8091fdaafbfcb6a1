"""``last.ckpt`` and ``best.ckpt``: when they are written, and with what."""

import math
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging

from fer_lightning.core.errors import FERError
from fer_lightning.core.signals import RunStopped, StopSignals
from fer_lightning.training.callbacks.base import EpochCallback
from fer_lightning.training.callbacks.non_finite import diverged
from fer_lightning.training.checkpoint_metadata import KEY
from fer_lightning.training.ema import inference_state_dict
from fer_lightning.training.schedulers import accumulated_batches


class ModelCheckpoint(EpochCallback):
    """Writes ``last.ckpt`` after each epoch, on a signal and as often as asked; ``best.ckpt`` when it is due.

    It has the attributes of Lightning's callback of this name, and differs where a run must continue with the
    same bits: it saves within an epoch, at once on a signal, by atomic replacement, and never weights that
    are not finite. ``last.ckpt`` holds all that resuming needs. ``best.ckpt``, written whenever the
    monitored metric improves, holds what prediction needs. Without a validation split the best weights are
    the last ones.

    Args:
        dirpath: The folder of the checkpoints; None is the Trainer's ``default_root_dir``.
        monitor: A logged metric; not used where there is no validation split.
        mode: ``max`` or ``min``.
        keep_epochs: Whether the weights of every epoch are kept, in ``epochs/000.ckpt`` and so on.
        every_steps: Optimiser steps between two saves within an epoch; None for no such saves.
        every_minutes: Minutes after which the next step is followed by a save; None for no such saves.

    Attributes:
        best_score: The best value of ``monitor``; None before the first or without one.
        best_epoch: Its 0-based epoch.
        started: Whether training has started, so that a resumed state was restored completely.
        signals: Records an ending signal while the run that owns it has entered it.
    """

    def __init__(
        self,
        *,
        dirpath: str | Path | None = None,
        monitor: str | None = "val/acc",
        mode: str = "max",
        keep_epochs: bool = False,
        every_steps: int | None = None,
        every_minutes: float | None = None,
    ) -> None:
        self.dirpath = Path() if dirpath is None else Path(dirpath)
        self._follows_trainer = dirpath is None
        self.monitor = monitor
        self.mode = mode
        self.signals = StopSignals()
        self.keep_epochs = keep_epochs
        self.every_steps = every_steps
        self.every_minutes = every_minutes
        self.best_score: float | None = None
        self.best_epoch: int | None = None
        self.started = False
        self._stopped_early = False
        self._saved = 0.0

    @property
    def best_model_path(self) -> str:
        """The path of ``best.ckpt``, as in Lightning."""
        return str(self.dirpath / "best.ckpt")

    @best_model_path.setter
    def best_model_path(self, path: str) -> None:
        """Ignore the path that Lightning brings back from a process of ddp_spawn: it is the same."""

    @property
    def last_model_path(self) -> str:
        """The path of ``last.ckpt``, as in Lightning."""
        return str(self.dirpath / "last.ckpt")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the folder, and monitor nothing where there is no validation split."""
        if self._follows_trainer:
            self.dirpath = Path(trainer.default_root_dir)
        rows = getattr(getattr(trainer, "datamodule", None), "rows", None)
        if rows is not None and not len(rows["val"]):
            self.monitor = None

    def state_dict(self) -> dict[str, Any]:
        """Return the best epoch, and whether training was over."""
        return {
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "stopped_early": self._stopped_early,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the saved state."""
        self.best_score, self.best_epoch = state_dict["best_score"], state_dict["best_epoch"]
        self._stopped_early = state_dict["stopped_early"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals back from Lightning, whose handler would end training with exit code 0."""
        self.signals.install()
        self._stop_if_asked(trainer)  # by one that Lightning's handler saw; nothing was trained since
        self.started = True
        self._saved = time.monotonic()
        # Lightning forgets it: a run that was killed during its test would train for another epoch.
        trainer.should_stop = trainer.should_stop or self._stopped_early
        # GradientAccumulationScheduler sets it at the start of an epoch, which a resumed epoch has not.
        trainer.accumulate_grad_batches = accumulated_batches(trainer, trainer.current_epoch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch where that is due; the end of the epoch has its own save."""
        if 0 < trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True  # Lightning would end within an epoch without validating
        # Between batches whose gradients are accumulated, a checkpoint would lack the sum.
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        asked = self.signals.received is not None
        if self._agree(trainer, asked or self._is_due(trainer.global_step)):
            self._check_weights(trainer)
            self._save_last(trainer)
            self._stop_if_asked(trainer)

    def _agree(self, trainer: Trainer, decision: bool) -> bool:
        """Let all processes of a run save and stop together, as soon as one of them decides to."""
        if trainer.world_size == 1:
            return decision
        return trainer.strategy.reduce_boolean_decision(decision, all=False)

    def _stop_if_asked(self, trainer: Trainer) -> None:
        if self._agree(trainer, self.signals.received is not None):
            raise RunStopped(self.signals.received or signal.SIGTERM)

    def _is_due(self, step: int) -> bool:
        if self.every_steps is not None and step % self.every_steps == 0:
            return True
        return self.every_minutes is not None and time.monotonic() - self._saved >= 60 * self.every_minutes

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last weights, and the best where they improved."""
        loss = trainer.callback_metrics.get("val/loss")
        if loss is not None and not math.isfinite(loss):
            what = f"val/loss is {loss.item()} after epoch {trainer.current_epoch + 1}"
            raise diverged(what, self.dirpath / "last.ckpt")
        score = None
        if self.monitor is not None:
            if self.monitor not in trainer.callback_metrics:
                raise FERError(
                    f"monitor={self.monitor}: not measured in epoch {trainer.current_epoch + 1}; every epoch "
                    "must be validated (trainer.check_val_every_n_epoch=1, trainer.limit_val_batches above 0)"
                )
            score = trainer.callback_metrics[self.monitor].item()
        self._check_weights(trainer)
        if self._is_best(score):
            self.best_score, self.best_epoch = score, trainer.current_epoch
            self._save_weights(trainer, "best.ckpt", self.monitor or "last", self.best_score)
        if self.keep_epochs:
            self._save_weights(trainer, f"epochs/{trainer.current_epoch:03}.ckpt", "last", None)
        self._save_last(trainer)
        self._stop_if_asked(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save again where a callback has replaced the weights since, at the end of training."""
        averaging = (StochasticWeightAveraging, WeightAveraging)
        if any(isinstance(callback, averaging) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            self._check_weights(trainer)
            epoch = trainer.current_epoch - 1  # Lightning has counted the last one
            if self.monitor is None:
                self._save_weights(trainer, "best.ckpt", "last", None, epoch=epoch)
            self._save_last(trainer, epoch=epoch)

    def _check_weights(self, trainer: Trainer) -> None:
        state = trainer.lightning_module.state_dict()
        floating = {name: weights for name, weights in state.items() if weights.is_floating_point()}
        # One answer for all weights: each would wait for the device.
        finite = torch.stack([weights.isfinite().all() for weights in floating.values()]).tolist()
        for name, is_finite in zip(floating, finite, strict=True):
            if not is_finite:
                what = f"{name} is not finite after step {trainer.global_step}"
                raise diverged(what, self.dirpath / "last.ckpt")

    def _is_best(self, score: float | None) -> bool:
        if score is None or self.best_score is None:
            return True
        return score > self.best_score if self.mode == "max" else score < self.best_score

    def _describe(
        self, trainer: Trainer, selected_by: str, score: float | None, epoch: int | None
    ) -> dict[str, Any]:
        module: Any = trainer.lightning_module
        described = replace(module.describe(), selected_by=selected_by, score=score)
        if epoch is not None:
            described = replace(described, epoch=epoch)
        if self.monitor is None or selected_by == "last":
            described = replace(described, selected_on=described.selected_on[:0])
        return dict(described.to_plain())

    def _save_weights(
        self, trainer: Trainer, name: str, selected_by: str, score: float | None, *, epoch: int | None = None
    ) -> None:
        content = trainer._checkpoint_connector.dump_checkpoint(weights_only=True)
        content.pop("train_outputs", None)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, WeightAveraging):  # validated its averages, not the current weights
                callback.on_save_checkpoint(trainer, trainer.lightning_module, content)
                for resuming in ("current_model_state", "averaging_state"):
                    content.pop(resuming, None)
        content["state_dict"] = inference_state_dict(content["state_dict"])
        content[KEY] = self._describe(trainer, selected_by, score, epoch)
        trainer.strategy.save_checkpoint(content, self.dirpath / name)

    def _save_last(self, trainer: Trainer, *, epoch: int | None = None) -> None:
        self._stopped_early = trainer.should_stop
        content = trainer._checkpoint_connector.dump_checkpoint()
        content[KEY] = self._describe(trainer, "last", None, epoch)
        trainer.strategy.save_checkpoint(content, self.dirpath / "last.ckpt")
        self._saved = time.monotonic()
