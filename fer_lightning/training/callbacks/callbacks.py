"""What happens around an epoch: its record, its checkpoint, and what people see of it.

All derive from Lightning's ``Checkpoint``, because callbacks of that family alone are called after the module
has logged the epoch's metrics. They are given to the Trainer in the order record, loss, checkpoint, progress.
"""

import csv
import logging
import math
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import naming, write_atomically
from fer_lightning.core.signals import RunStopped, StopSignals
from fer_lightning.core.terminal import console, follow_run
from fer_lightning.runs.folder import now
from fer_lightning.training.checkpoint import KEY, CheckpointMetadata
from fer_lightning.training.classifier import inference_state_dict

log = logging.getLogger(__name__)

STEPS_BETWEEN_LOSS_CHECKS = (
    16  # steps whose losses are read together on a device, which each reading waits for
)
_REFRESH_S = 0.2  # reading the loss waits for the device, so it is read this often and not each step


class _Watcher(Checkpoint):
    """What watches epochs: of the hooks within a step only the last is called.

    Lightning takes its time for each hook, were it empty: as cProfile counts, 0.30 ms a step for three
    callbacks, 0.09 ms for their last hooks alone.
    """

    # Lightning passes by a hook that is None, which its types do not foresee.
    on_train_batch_start = None  # type: ignore[assignment]
    on_before_zero_grad = None  # type: ignore[assignment]
    on_before_backward = None  # type: ignore[assignment]
    on_after_backward = None  # type: ignore[assignment]
    on_before_optimizer_step = None  # type: ignore[assignment]


