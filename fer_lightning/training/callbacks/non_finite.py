"""Ending a run whose loss or weights are no longer finite."""

import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from fer_lightning.core.errors import FERError
from fer_lightning.core.program import pasteable
from fer_lightning.training.callbacks.base import EpochCallback

STEPS_BETWEEN_LOSS_CHECKS = 16  # on a device, which each check waits for


def diverged(what: str, kept: Path) -> FERError:
    """Describe that training has diverged, and the checkpoint to continue from.

    Args:
        what: What was found, and where.
        kept: A checkpoint, which may not exist.
    """
    left = (
        f"the weights of {kept} are finite; continue from them with {pasteable('init_from', kept)}"
        if kept.exists()
        else "no checkpoint was written yet"
    )
    return FERError(
        f"{what}: training has diverged; lower optimizer.lr or set trainer.gradient_clip_val=1 ({left})"
    )


def read_losses(losses: list[Tensor]) -> list[float]:
    """Copy the losses of some steps from their device, and wait for it: once for all of them."""
    values: list[float] = torch.stack(losses).tolist()
    return values


class StopOnNonFiniteLoss(EpochCallback):
    """Ends a run whose loss is no longer finite: at once on a CPU, after a few steps on a device.

    Args:
        folder: The run folder, whose checkpoint a message names; None is the Trainer's ``default_root_dir``.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._folder = folder
        self._waiting: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the loss, or keep it for the next check."""
        loss = outputs["loss"]
        if loss.device.type == "cpu":  # numpy shares its memory; item() takes ten times as long
            values = [float(loss.numpy())]
        else:
            self._waiting.append(loss)
            if len(self._waiting) < STEPS_BETWEEN_LOSS_CHECKS and not trainer.is_last_batch:
                return
            values = read_losses(self._waiting)
            self._waiting.clear()
        for back, value in zip(range(len(values) - 1, -1, -1), values, strict=True):
            if not math.isfinite(value):
                step = trainer.global_step - back // trainer.accumulate_grad_batches
                raise diverged(
                    f"train/loss is {value} at step {step} "
                    f"(epoch {trainer.current_epoch + 1}, batch {batch_idx - back + 1})",
                    Path(self._folder or trainer.default_root_dir) / "last.ckpt",
                )
