"""Numbers of all processes that train one run."""

import torch
from torch import Tensor, nn
from torchmetrics.utilities.distributed import gather_all_tensors

from fer_lightning.data.loader import Batch
from fer_lightning.training.losses import ClassWeightedLoss


def num_connected() -> int:
    """Return how many processes train together; 1 without a connection to others."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size()


def join(parts: list[Tensor]) -> list[Tensor]:
    """Join tensors of any lengths from all processes, by rank; in one process, return them."""
    if num_connected() == 1:
        return parts
    return [torch.cat(gather_all_tensors(part)) for part in parts]


def divide_loss(module: nn.Module, loss: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Weight the loss of this process's part of a batch, so that the processes have that of the whole batch.

    A part counts by its images. Where the loss weights classes, its mean is divided by the weights of the
    labels, so that these count instead, and all processes must call this together.

    Args:
        module: A loss that returns a mean over images, or one of this package.
        loss: What it returned for the part.
        batch: The part.

    Returns:
        The loss whose mean over processes is that of the whole batch, and the loss whose mean over images is.
    """
    number = num_connected()
    if number == 1:
        return loss, loss
    weight = module.weight if isinstance(module, ClassWeightedLoss) else None
    if weight is None or batch.targets is not None:
        return loss * batch.share, loss
    own = weight[batch.labels].sum()
    total = own.clone()
    torch.distributed.all_reduce(total)
    divided = loss * (own * number / total)
    return divided, divided.detach() / batch.share
