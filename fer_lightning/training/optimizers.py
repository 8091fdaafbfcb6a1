"""Sharpness-aware minimisation (SAM), which torch does not have: Foret et al. 2021, arXiv:2010.01412."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim import SGD

from fer_lightning.core.errors import FERError
from fer_lightning.training.schedulers import accumulated_batches

_SMALL = 1e-12  # keeps a gradient of zeros from dividing by zero


class SAM(SGD):
    """SGD with the gradient at the worst weights within a distance; a step takes twice the time.

    The batch is the same at both points, as are its augmentation and dropout; batch normalisation counts it
    twice. The metrics of an epoch count every image once.

    Args:
        params: As of ``torch.optim.SGD``.
        rho: Distance, in the norm of all weights together; above 0. The paper took 0.05 for CIFAR.
        settings: Other settings of ``torch.optim.SGD``, such as ``lr`` and ``momentum``.

    Raises:
        ValueError: If ``rho`` is no positive number.
    """

    def __init__(self, params: Any, *, rho: float = 0.05, **settings: Any) -> None:
        if isinstance(rho, bool) or not isinstance(rho, int | float) or not 0 < rho < float("inf"):
            raise ValueError(f"rho={rho}: expected a number above 0")
        super().__init__(params, **settings)
        self.rho = float(rho)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step.

        Args:
            closure: Clears the gradients, computes the loss and its gradients, and returns the loss.

        Raises:
            FERError: Without a closure, as in float16 with scaled gradients.
        """
        if closure is None:
            raise FERError(
                "optimizer=sam computes the gradient twice per step, which 16-mixed does not allow; set "
                "trainer.precision=bf16-mixed or trainer.precision=32-true"
            )
        loss = closure()
        weights: list[Tensor] = [
            each for group in self.param_groups for each in group["params"] if each.grad is not None
        ]
        gradients = [each.grad for each in weights if each.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))) + _SMALL
        before = [each.clone() for each in weights]
        torch._foreach_add_(weights, torch._foreach_mul(gradients, self.rho / norm))
        closure()
        torch._foreach_copy_(weights, before)
        super().step()
        return loss


def check_accumulation(trainer: Trainer) -> None:
    """Refuse gradients of several batches: the second gradient of SAM would be added to the first.

    Raises:
        FERError: If an epoch accumulates.
    """
    for epoch in range(max(1, trainer.max_epochs or 0)):
        if (count := accumulated_batches(trainer, epoch)) != 1:
            raise FERError(
                f"trainer.accumulate_grad_batches={count}: optimizer=sam takes its two gradients from one "
                "batch; leave trainer.accumulate_grad_batches out, or choose another optimizer"
            )
