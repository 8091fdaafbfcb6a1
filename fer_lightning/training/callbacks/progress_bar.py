"""What a terminal shows of training."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from fer_lightning.core.progress import clear_progress
from fer_lightning.core.terminal import console, follow_run
from fer_lightning.training.callbacks.base import EpochCallback
from fer_lightning.training.callbacks.metrics_csv import MetricsCSV
from fer_lightning.training.callbacks.model_checkpoint import ModelCheckpoint

log = logging.getLogger(__name__)

_REFRESH_S = 0.2  # reading the loss waits for the device, so it is not read in each step


class ProgressBar(EpochCallback):
    """A progress bar within the epoch on a terminal, and one line per epoch everywhere.

    It shows the speed that ``MetricsCSV`` measures and the best epoch of ``ModelCheckpoint``, where the
    Trainer has these callbacks.
    """

    def __init__(self) -> None:
        self.metrics: MetricsCSV | None = None
        self.checkpoint: ModelCheckpoint | None = None
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._refreshed = 0.0
        self._begun = (0.0, 0)  # on the monotonic clock, and the epoch then

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the callbacks whose facts it shows."""
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        self.metrics = next((each for each in callbacks if isinstance(each, MetricsCSV)), None)
        self.checkpoint = next((each for each in callbacks if isinstance(each, ModelCheckpoint)), None)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar."""
        if trainer.is_global_zero and self.checkpoint is not None:
            follow_run(self.checkpoint.dirpath)
        self._begun = time.monotonic(), trainer.current_epoch
        clear_progress()
        if console.is_terminal and trainer.is_global_zero:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task("", facts="")
            self._bar.start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the bar again."""
        if self._bar is not None:
            description = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            total = int(trainer.num_training_batches)
            self._bar.reset(self._task, description=description, total=total, facts="")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar a few times a second."""
        if self._bar is None or time.perf_counter() - self._refreshed < _REFRESH_S:
            return
        self._refreshed = time.perf_counter()
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        facts = f"loss {outputs['loss'].item():.4f}  lr {lr:.3g}"
        self._bar.update(self._task, completed=batch_idx + 1, facts=facts)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that the epoch is being validated."""
        if self._bar is not None and not trainer.sanity_checking:
            description = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs} validating"
            self._bar.update(self._task, description=description)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch's line."""
        if trainer.is_global_zero:
            metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
            log.info("%s", self._line(trainer, metrics, console.width))

    def _line(self, trainer: Trainer, metrics: Mapping[str, float], width: int) -> str:
        """Describe an epoch; what a narrow terminal has no room for is left out."""
        done, total = trainer.current_epoch + 1, trainer.max_epochs or 0
        parts = [f"epoch {done:>{len(str(total))}}/{total}"]
        if "train/acc" in metrics:
            parts.append(f"loss {metrics['train/loss']:.3f} acc {100 * metrics['train/acc']:.1f} %")
        if "val/acc" in metrics:
            parts.append(f"val loss {metrics['val/loss']:.3f} acc {100 * metrics['val/acc']:.1f} %")
            if self.checkpoint is not None and self.checkpoint.best_epoch == trainer.current_epoch:
                parts[-1] += " best"
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        rest = [f"lr {lr if self.metrics is None else self.metrics.lr:.3g}"]
        if self.metrics is not None and self.metrics.images_per_s:
            rest.append(f"{self.metrics.images_per_s[-1]:,.0f} images/s")
        left = f"{self._time_left(done, total)} left"
        while rest and len("  ".join([*parts, *rest, left])) > width:
            rest.pop(0)
        return "  ".join([*parts, *rest, left])

    def _time_left(self, done: int, total: int) -> str:
        """Estimate the time to the end of the run, with validation; testing takes that of two validations."""
        started, first = self._begun
        seconds = (time.monotonic() - started) / max(done - first, 1) * (total - done)
        if self.metrics is not None and self.metrics.epoch_end_seconds:
            ends = self.metrics.epoch_end_seconds
            seconds += 2 * sum(ends) / len(ends)
        minutes, rest = divmod(int(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bar."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