class MetricsCSV(_Watcher):
    """Writes ``metrics.csv``, a row an epoch, on the disk before the next epoch starts; and times epochs.

    Args:
        folder: The run folder.

    Attributes:
        epoch_seconds: Wall time of each epoch's training steps, validation left out; of an epoch that was
            interrupted, that of the steps that count, before and after.
        epoch_end_seconds: Wall time of what follows them: validation, logging, checkpoints.
        images_per_s: Training throughput of each epoch.
        first_step: When the first training step of this process was done, an ISO date; None before.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.csv"
        self.epoch_seconds: list[float] = []
        self.epoch_end_seconds: list[float] = []
        self.images_per_s: list[float] = []
        self.first_step: str | None = None
        self._lr = math.nan
        self._started = 0.0
        self._steps_ended: float | None = None
        self._images = 0
        self._before = (0.0, 0)  # seconds and images of this epoch in former processes

    def state_dict(self) -> dict[str, Any]:
        """Keep what a resumed epoch cannot know."""
        between_epochs = self._steps_ended is not None
        return {
            "lr": self._lr,
            "epoch_seconds": self.epoch_seconds,
            "epoch_end_seconds": self.epoch_end_seconds,
            "images_per_s": self.images_per_s,
            "begun": (0.0, 0) if between_epochs else (time.perf_counter() - self._started, self._images),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self._lr = state_dict["lr"]
        self.epoch_seconds = state_dict["epoch_seconds"]
        self.epoch_end_seconds = state_dict["epoch_end_seconds"]
        self.images_per_s = state_dict["images_per_s"]
        self._before = state_dict.get("begun", (0.0, 0))  # older checkpoints have none

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop the rows of epochs that a resumed run will repeat."""
        self._start_clock(*self._before)  # an epoch's start does it anew; one that goes on has none
        if self._is_empty():
            return
        # A kill can leave half a row, and the row of an epoch whose checkpoint was never written.
        try:
            with self.path.open(newline="", encoding="utf-8") as file:
                header, *rows = list(csv.reader(file)) or [[]]
            kept = [row for row in rows if len(row) == len(header) and int(row[0]) < trainer.current_epoch]
        except (ValueError, IndexError, csv.Error) as error:
            raise FERError(
                f"{self.path}: damaged ({error}); move it away to go on without its rows"
            ) from error
        if trainer.is_global_zero:
            rows = [header, *kept] if kept else []  # the header of no row may be half of one
            write_atomically(self.path, "".join(f"{','.join(row)}\n" for row in rows))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the learning rate with which the epoch starts."""
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]
        self._note_epoch_end()
        self._start_clock()

    def _start_clock(self, seconds: float = 0.0, images: int = 0) -> None:
        self._started, self._steps_ended, self._images = time.perf_counter() - seconds, None, images

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count images."""
        self._images += len(batch.labels)
        if self.first_step is None:
            self.first_step = now()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock: validation is not training."""
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
        row += [f"{value:.9g}" for value in (self._lr, *metrics.values())]
        if trainer.is_global_zero:
            self._append(*([header] if self._is_empty() else []), row)
        pl_module.log_dict({"lr": self._lr, "images_per_s": self.images_per_s[-1]})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what the last epoch's end took."""
        self._note_epoch_end()

    def _note_epoch_end(self) -> None:
        # One an epoch: a resumed run has lost sight of the end of the epoch that it resumes after.
        if self._steps_ended is not None:
            self.epoch_end_seconds.append(round(time.perf_counter() - self._steps_ended, 3))

    def _is_empty(self) -> bool:
        return not self.path.exists() or self.path.stat().st_size == 0

    def _append(self, *rows: list[str]) -> None:
        with naming(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
            file.flush()
            os.fsync(file.fileno())


def diverged(what: str, kept: Path) -> FERError:
    """Say that training has diverged, and what is left of it.

    Args:
        what: Was found, where.
        kept: A checkpoint, which may not exist.
    """
    left = (
        f"the weights of {kept} are finite; go on from them with init_from={kept}"
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


class StopOnNonFiniteLoss(_Watcher):
    """Ends a run whose loss is no longer finite: at once on a CPU, after a few steps on a device.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._waiting: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the loss, or keep it to be looked at."""
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
                    f"(epoch {trainer.current_epoch}, batch {batch_idx - back}, counted from 0)",
                    self.folder / "last.ckpt",
                )


class ModelCheckpoint(_Watcher):
    """Writes ``last.ckpt`` each epoch, on a signal and as often as asked for; ``best.ckpt`` when it is due.

    ``last.ckpt`` holds all that continuing needs; ``best.ckpt``, written whenever the monitor improves, what
    predicting needs. Without a monitor the best weights are the last ones. Weights that are not finite end
    the run and replace no others.

    Args:
        folder: The run folder.
        origin: What stands in every checkpoint beside Lightning's state.
        monitor: A logged metric, or None.
        mode: ``max`` or ``min``.
        signals: Where a SIGTERM or SIGINT is noted.
        keep_epochs: Whether the weights of every epoch are kept, in ``epochs/000.ckpt`` and so on.
        every_steps: Optimiser steps between two saves within an epoch; None for no such saves.
        every_minutes: Minutes after which the next step is followed by a save; None for no such saves.

    Attributes:
        started: Whether training has begun, and so all of a former ``last.ckpt`` is taken back.
    """

    def __init__(
        self,
        *,
        folder: Path,
        origin: CheckpointMetadata,
        monitor: str | None,
        mode: str,
        signals: StopSignals,
        keep_epochs: bool = False,
        every_steps: int | None = None,
        every_minutes: float | None = None,
    ) -> None:
        self.folder = folder
        self.origin = origin
        self.monitor = monitor
        self.mode = mode
        self.signals = signals
        self.keep_epochs = keep_epochs
        self.every_steps = every_steps
        self.every_minutes = every_minutes
        self.best_score: float | None = None
        self.best_epoch: int | None = None
        self.started = False
        self._stopped_early = False
        self._saved = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Remember the best epoch, and whether training was over."""
        return {
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "stopped_early": self._stopped_early,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.best_score, self.best_epoch = state_dict["best_score"], state_dict["best_epoch"]
        self._stopped_early = state_dict["stopped_early"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals back from Lightning, whose handler would end a validation with exit code 0."""
        self.signals.install()
        self.started = True
        self._saved = time.monotonic()
        # Lightning forgets it: a run that was killed while it tested its best would train for another epoch.
        trainer.should_stop = trainer.should_stop or self._stopped_early

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save in the middle of an epoch where that is due; its end has a save of its own."""
        # Between batches whose gradients are added up a checkpoint would lack the sum.
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        asked = self.signals.received is not None
        if self._agree(trainer, asked or self._is_due(trainer.global_step)):
            self._check_weights(trainer)
            self._save_last(trainer)
            self._stop_if_asked(trainer)

    def _agree(self, trainer: Trainer, decision: bool) -> bool:
        """Decide for all processes of a run what one decides: they save and stop together."""
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
        """Save."""
        loss = trainer.callback_metrics.get("val/loss")
        if loss is not None and not math.isfinite(loss):
            what = f"val/loss is {loss.item()} after epoch {trainer.current_epoch}"
            raise diverged(what, self.folder / "last.ckpt")
        score = None
        if self.monitor is not None:
            if self.monitor not in trainer.callback_metrics:
                raise FERError(
                    f"monitor={self.monitor}: not measured in epoch {trainer.current_epoch}; every epoch "
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

    def _check_weights(self, trainer: Trainer) -> None:
        state = trainer.lightning_module.state_dict()
        floating = {name: weights for name, weights in state.items() if weights.is_floating_point()}
        # One answer for all weights: each would wait for the device.
        finite = torch.stack([weights.isfinite().all() for weights in floating.values()]).tolist()
        for name, is_finite in zip(floating, finite, strict=True):
            if not is_finite:
                what = f"{name} is not finite after step {trainer.global_step}"
                raise diverged(what, self.folder / "last.ckpt")

    def _is_best(self, score: float | None) -> bool:
        if score is None or self.best_score is None:
            return True
        return score > self.best_score if self.mode == "max" else score < self.best_score

    def _describe(self, trainer: Trainer, selected_by: str, score: float | None) -> dict[str, Any]:
        described = replace(self.origin, selected_by=selected_by, epoch=trainer.current_epoch, score=score)
        if self.monitor is None or selected_by == "last":
            described = replace(described, selected_on=self.origin.selected_on[:0])
        return described.to_plain()

    def _save_weights(self, trainer: Trainer, name: str, selected_by: str, score: float | None) -> None:
        content = trainer._checkpoint_connector.dump_checkpoint(weights_only=True)
        content.pop("train_outputs", None)
        content["state_dict"] = inference_state_dict(content["state_dict"])
        content[KEY] = self._describe(trainer, selected_by, score)
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        trainer.strategy.save_checkpoint(content, path)

    def _save_last(self, trainer: Trainer) -> None:
        self._stopped_early = trainer.should_stop
        content = trainer._checkpoint_connector.dump_checkpoint()
        content[KEY] = self._describe(trainer, "last", None)
        trainer.strategy.save_checkpoint(content, self.folder / "last.ckpt")
        self._saved = time.monotonic()


class ProgressBar(_Watcher):
    """A bar within the epoch where there is a terminal, and one line an epoch everywhere.

    Args:
        record: Times the epochs.
        keep: Knows the best one.
    """

    def __init__(self, record: MetricsCSV, keep: ModelCheckpoint) -> None:
        self.record = record
        self.keep = keep
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._refreshed = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar."""
        if trainer.is_global_zero:
            follow_run(self.keep.folder)
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

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch's line."""
        if trainer.is_global_zero:
            log.info("%s", self._line(trainer, {k: v.item() for k, v in trainer.callback_metrics.items()}))

    def _line(self, trainer: Trainer, metrics: Mapping[str, float]) -> str:
        done, total = trainer.current_epoch + 1, trainer.max_epochs or 0
        seconds = self.record.epoch_seconds
        left = sum(seconds) / len(seconds) * (total - done)
        parts = [
            f"epoch {done:>{len(str(total))}}/{total}",
            f"loss {metrics['train/loss']:.4f}",
            f"acc {metrics['train/acc']:.4f}",
        ]
        if "val/acc" in metrics:
            parts += [f"val loss {metrics['val/loss']:.4f}", f"val acc {metrics['val/acc']:.4f}"]
            if self.keep.best_epoch == trainer.current_epoch:
                parts[-1] += " (best)"
        parts += [
            f"lr {self.record._lr:.3g}",
            f"{self.record.images_per_s[-1]:,.0f} images/s",
            f"{int(left) // 60}:{int(left) % 60:02d} left",
        ]
        return "  ".join(parts)

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
