"""The training loss of single steps, between the epochs of the other curves."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from fer_lightning.training.callbacks.base import EpochCallback
from fer_lightning.training.loggers.wandb import FailsafeWandbLogger


class StepLoss(EpochCallback):
    """Logs ``train/loss_step`` every ``every_n_steps`` optimiser steps, of the batch of that step.

    It reads the loss that the step has computed anyway, and waits for the device only when it logs.
    ``self.log`` in ``training_step`` would do the same work in every step, logged or not, and the Trainer's
    ``log_every_n_steps`` does nothing without it (benchmarks/README.md has the times).

    Args:
        logger: Where the loss goes.
        every_n_steps: At least 1.
    """

    def __init__(self, logger: FailsafeWandbLogger, every_n_steps: int) -> None:
        self.logger = logger
        self.every_n_steps = every_n_steps
        self._batches_left = 1

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002 - Lightning gives the signature
        outputs: Any,
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Log the loss, if it is time."""
        self._batches_left -= 1
        if self._batches_left > 0:
            return
        num_steps = trainer.global_step  # read only when it may be time: it takes longer than the rest
        left = self.every_n_steps - num_steps % self.every_n_steps
        self._batches_left = left
        if left == self.every_n_steps and num_steps:
            point = {"train/loss_step": outputs["loss"].item(), "epoch": trainer.current_epoch}
            self.logger.log_metrics(point, step=num_steps - 1)


def step_loss_callbacks(logger: Any) -> list[StepLoss]:
    """Return the callback that a W&B logger asks for, in a list; other loggers ask for none."""
    if isinstance(logger, FailsafeWandbLogger) and logger.log_every_n_steps is not None:
        return [StepLoss(logger, logger.log_every_n_steps)]
    return []
