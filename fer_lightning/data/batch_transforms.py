"""Transforms of whole training batches, called as MixUp and CutMix of ``torchvision.transforms.v2``."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fer_lightning.core.errors import FERError
from fer_lightning.data.loader import Batch, batch_seed

# images, labels or targets -> images, labels or targets
BatchTransform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_REFUSALS = (TypeError, ValueError, RuntimeError)


def check_transforms(transforms: Any) -> list[BatchTransform]:
    """Refuse anything but a list of callables."""
    listed = isinstance(transforms, Sequence) and not isinstance(transforms, str)
    if not listed or not all(map(callable, transforms)):
        raise FERError(
            f"data.batch_transforms={transforms}: expected a list of transforms, such as "
            "[{_target_: torchvision.transforms.v2.MixUp, num_classes: 7, alpha: 0.2}]"
        )
    return list(transforms)


def transform_batch(
    transforms: Sequence[BatchTransform], batch: Batch, *, num_classes: int, draw_labels: bool = False
) -> Batch:
    """Apply transforms to a training batch, one after the other.

    A transform gets ``(N, C, S, S)`` float images in [0, 255], and ``(N,)`` int64 labels, or the ``(N,
    num_classes)`` float targets that the data set or the transform before it gave. What it draws from torch's
    global generators is a function of the seed of the batch.

    Args:
        transforms: Each maps (images, labels or targets) to the same pair.
        batch: A batch on its device.
        num_classes: The length of the class list.
        draw_labels: Whether to draw one class for each image from its target first, and to replace the
            target by it; a batch without targets is not changed.

    Returns:
        The batch with the new images. Labels that a transform returns replace the labels; targets that it
        returns become the targets, and the labels stay.

    Raises:
        FERError: If a transform refuses its input, or returns anything else.
    """
    images, answers = batch.images.float(), batch.labels if batch.targets is None else batch.targets
    # Not the seeds of the batch and of its augmentation, from which other numbers are drawn.
    with _seeded(batch_seed(batch.seed, 1), images.device):
        if draw_labels and batch.targets is not None:
            drawn = torch.multinomial(answers, 1)
            answers = torch.zeros_like(answers).scatter_(1, drawn, 1.0)
        for position, transform in enumerate(transforms):
            name = f"data.batch_transforms[{position}]: {_name(transform)}"
            try:
                result = transform(images, answers)
            except _REFUSALS as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                raise FERError(f"{name} refused {_describe(answers)} ({error})") from error
            images, answers = _check_result(name, result, images, num_classes)
    if answers.ndim == 1:
        return batch._replace(images=images, labels=answers, targets=None)
    return batch._replace(images=images, targets=answers)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators of the CPU and of a device, and restore them afterwards.

    The states are kept on the CPU for every device, so nothing waits for the device.
    """
    state = torch.get_rng_state()
    module: Any = None if device.type == "cpu" else torch.get_device_module(device)
    device_state = None if module is None else module.get_rng_state()
    torch.default_generator.manual_seed(seed)
    if module is not None:
        module.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
        if module is not None:
            module.set_rng_state(device_state)


def _check_result(name: str, result: object, images: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    n, channels = images.shape[:2]
    expected = (
        f"expected ({n}, {channels}, S, S) float images, and ({n},) int64 labels or ({n}, {num_classes}) "
        "float targets"
    )
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise FERError(f"{name} returned {_describe(result)}, {expected}")
    found, answers = result
    if (
        not isinstance(found, Tensor)
        or found.ndim != 4
        or found.shape[:2] != images.shape[:2]
        or found.shape[2] != found.shape[3]
        or not found.is_floating_point()
    ):
        raise FERError(f"{name} returned images of {_describe(found)}, {expected}")
    are_labels = isinstance(answers, Tensor) and answers.shape == (n,) and answers.dtype == torch.int64
    are_targets = (
        isinstance(answers, Tensor) and answers.shape == (n, num_classes) and answers.is_floating_point()
    )
    if not are_labels and not are_targets:
        raise FERError(f"{name} returned labels of {_describe(answers)}, {expected}")
    return found, answers


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"shape {tuple(value.shape)} and type {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, tuple | list):
        return f"{len(value)} values"
    return f"type {type(value).__name__}"


def _name(transform: object) -> str:
    return getattr(transform, "__name__", type(transform).__name__)
