"""The LightningModule around any backbone."""

import copy
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.enums import GradClipAlgorithmType
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from fer_lightning.config.instantiate import setting_error
from fer_lightning.core.errors import FERError
from fer_lightning.data.loader import Batch
from fer_lightning.training.across_processes import divide_loss
from fer_lightning.training.batches import as_batch, check_pixels
from fer_lightning.training.checkpoint_metadata import KEY, CheckpointMetadata, describe_training
from fer_lightning.training.continuation import check_same_steps, describe_steps
from fer_lightning.training.ema import EMA
from fer_lightning.training.epoch_outputs import EpochOutputs
from fer_lightning.training.losses import ClassWeightedLoss, CrossEntropy, compute_loss
from fer_lightning.training.metrics import scalar_metrics
from fer_lightning.training.optimizers import SAM, check_accumulation
from fer_lightning.training.overhead import STEP_HOOKS, LeanModule, seed_device, without_hooks
from fer_lightning.training.schedulers import (
    NEVER,
    REFUSALS,
    Interval,
    MakeScheduler,
    accumulated_batches,
    build_scheduler,
    check_scheduler,
    follows_metric,
    resolve_interval,
    step_by_metric,
    takes_total_steps,
)
from fer_lightning.training.views import TTA, average_logits


@without_hooks(*STEP_HOOKS, "on_train_batch_end")
class FERClassifier(LeanModule, LightningModule):
    """A backbone with its normalisation, loss, metrics and optimiser.

    Args:
        backbone: Maps ``(N, C, S, S)`` normalised float images to ``(N, num_classes)`` logits.
        classes: Class names in the order of the labels.
        mean: Mean pixel of the training images, in [0, 1]; one number for each channel of colour images.
            ``setup`` takes it, ``std`` and the class counts from a data module with ``pixel_statistics``
            before training.
        std: Standard deviation of the same pixels, in [0, 1]; one number for each channel.
        optimizer: Makes the optimiser from the parameters; None is Adam with its defaults, as in the paper.
        scheduler: Makes the scheduler from the optimiser. One that takes ``total_steps`` is given them.
        scheduler_interval: After what the scheduler steps: ``epoch`` or ``step``; ``auto`` is ``step`` for
            one that takes ``total_steps``, else ``epoch``.
        monitor: The metric that ``ReduceLROnPlateau`` follows.
        loss: Maps ``(N, C)`` float32 logits and targets, ``(N,)`` int64 or ``(N, C)`` float, to a scalar;
            None is ``CrossEntropy``.
        ema_decay: Decay of the exponential moving average of the weights, in [0, 1). Validation, test and
            prediction use the averaged weights; 0 keeps none.
        flip_test: Whether validation, test and prediction average the logits of an image and of its mirror
            image.

    Raises:
        FERError: If a setting is out of range, also of the optimiser or the scheduler.

    Attributes:
        config: The resolved config from which the module was built, stored in checkpoints; None for a module
            built in Python.
        tta: Whose logits validation, test and prediction average, see ``average_logits``: ``flip`` with
            ``flip_test``, otherwise ``none``, until another is set.
        seen_before: ``(N,)`` uint64 hashes of images that the initial weights were trained or selected on.
        unknown_before: Why some of these are not known; None if all are.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        backbone: nn.Module,
        classes: Sequence[str],
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: MakeScheduler | None = None,
        scheduler_interval: Interval = "auto",
        monitor: str = "val/acc",
        loss: nn.Module | None = None,
        ema_decay: float = 0.0,
        flip_test: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(ema_decay, bool) or not isinstance(ema_decay, int | float) or not 0 <= ema_decay < 1:
            raise FERError(f"classifier.ema_decay={ema_decay}: expected a number in [0, 1)")
        if not isinstance(flip_test, bool):
            raise FERError(f"classifier.flip_test={flip_test}: expected true or false")
        if scheduler_interval not in ("auto", "epoch", "step"):
            raise FERError(
                f"classifier.scheduler_interval={scheduler_interval}: expected auto, epoch or step"
            )
        self.backbone = backbone
        self.ema_decay = ema_decay
        # Without gradients: DDP waits for the gradient of every weight that can have one.
        self.averaged = copy.deepcopy(backbone).requires_grad_(False) if ema_decay else None
        self.ema: EMA | None = None
        self.tta: TTA = "flip" if flip_test else "none"
        self.classes = tuple(classes)
        self.register_buffer("mean", _pixel_statistic(mean))
        self.register_buffer("std", _pixel_statistic(std))
        self.loss: nn.Module = CrossEntropy() if loss is None else loss
        self.scheduler_interval: Interval = scheduler_interval
        self.monitor = monitor
        self.config: Mapping[str, Any] | None = None
        self.seen_before: NDArray[np.uint64] = np.empty(0, np.uint64)
        self.unknown_before: str | None = None
        self.metrics = scalar_metrics(len(classes))
        self.outputs = {split: EpochOutputs() for split in ("train", "val", "test")}
        self._make_optimizer: Callable[..., Optimizer] = optimizer or torch.optim.Adam
        self._make_scheduler = scheduler
        # The optimiser is made here, so that a wrong setting fails before anything expensive.
        self._optimizer = None if optimizer is None else self._build_optimizer()
        if scheduler is not None:
            resolve_interval(scheduler, scheduler_interval)
            check_scheduler(scheduler)

    def setup(self, stage: str) -> None:
        """Take what depends on the data from the data module: pixel statistics, class counts."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if hasattr(data, "classes") and tuple(data.classes) != self.classes:
            raise FERError(
                f"classes: the module has {', '.join(self.classes)}; the data module has "
                f"{', '.join(data.classes)}; build both from the same list"
            )
        if stage == "fit" and hasattr(data, "pixel_statistics"):
            mean, std = data.pixel_statistics()
            self.mean = _pixel_statistic(mean).to(self.mean.device)
            self.std = _pixel_statistic(std).to(self.std.device)
            self.__dict__.pop("_normalisation", None)
            if isinstance(self.loss, ClassWeightedLoss):
                self.loss.set_class_counts(data.class_counts("train"))

    @cached_property
    def _normalisation(self) -> tuple[float | Tensor, float | Tensor]:
        """Scale and shift of pixels; plain numbers for grey: half the time of four operations on tensors."""
        if self.mean.ndim:
            return 1 / (255 * self.std), self.mean / self.std
        mean, std = self.mean.item(), self.std.item()
        return 1 / (255 * std), mean / std

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load weights and normalisation, of grey or of colour images."""
        self.__dict__.pop("_normalisation", None)
        state = args[0] if args else kwargs["state_dict"]
        for name in ("mean", "std"):
            if isinstance(value := state.get(name), Tensor) and value.shape in ((), (3, 1, 1)):
                setattr(self, name, torch.empty_like(value, device=getattr(self, name).device))
        return super().load_state_dict(*args, **kwargs)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images.

        Args:
            images: ``(N, C, S, S)`` pixels in [0, 255], uint8 or float.

        Returns:
            ``(N, num_classes)`` float logits.
        """
        check_pixels(images)
        return self._logits(images)

    def normalise(self, images: Tensor) -> Tensor:
        """Map ``(N, C, S, S)`` pixels in [0, 255] to the float images that the backbone takes."""
        scale, shift = self._normalisation
        if isinstance(scale, Tensor) and scale.device != images.device:  # the module was moved
            self.__dict__.pop("_normalisation")
            scale, shift = self._normalisation
        return (images.float() * scale).sub_(shift)

    @property
    def predicting_network(self) -> nn.Module:
        """The network whose logits validation, test and prediction use: the averaged one if there is one."""
        return self.backbone if self.averaged is None else self.averaged

    def _logits(self, images: Tensor) -> Tensor:
        images = self.normalise(images)
        if self.training:
            logits: Tensor = self.backbone(images)
            return logits
        return average_logits(self.predicting_network, images, self.tta)

    def _step(self, batch: Batch, split: str, batch_idx: int) -> Tensor:
        logits = self._logits(batch.images).float()  # the loss needs more than bf16's 8 bits
        targets = batch.labels if batch.targets is None else batch.targets
        loss = compute_loss(self.loss, logits, targets)
        loss, per_image = divide_loss(self.loss, loss, batch)
        self.outputs[split].add(logits, batch.labels, per_image, batch_idx)
        return loss

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss. Dropout draws from the batch's own seed, so a resumed run repeats it."""
        batch = as_batch(batch)
        if batch.seed >= 0:
            seed_device(batch.seed, self.device)
        return self._step(batch, "train", batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Collect the outputs for the end of the epoch."""
        self._step(as_batch(batch), "val", batch_idx)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Collect the outputs for the end of the epoch."""
        self._step(as_batch(batch), "test", batch_idx)

    def predict_step(self, batch: Any) -> Any:
        """Predict a batch.

        Returns:
            For a ``Batch``, its rows ``(N,)`` int64 and the probs ``(N, num_classes)`` float32; for images,
            alone or with labels, the probs.
        """
        if isinstance(batch, Batch):
            return batch.rows, F.softmax(self._logits(batch.images).float(), dim=1)
        images = batch if isinstance(batch, Tensor) else batch[0]
        return F.softmax(self(images).float(), dim=1)

    def on_train_start(self) -> None:
        """Prepare the moving average, now that the weights are on their device."""
        if self.averaged is not None:
            self.ema = EMA(self.averaged, self.backbone, self.ema_decay)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training metrics; step a scheduler that follows a metric."""
        self._log_epoch("train")
        step_by_metric(self.trainer, self.monitor)

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's validation metrics."""
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_epoch("test")

    def _log_epoch(self, split: str) -> None:
        probs, labels, loss = self.outputs[split].collect()
        self.metrics.update(probs, labels)
        values = {"loss": loss, **self.metrics.compute()}
        logged = {f"{split}/{key}": value for key, value in values.items()}
        self.log_dict(logged, sync_dist=True, batch_size=len(labels))
        self.metrics.reset()
        self.outputs[split].clear()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser and the scheduler, if there is one."""
        optimizer = self._optimizer or self._build_optimizer()
        self._optimizer = None  # the next fit starts with a fresh one
        if isinstance(optimizer, SAM):
            check_accumulation(self.trainer)
        if self._make_scheduler is None:
            return optimizer
        interval = resolve_interval(self._make_scheduler, self.scheduler_interval)
        total_steps = self._num_steps(interval) if takes_total_steps(self._make_scheduler) else 0
        scheduler: Any = build_scheduler(self._make_scheduler, optimizer, total_steps=total_steps)
        settings: dict[str, Any] = {"scheduler": scheduler, "interval": interval}
        if isinstance(scheduler, ReduceLROnPlateau):
            settings |= {"monitor": self.monitor, "frequency": NEVER}  # on_train_epoch_end steps it
        return {"optimizer": optimizer, "lr_scheduler": settings}  # type: ignore[return-value] # Lightning's type

    @property
    def follows_metric(self) -> bool:
        """Whether the scheduler steps by ``monitor``."""
        return self._make_scheduler is not None and follows_metric(self._make_scheduler)

    def _build_optimizer(self) -> Optimizer:
        parameters = [*self.backbone.parameters(), *self.loss.parameters()]
        try:
            optimizer = self._make_optimizer(parameters)
        except REFUSALS as error:
            raise setting_error("optimizer", self._make_optimizer, error) from error
        if not isinstance(optimizer, Optimizer):
            raise FERError(
                f"optimizer: expected one that makes a torch.optim.Optimizer, got {type(optimizer).__name__}"
            )
        return optimizer

    def _num_steps(self, interval: Literal["epoch", "step"]) -> int:
        if interval == "epoch":
            return int(self.trainer.max_epochs or 0)
        data = getattr(self.trainer, "datamodule", None)
        if data is None:
            return int(self.trainer.estimated_stepping_batches)
        # trainer.estimated_stepping_batches would set the loader up before a checkpoint's loader state is
        # known, and a run resumed in the middle of an epoch would start that epoch again.
        num_batches = len(data.train_dataloader())
        limit = self.trainer.limit_train_batches
        num_batches = min(num_batches, limit) if isinstance(limit, int) else int(num_batches * limit)
        total = sum(
            math.ceil(num_batches / accumulated_batches(self.trainer, epoch))
            for epoch in range(int(self.trainer.max_epochs or 0))
        )
        most = self.trainer.max_steps
        return most if most > 0 and (most < total or not total) else total

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients, of a fused optimiser in bf16-mixed too.

        Lightning refuses every fused optimiser in mixed precision, because with float16's scaled gradients it
        would clip before they are unscaled. bf16 gradients are not scaled.
        """
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is None:
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val or 0.0, algorithm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step, then update the moving average."""
        num_steps = self.trainer.global_step
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None:
            self.ema.update(num_steps)

    def describe(self) -> CheckpointMetadata:
        """Describe this training for a checkpoint of the current epoch."""
        return describe_training(
            self.trainer,
            backbone=self.backbone,
            classes=self.classes,
            config=self.config,
            classifier={"flip_test": self.tta == "flip"},
            seen_before=self.seen_before,
            unknown_before=self.unknown_before,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what a resumed epoch needs, and what the checkpoint is."""
        checkpoint["train_outputs"] = self.outputs["train"].state_dict()
        checkpoint |= describe_steps(self.trainer)
        described = self.describe()
        if described.selected_by == "last":
            described = replace(described, selected_on=described.selected_on[:0])
        checkpoint[KEY] = described.to_plain()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the saved state."""
        outputs = checkpoint.get("train_outputs", {})
        if self.trainer.state.fn == TrainerFn.FITTING:
            make = self._make_scheduler
            by_step = make is not None and resolve_interval(make, self.scheduler_interval) == "step"
            check_same_steps(checkpoint, self.trainer, within_epoch=bool(outputs), by_step=by_step)
        # Of all processes together: the first one keeps them.
        self.outputs["train"].load_state_dict(outputs if self.trainer.is_global_zero else {})

    @classmethod
    def load_from_checkpoint(  # type: ignore[override] # less than Lightning's, which would unpickle
        cls, checkpoint_path: str | Path, *, trust: Collection[str] = (), backbone: nn.Module | None = None
    ) -> Self:
        """Rebuild a trained module from a checkpoint of train.py or of any Trainer, on the CPU.

        Args:
            checkpoint_path: The checkpoint.
            trust: Packages whose networks the checkpoint may name, besides this project's.
            backbone: The network, for a checkpoint that does not describe it.

        Returns:
            A module that predicts, in evaluation mode; it has no optimiser.

        Raises:
            FERError: If the file is no checkpoint of this class, or its network is not described or trusted.
        """
        from fer_lightning.training.checkpoint import load_classifier  # which imports this module

        module: Any = load_classifier(Path(checkpoint_path), trust=trust, backbone=backbone)[0]
        return module  # type: ignore[no-any-return]


def _pixel_statistic(value: float | Sequence[float]) -> Tensor:
    """One number for grey images, ``()``; one for each channel of colour images, ``(C, 1, 1)``."""
    statistic = torch.tensor(value, dtype=torch.float32)
    return statistic.view(-1, 1, 1) if statistic.ndim else statistic
