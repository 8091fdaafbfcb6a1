"""What Lightning costs in each step, avoided: worth it for small networks, whose steps take a millisecond.

``python -m benchmarks overhead`` measures what each part saves. Nothing here changes a result.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from lightning.pytorch.profilers import PassThroughProfiler

T = TypeVar("T")

STEP_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)


def without_hooks(*names: str) -> Callable[[type[T]], type[T]]:
    """Remove empty hooks of a module or callback class: Lightning skips a hook that is None.

    It spends time on each hook of each callback otherwise, even where it does nothing. A subclass may define
    a hook again.

    Args:
        *names: Of hooks, such as ``on_before_backward``.
    """

    def remove(kind: type[T]) -> type[T]:
        for name in names:
            setattr(kind, name, None)
        return kind

    return remove


class NoProfiler(PassThroughProfiler):
    """A profiler that measures nothing; Lightning's own makes 36 generators in each step."""

    _context: AbstractContextManager[None] = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override] # noqa: ARG002
        """Measure nothing."""
        return self._context


class LeanModule:
    """Mixin for a LightningModule: an attribute that torch need not inspect."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning records its current hook 40 times in a step; torch checks each for being a weight.
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)


def seed_device(seed: int, device: torch.device) -> None:
    """Seed the generators from which a module on a device draws, for dropout for example.

    The same as ``torch.manual_seed``, which also records a stack trace for each kind of accelerator that was
    not started yet.

    Args:
        seed: A 64-bit number.
        device: Where the module is.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
