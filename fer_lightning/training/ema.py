"""The exponential moving average of a network's weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class EMA:
    """Moves an average of a network's weights and buffers one step on at a time.

    Not ``torch.optim.swa_utils.AveragedModel``: its step counter is a tensor on the device, and a warm-up
    that depends on it would wait for a GPU in each step.

    Args:
        average: A copy of the network, changed in place.
        current: The network that is trained. Neither may be moved to another device afterwards.
        decay: The share of the average that stays in each step, in [0, 1).
    """

    def __init__(self, average: nn.Module, current: nn.Module, decay: float) -> None:
        self.decay = decay
        pairs = list(zip(average.state_dict().values(), current.state_dict().values(), strict=True))
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]  # of batch normalisation
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        self._averages: list[Tensor] = [average for average, _ in floating]
        self._currents: list[Tensor] = [current for _, current in floating]

    @torch.no_grad()
    def update(self, num_steps: int) -> None:
        """Include the current weights.

        Args:
            num_steps: Steps before this one. The first steps keep less of the average, ``(1 + n) / (10 +
                n)``, so that a short run does not end near its random initial weights.
        """
        decay = min(self.decay, (1 + num_steps) / (10 + num_steps))
        torch._foreach_lerp_(self._averages, self._currents, 1 - decay)
        for counter, value in self._counters:
            counter.copy_(value)


def inference_state_dict(state: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce a classifier's ``state_dict`` to what predicts: averaged weights, and nothing of the loss."""
    averaged = {
        name.replace("averaged.", "backbone.", 1): tensor
        for name, tensor in state.items()
        if name.startswith("averaged.")
    }
    others = ("averaged.", "loss.")
    return {name: tensor for name, tensor in state.items() if not name.startswith(others)} | averaged
