"""The one LightningModule around any backbone."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities.enums import GradClipAlgorithmType
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fer_lightning.core.errors import FERError
from fer_lightning.data.loader import Batch
from fer_lightning.evaluation.metrics import scalar_metrics

ClassWeights = Literal["none", "balanced", "effective"]
_MOVED_TOGETHER = 16  # batches of an epoch's outputs
_FIRST_ROWS = 1024  # of their buffers, which double when they are full
EFFECTIVE_BETA = 0.999  # Cui et al. 2019 try 0.9 to 0.9999; with 436 to 7,215 images a class this is mild


def compute_class_weights(scheme: ClassWeights, counts: Sequence[int] | None) -> Tensor | None:
    """Weigh the classes in the loss.

    Args:
        scheme: ``balanced`` is n / (C * count), ``effective`` the inverse effective number of samples
            (Cui et al. 2019), scaled to a mean of 1; ``none`` gives None.
        counts: Training images of each class, all positive.

    Returns:
        ``(C,)`` float32, or None.
    """
    if scheme == "none":
        return None
    assert counts is not None, "weighing classes needs their counts"
    if min(counts) == 0:
        raise FERError(
            f"classifier.class_weights={scheme}: class number {list(counts).index(0)} has no training face"
        )
    numbers = torch.tensor(counts, dtype=torch.float64)
    if scheme == "balanced":
        return (numbers.sum() / (len(numbers) * numbers)).float()
    if scheme == "effective":
        weights = (1 - EFFECTIVE_BETA) / (1 - EFFECTIVE_BETA**numbers)
        return (weights / weights.mean()).float()
    raise FERError(f"classifier.class_weights={scheme}: expected none, balanced or effective")


class EpochOutputs:
    """Logits and labels of an epoch so far, so that metrics are computed once an epoch and not each step.

    They are moved to buffers that outlive the epoch: small tensors kept from every step would settle in the
    holes that gradients leave between two steps, and the gradients would get new memory each time, which
    doubles what the MLP's backward pass takes on a CPU.

    Saved with a checkpoint in the middle of an epoch, so that a resumed epoch reports all of its images.
    """

    def __init__(self) -> None:
        self._latest: list[tuple[Tensor, Tensor, Tensor]] = []
        self._buffers: list[Tensor] = []  # of logits, labels, losses times images
        self._used = [0, 0, 0]

    def add(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """Keep one batch: ``(N, C)`` logits, ``(N,)`` labels, the scalar loss."""
        self._latest.append((logits.detach(), labels, loss.detach()))
        if len(self._latest) == _MOVED_TOGETHER:
            self._move()

    def clear(self) -> None:
        """Begin an epoch."""
        self._latest.clear()
        self._used = [0, 0, 0]

    def _kept(self) -> list[Tensor]:
        """Give ``(N, C)`` logits, ``(N,)`` labels and ``(B,)`` losses times images."""
        self._move()
        return [buffer[:used] for buffer, used in zip(self._buffers, self._used, strict=True)]

    def _move(self) -> None:
        if not self._latest:
            return
        logits, labels, losses = zip(*self._latest, strict=True)
        self._latest.clear()
        # Multiplied one by one: a tensor of the sizes would have to be copied to a GPU, which waits for it.
        sums = [loss * len(part) for loss, part in zip(losses, labels, strict=True)]
        parts = [torch.cat(logits), torch.cat(labels), torch.stack(sums)]
        buffers = self._buffers or [part[:0] for part in parts]
        for place, (buffer, used, part) in enumerate(zip(buffers, self._used, parts, strict=True)):
            needed = used + len(part)
            if len(buffer) < needed or buffer.device != part.device:  # a checkpoint's are on the CPU
                grown = part.new_empty((max(needed, 2 * len(buffer), _FIRST_ROWS), *part.shape[1:]))
                grown[:used] = buffer[:used].to(part.device)
                buffers[place] = buffer = grown
            buffer[used:needed] = part
            self._used[place] = needed
        self._buffers = buffers

    def collect(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``(N, C)`` probs, ``(N,)`` labels and the scalar mean loss."""
        logits, labels, losses = self._kept()
        return logits.float().softmax(dim=1), labels, losses.sum() / len(labels)

    def state_dict(self) -> dict[str, Tensor]:
        """Copy what was kept; empty before the first batch."""
        if not (self._latest or any(self._used)):
            return {}
        return dict(zip(("logits", "labels", "losses"), map(torch.clone, self._kept()), strict=True))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state_dict`` gave."""
        self.clear()
        if state:
            self._buffers = [state["logits"], state["labels"], state["losses"]]
            self._used = [len(buffer) for buffer in self._buffers]


@torch.no_grad()
def update_ema(average: nn.Module, current: nn.Module, *, decay: float, num_steps: int) -> None:
    """Move a network's moving average one step on, weights and buffers.

    Args:
        average: Changed in place.
        current: A network of the same architecture.
        decay: The share of the average that stays, in [0, 1).
        num_steps: Steps before this one. The first ones keep less, ``(1 + n) / (10 + n)``, so that a short
            run does not end near the random weights it began with.
    """
    decay = min(decay, (1 + num_steps) / (10 + num_steps))
    pairs = list(zip(average.state_dict().values(), current.state_dict().values(), strict=True))
    floating = [pair for pair in pairs if pair[0].is_floating_point()]
    averages, currents = map(list, zip(*floating, strict=True))
    torch._foreach_lerp_(averages, currents, 1 - decay)
    for counter, value in pairs:  # of batch normalisation
        if not counter.is_floating_point():
            counter.copy_(value)


def seed_device(seed: int, device: torch.device) -> None:
    """Seed the generators from which a module on a device draws, of dropout for example.

    As ``torch.manual_seed``, which however also notes a stack trace for each kind of accelerator that was not
    started yet: 0.4 ms of processor time below 40 frames, where this takes 2 us.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def inference_state_dict(state: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce a classifier's ``state_dict`` to what predicts: averaged weights take the place of raw ones."""
    averaged = {
        name.replace("averaged.", "backbone.", 1): tensor
        for name, tensor in state.items()
        if name.startswith("averaged.")
    }
    return {name: tensor for name, tensor in state.items() if not name.startswith("averaged.")} | averaged


class FERClassifier(LightningModule):
    """A backbone with its normalisation, loss, metrics and optimiser.

    Args:
        backbone: Maps ``(N, 1, S, S)`` normalised float images to ``(N, C)`` logits.
        classes: Class names in the order of the labels.
        mean: Mean grey level of the training faces, in [0, 1].
        std: Standard deviation of the same pixels, in [0, 1].
        optimizer: Makes the optimiser from the parameters; None where nothing is trained.
        scheduler: Makes the scheduler from the optimiser (and ``total_steps`` where it steps each batch).
        scheduler_interval: ``epoch`` or ``step``.
        label_smoothing: In [0, 1).
        class_weights: How the loss weighs the classes, see ``compute_class_weights``.
        class_counts: Training images of each class; needed where classes are weighed.
        ema_decay: Of the exponential moving average of weights and buffers over steps, in [0, 1), with which
            everything but training predicts; 0 keeps none.
        flip_test: Whether everything but training averages the logits of a face and of its mirror image.
    """

    mean: Tensor
    std: Tensor
    class_weights: Tensor | None

    # Empty hooks within a step, which Lightning passes by where they are not callable.
    on_train_batch_start = None  # type: ignore[assignment]
    on_train_batch_end = None  # type: ignore[assignment]
    on_before_zero_grad = None  # type: ignore[assignment]
    on_before_backward = None  # type: ignore[assignment]
    on_after_backward = None  # type: ignore[assignment]
    on_before_optimizer_step = None  # type: ignore[assignment]

    def __init__(
        self,
        *,
        backbone: nn.Module,
        classes: Sequence[str],
        mean: float,
        std: float,
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        label_smoothing: float = 0.0,
        class_weights: ClassWeights = "none",
        class_counts: Sequence[int] | None = None,
        ema_decay: float = 0.0,
        flip_test: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(ema_decay, bool) or not isinstance(ema_decay, int | float) or not 0 <= ema_decay < 1:
            raise FERError(f"classifier.ema_decay={ema_decay}: expected a number in [0, 1)")
        if not isinstance(flip_test, bool):
            raise FERError(f"classifier.flip_test={flip_test}: expected true or false")
        if scheduler_interval not in ("epoch", "step"):
            raise FERError(f"scheduler.interval={scheduler_interval}: expected epoch or step")
        if not 0 <= label_smoothing < 1:
            raise FERError(f"classifier.label_smoothing={label_smoothing}: expected a number in [0, 1)")
        self.backbone = backbone
        self.ema_decay = ema_decay
        # DDP waits for the gradient of every weight that has one.
        self.averaged = copy.deepcopy(backbone).requires_grad_(False) if ema_decay else None
        self.flip_test = flip_test
        self.classes = tuple(classes)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.scheduler_interval = scheduler_interval
        self.label_smoothing = label_smoothing
        # Not persistent: a checkpoint's weights serve prediction, which weighs nothing.
        weights = compute_class_weights(class_weights, class_counts)
        self.register_buffer("class_weights", weights, persistent=False)
        self.train_metrics = scalar_metrics(len(classes), prefix="train/")
        self.val_metrics = scalar_metrics(len(classes), prefix="val/")
        self.train_outputs = EpochOutputs()
        self.val_outputs = EpochOutputs()

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes 40 times a step in which hook it is; torch looks each time whether it is a weight.
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    @cached_property
    def _normalisation(self) -> tuple[float, float]:
        """Scale and shift of grey levels as plain numbers: half the time of four operations on tensors."""
        mean, std = self.mean.item(), self.std.item()
        return 1 / (255 * std), mean / std

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Take weights and normalisation."""
        self.__dict__.pop("_normalisation", None)
        return super().load_state_dict(*args, **kwargs)

    def forward(self, images: Tensor) -> Tensor:
        """Classify faces.

        Args:
            images: ``(N, 1, S, S)`` grey levels in [0, 255], uint8 or float.

        Returns:
            ``(N, C)`` float logits.
        """
        scale, shift = self._normalisation
        images = (images.float() * scale).sub_(shift)
        if self.training:
            logits: Tensor = self.backbone(images)
            return logits
        network = self.backbone if self.averaged is None else self.averaged
        logits = network(images)
        return (logits + network(images.flip(-1))) / 2 if self.flip_test else logits

    def _step(self, batch: Batch, outputs: EpochOutputs) -> Tensor:
        logits = self(batch.images).float()  # the loss wants more than bf16's 8 bits
        loss = F.cross_entropy(logits, batch.labels, self.class_weights, label_smoothing=self.label_smoothing)
        outputs.add(logits, batch.labels, loss)
        return loss

    def training_step(self, batch: Batch) -> Tensor:
        """Return the loss; dropout's randomness belongs to the batch, not to the process."""
        seed_device(batch.seed, self.device)
        return self._step(batch, self.train_outputs)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Average the weights after each step."""
        num_steps = self.trainer.global_step
        super().optimizer_step(*args, **kwargs)
        if self.averaged is not None:
            update_ema(self.averaged, self.backbone, decay=self.ema_decay, num_steps=num_steps)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:  # noqa: ARG002
        """Drop the gradients; torch's own way also records itself for a profiler."""
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

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

    def validation_step(self, batch: Batch) -> None:
        """Keep the outputs for the end of the epoch."""
        self._step(batch, self.val_outputs)

    def predict_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the rows ``(N,)`` of the batch and their probabilities ``(N, C)`` float32."""
        return batch.rows, F.softmax(self(batch.images).float(), dim=1)

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
        """Make the optimiser and, where there is one, the scheduler."""
        assert self.optimizer is not None, "this module was built to predict, not to train"
        try:
            optimizer = self.optimizer(self.backbone.parameters())
        except (ValueError, TypeError) as error:  # a learning rate below zero, say, or a word
            raise FERError(f"optimizer: {error}") from error
        if self.scheduler is None:
            return optimizer
        total: dict[str, Any] = {}
        if self.scheduler_interval == "step":
            total["total_steps"] = self._count_steps()
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": self.scheduler(optimizer, **total),
                "interval": self.scheduler_interval,
            },
        }

    def _count_steps(self) -> int:
        # trainer.estimated_stepping_batches would set the loader up before a checkpoint's loader state is
        # known, and a run resumed in the middle of an epoch would start that epoch anew.
        num_batches = len(self.trainer.datamodule.train_dataloader())  # type: ignore[attr-defined]
        limit = self.trainer.limit_train_batches
        num_batches = min(num_batches, limit) if isinstance(limit, int) else int(num_batches * limit)
        steps_per_epoch = math.ceil(num_batches / self.trainer.accumulate_grad_batches)
        return steps_per_epoch * int(self.trainer.max_epochs or 0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what a resumed epoch needs."""
        checkpoint["train_outputs"] = self.train_outputs.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back."""
        self.train_outputs.load_state_dict(checkpoint["train_outputs"])
