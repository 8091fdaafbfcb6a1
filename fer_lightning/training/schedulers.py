"""Learning-rate schedulers: how often they step, and their settings tried before training."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from fer_lightning.config.instantiate import accepted_settings, setting_error

Interval = Literal["auto", "epoch", "step"]
MakeScheduler = Callable[..., LRScheduler]

# What torch raises where a setting of an optimiser or a scheduler is wrong.
REFUSALS = (TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)


def takes_total_steps(make: MakeScheduler) -> bool:
    """Return whether a scheduler is built from its number of steps, as ``OneCycleLR`` is."""
    return "total_steps" in accepted_settings(make.func if isinstance(make, partial) else make)[0]


def resolve_interval(make: MakeScheduler, interval: Interval) -> Literal["epoch", "step"]:
    """Resolve ``auto``: ``step`` for a scheduler that takes ``total_steps``, ``epoch`` for any other."""
    if interval != "auto":
        return interval
    return "step" if takes_total_steps(make) else "epoch"


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
