"""The LightningModule around any backbone."""

import copy
import inspect
import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities.enums import GradClipAlgorithmType
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from fer_lightning.config.instantiate import setting_error
from fer_lightning.core.errors import FERError
from fer_lightning.data.loader import Batch
from fer_lightning.training.ema import EMA
from fer_lightning.training.epoch_outputs import EpochOutputs
from fer_lightning.training.losses import ClassWeights, compute_class_weights
from fer_lightning.training.metrics import scalar_metrics
from fer_lightning.training.overhead import STEP_HOOKS, LeanModule, seed_device, without_hooks

# What torch raises where a setting of an optimiser or a scheduler is wrong.
_REFUSALS = (TypeError, ValueError, ArithmeticError, RuntimeError)


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
        optimizer: Makes the optimiser from the parameters; None for a module that only predicts.
        scheduler: Makes the scheduler from the optimiser. One that takes ``total_steps`` is given them and
            steps after each batch, any other after each epoch.
        label_smoothing: In [0, 1).
        class_weights: How the loss weights the classes, see ``compute_class_weights``.
        ema_decay: Decay of the exponential moving average of the weights, in [0, 1). Validation, test and
            prediction use the averaged weights; 0 keeps none.
        flip_test: Whether validation, test and prediction average the logits of an image and of its mirror
            image.

    Raises:
        FERError: If a setting is out of range, also of the optimiser or the scheduler.
    """

    mean: Tensor
    std: Tensor
    class_weights: Tensor | None

    def __init__(
        self,
        *,
        backbone: nn.Module,
        classes: Sequence[str],
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
        label_smoothing: float = 0.0,
        class_weights: ClassWeights = "none",
        ema_decay: float = 0.0,
        flip_test: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(ema_decay, bool) or not isinstance(ema_decay, int | float) or not 0 <= ema_decay < 1:
            raise FERError(f"classifier.ema_decay={ema_decay}: expected a number in [0, 1)")
        if not isinstance(flip_test, bool):
            raise FERError(f"classifier.flip_test={flip_test}: expected true or false")
        if not isinstance(label_smoothing, int | float) or not 0 <= label_smoothing < 1:
            raise FERError(f"classifier.label_smoothing={label_smoothing}: expected a number in [0, 1)")
        if class_weights not in ("none", "balanced", "effective"):
            raise FERError(f"classifier.class_weights={class_weights}: expected none, balanced or effective")
        self.backbone = backbone
        self.ema_decay = ema_decay
        # Without gradients: DDP waits for the gradient of every weight that can have one.
        self.averaged = copy.deepcopy(backbone).requires_grad_(False) if ema_decay else None
        self.ema: EMA | None = None
        self.flip_test = flip_test
        self.classes = tuple(classes)
        self.register_buffer("mean", _pixel_statistic(mean))
        self.register_buffer("std", _pixel_statistic(std))
        self.label_smoothing = label_smoothing
        self.class_weighting = class_weights
        # Not persistent: a checkpoint's weights are for prediction, which needs no loss.
        self.register_buffer("class_weights", None, persistent=False)
        self.train_metrics = scalar_metrics(len(classes), prefix="train/")
        self.val_metrics = scalar_metrics(len(classes), prefix="val/")
        self.train_outputs = EpochOutputs()
        self.val_outputs = EpochOutputs()
        self._make_optimizer = optimizer
        self._make_scheduler = scheduler
        # The optimiser is made here, so that a wrong setting fails before anything expensive.
        self._optimizer = None if optimizer is None else self._build_optimizer()
        if scheduler is not None:
            self._check_scheduler()

    def setup(self, stage: str) -> None:
        """Take what depends on the data from the data module: pixel statistics, class counts."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and hasattr(data, "pixel_statistics"):
            mean, std = data.pixel_statistics()
            self.mean = _pixel_statistic(mean).to(self.mean.device)
            self.std = _pixel_statistic(std).to(self.std.device)
            self.__dict__.pop("_normalisation", None)
            self.class_weights = compute_class_weights(self.class_weighting, data.class_counts("train"))

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
        scale, shift = self._normalisation
        if isinstance(scale, Tensor) and scale.device != images.device:  # the module was moved
            self.__dict__.pop("_normalisation")
            scale, shift = self._normalisation
        images = (images.float() * scale).sub_(shift)
        if self.training:
            logits: Tensor = self.backbone(images)
            return logits
        network = self.backbone if self.averaged is None else self.averaged
        logits = network(images)
        return (logits + network(images.flip(-1))) / 2 if self.flip_test else logits

    def _step(self, batch: Batch, outputs: EpochOutputs) -> Tensor:
        logits = self(batch.images).float()  # the loss needs more than bf16's 8 bits
        loss = F.cross_entropy(logits, batch.labels, self.class_weights, label_smoothing=self.label_smoothing)
        outputs.add(logits, batch.labels, loss)
        return loss

    def training_step(self, batch: Batch) -> Tensor:
        """Return the loss. Dropout draws from the batch's own seed, so a resumed run repeats it."""
        seed_device(batch.seed, self.device)
        return self._step(batch, self.train_outputs)

    def validation_step(self, batch: Batch) -> None:
        """Collect the outputs for the end of the epoch."""
        self._step(batch, self.val_outputs)

    def predict_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the rows ``(N,)`` int64 of a batch and their probs ``(N, num_classes)`` float32."""
        return batch.rows, F.softmax(self(batch.images).float(), dim=1)

    def on_train_start(self) -> None:
        """Prepare the moving average, now that the weights are on their device."""
        if self.averaged is not None:
            self.ema = EMA(self.averaged, self.backbone, self.ema_decay)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training metrics."""
        self._log_epoch("train", self.train_outputs)
        self.train_outputs.clear()

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's validation metrics."""
        self._log_epoch("val", self.val_outputs)
        self.val_outputs.clear()

    def _log_epoch(self, split: str, outputs: EpochOutputs) -> None:
        probs, labels, loss = outputs.collect()
        metrics = self.train_metrics if split == "train" else self.val_metrics
        metrics.update(probs, labels)
        self.log_dict({f"{split}/loss": loss, **metrics.compute()}, sync_dist=True, batch_size=len(labels))
        metrics.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser and the scheduler, if there is one."""
        optimizer = self._optimizer or self._build_optimizer()
        self._optimizer = None  # the next fit starts with a fresh one
        if self._make_scheduler is None:
            return optimizer
        interval = "step" if self._takes_total_steps() else "epoch"
        total_steps = self._num_steps() if interval == "step" else 0
        scheduler = self._build_scheduler(optimizer, total_steps=total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}

    def _build_optimizer(self) -> Optimizer:
        assert self._make_optimizer is not None, "this module was built to predict, not to train"
        try:
            return self._make_optimizer(self.backbone.parameters())
        except _REFUSALS as error:
            raise setting_error("optimizer", self._make_optimizer, error) from error

    def _takes_total_steps(self) -> bool:
        scheduler = self._make_scheduler
        target = scheduler.func if isinstance(scheduler, partial) else scheduler
        return target is not None and "total_steps" in inspect.signature(target).parameters

    def _build_scheduler(self, optimizer: Optimizer, *, total_steps: int) -> LRScheduler:
        assert self._make_scheduler is not None
        total = {"total_steps": total_steps} if self._takes_total_steps() else {}
        try:
            return self._make_scheduler(optimizer, **total)
        except _REFUSALS as error:
            raise setting_error("scheduler", self._make_scheduler, error) from error

    def _check_scheduler(self) -> None:
        """Try the scheduler's settings on another optimiser: the real one needs the number of steps."""
        optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
        scheduler = self._build_scheduler(optimizer, total_steps=100)
        optimizer.step()  # torch warns of a scheduler that steps first
        try:
            if not isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step()
        except _REFUSALS as error:
            raise setting_error("scheduler", self._make_scheduler, error) from error

    def _num_steps(self) -> int:
        # trainer.estimated_stepping_batches would set the loader up before a checkpoint's loader state is
        # known, and a run resumed in the middle of an epoch would start that epoch again.
        num_batches = len(self.trainer.datamodule.train_dataloader())  # type: ignore[attr-defined]
        limit = self.trainer.limit_train_batches
        num_batches = min(num_batches, limit) if isinstance(limit, int) else int(num_batches * limit)
        steps_per_epoch = math.ceil(num_batches / self.trainer.accumulate_grad_batches)
        return steps_per_epoch * int(self.trainer.max_epochs or 0)

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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what a resumed epoch needs."""
        checkpoint["train_outputs"] = self.train_outputs.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the saved state."""
        self.train_outputs.load_state_dict(checkpoint["train_outputs"])


def _pixel_statistic(value: float | Sequence[float]) -> Tensor:
    """One number for grey images, ``()``; one for each channel of colour images, ``(C, 1, 1)``."""
    statistic = torch.tensor(value, dtype=torch.float32)
    return statistic.view(-1, 1, 1) if statistic.ndim else statistic
