"""Learning-rate schedulers: how often they step, and their settings tried before training."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from fer_lightning.config.instantiate import accepted_settings, setting_error
from fer_lightning.core.errors import FERError

Interval = Literal["auto", "epoch", "step"]
MakeScheduler = Callable[..., LRScheduler]

NEVER = sys.maxsize  # epochs between two steps that Lightning takes

# What torch raises where a setting of an optimiser or a scheduler is wrong.
REFUSALS = (TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)


def takes_total_steps(make: MakeScheduler) -> bool:
    """Return whether a scheduler is built from its number of steps, as ``OneCycleLR`` is."""
    return "total_steps" in accepted_settings(make.func if isinstance(make, partial) else make)[0]


def follows_metric(make: MakeScheduler) -> bool:
    """Return whether a scheduler steps by a metric, as ``ReduceLROnPlateau`` does."""
    kind = make.func if isinstance(make, partial) else make
    return isinstance(kind, type) and issubclass(kind, ReduceLROnPlateau)


def resolve_interval(make: MakeScheduler, interval: Interval) -> Literal["epoch", "step"]:
    """Resolve ``auto``: ``step`` for a scheduler that takes ``total_steps``, ``epoch`` for any other.

    Raises:
        FERError: If a scheduler is to follow a metric of an epoch in each step.
    """
    if interval == "step" and follows_metric(make):
        raise FERError(
            "classifier.scheduler_interval=step: ReduceLROnPlateau follows a metric of an epoch; expected "
            "epoch or auto"
        )
    if interval != "auto":
        return interval
    return "step" if takes_total_steps(make) else "epoch"


def accumulated_batches(trainer: Trainer, epoch: int) -> int:
    """Return how many batches an optimiser step of an epoch takes."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, GradientAccumulationScheduler):
            return int(callback.get_accumulate_grad_batches(epoch))
    return trainer.accumulate_grad_batches


def step_by_metric(trainer: Trainer, monitor: str) -> None:
    """Step the scheduler if it is ``ReduceLROnPlateau``, before the checkpoint of the epoch is written.

    Lightning steps it after that, and not at all in an epoch that was resumed.

    Raises:
        FERError: If there is no such metric.
    """
    for settings in trainer.lr_scheduler_configs:
        if isinstance(settings.scheduler, ReduceLROnPlateau) and settings.frequency == NEVER:
            metrics = trainer.callback_metrics
            if monitor not in metrics:
                raise FERError(
                    f"classifier.monitor={monitor}: ReduceLROnPlateau follows it, and no epoch measures it; "
                    f"expected one of {', '.join(metrics)}"
                )
            settings.scheduler.step(metrics[monitor])


def build_scheduler(make: MakeScheduler, optimizer: Optimizer, *, total_steps: int) -> LRScheduler:
    """Build a scheduler.

    Args:
        make: Such as a ``functools.partial`` of a class.
        optimizer: Whose learning rate it changes.
        total_steps: Given to a scheduler that takes it.

    Raises:
        FERError: If a setting is refused.
    """
    total = {"total_steps": total_steps} if takes_total_steps(make) else {}
    try:
        return make(optimizer, **total)
    except REFUSALS as error:
        raise setting_error("scheduler", make, error) from error


def check_scheduler(make: MakeScheduler) -> None:
    """Try a scheduler's settings on another optimiser: the real one needs the number of steps.

    Raises:
        FERError: If a setting is refused.
    """
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    scheduler: Any = build_scheduler(make, optimizer, total_steps=100)
    optimizer.step()  # torch warns of a scheduler that steps first
    try:
        scheduler.step(*((0.0,) if isinstance(scheduler, ReduceLROnPlateau) else ()))
    except REFUSALS as error:
        raise setting_error("scheduler", make, error) from error
