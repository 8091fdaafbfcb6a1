"""``metrics.csv``: one row per epoch."""

import csv
import logging
import math
import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from fer_lightning.core.clock import now
from fer_lightning.core.errors import FERError
from fer_lightning.core.files import naming, write_atomically
from fer_lightning.training.callbacks.base import EpochCallback

log = logging.getLogger(__name__)


class MetricsCSV(EpochCallback):
    """Writes one row per epoch to ``metrics.csv``, before the next epoch starts, and times the epochs.

    Args:
        folder: The run folder; None is the Trainer's ``default_root_dir``.

    Attributes:
        epoch_seconds: Wall time of each epoch's training steps, validation left out; of an epoch that was
            interrupted, that of the steps that count, before and after.
        epoch_end_seconds: Wall time of what follows them: validation, logging, checkpoints.
        images_per_s: Training throughput of each epoch.
        lr: Learning rate at the start of the epoch.
        first_step: When the first training step of this process was done, an ISO date; None before.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._folder = folder
        self.path = Path(folder or "") / "metrics.csv"
        self.epoch_seconds: list[float] = []
        self.epoch_end_seconds: list[float] = []
        self.images_per_s: list[float] = []
        self.first_step: str | None = None
        self.lr = math.nan
        self._started = 0.0
        self._steps_ended: float | None = None
        self._images = 0
        self._resumed_progress = (0.0, 0)  # seconds and images of this epoch before it was resumed

    def state_dict(self) -> dict[str, Any]:
        """Return the state needed to resume in the middle of an epoch."""
        between_epochs = self._steps_ended is not None
        return {
            "lr": self.lr,
            "epoch_seconds": self.epoch_seconds,
            "epoch_end_seconds": self.epoch_end_seconds,
            "images_per_s": self.images_per_s,
            "begun": (0.0, 0) if between_epochs else (time.perf_counter() - self._started, self._images),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the saved state."""
        self.lr = state_dict["lr"]
        self.epoch_seconds = state_dict["epoch_seconds"]
        self.epoch_end_seconds = state_dict["epoch_end_seconds"]
        self.images_per_s = state_dict["images_per_s"]
        self._resumed_progress = state_dict.get("begun", (0.0, 0))  # older checkpoints have none

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the folder."""
        self.path = Path(self._folder or trainer.default_root_dir) / "metrics.csv"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop the rows of epochs that a resumed run repeats."""
        self._start_clock(*self._resumed_progress)  # a resumed epoch has no start
        if self._is_empty():
            self._warn_of_lost_rows(0, trainer.current_epoch)
            return
        # A kill can leave half a row, or the row of an epoch whose checkpoint was never written.
        try:
            with self.path.open(newline="", encoding="utf-8") as file:
                header, *rows = list(csv.reader(file)) or [[]]
            kept = [row for row in rows if len(row) == len(header) and int(row[0]) < trainer.current_epoch]
        except (ValueError, IndexError, csv.Error) as error:
            raise FERError(
                f"{self.path}: damaged ({error}); delete or rename it to continue without its rows"
            ) from error
        self._warn_of_lost_rows(len(kept), trainer.current_epoch)
        if trainer.is_global_zero:
            rows = [header, *kept] if kept else []  # the header of no row may be half of one
            write_atomically(self.path, "".join(f"{','.join(row)}\n" for row in rows))

    def _warn_of_lost_rows(self, found: int, expected: int) -> None:
        if found < expected:
            log.warning(
                "WARNING: %s: has rows of %d of the %d epochs before; those of the others are lost",
                self.path,
                found,
                expected,
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the learning rate at the start of the epoch."""
        self.lr = trainer.optimizers[0].param_groups[0]["lr"]
        self._note_epoch_end()
        self._start_clock()

    def _start_clock(self, seconds: float = 0.0, images: int = 0) -> None:
        self._started, self._steps_ended, self._images = time.perf_counter() - seconds, None, images

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count images."""
        self._images += len(batch[1]) * trainer.world_size  # labels
        if self.first_step is None:
            self.first_step = now()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock, since validation is not training."""
        if trainer.training or trainer.validating:
            self._steps_ended = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the row."""
        if self._steps_ended is None:
            self._steps_ended = time.perf_counter()
        seconds = self._steps_ended - self._started
        self.epoch_seconds.append(round(seconds, 3))
        self.images_per_s.append(round(self._images / seconds, 1))
        metrics = {
            name: value.item()
            for name, value in sorted(trainer.callback_metrics.items())
            if name.startswith(("train/", "val/"))
        }
        header = ["epoch", "step", "lr", *metrics]
        row = [str(trainer.current_epoch), str(trainer.global_step)]
        # Nine digits give a float32 back exactly.
        row += [f"{value:.9g}" for value in (self.lr, *metrics.values())]
        if trainer.is_global_zero:
            self._append(*([header] if self._is_empty() else []), row)
        values = {"lr": self.lr, "images_per_s": self.images_per_s[-1]}
        pl_module.log_dict(values, sync_dist=trainer.world_size > 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record how long the end of the last epoch took."""
        self._note_epoch_end()

    def _note_epoch_end(self) -> None:
        # A resumed run does not know the end of the epoch that it resumes after.
        if self._steps_ended is not None:
            self.epoch_end_seconds.append(round(time.perf_counter() - self._steps_ended, 3))

    def _is_empty(self) -> bool:
        return not self.path.exists() or self.path.stat().st_size == 0

    def _append(self, *rows: list[str]) -> None:
        with naming(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
            file.flush()
            os.fsync(file.fileno())
