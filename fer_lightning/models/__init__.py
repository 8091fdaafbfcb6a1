"""Backbones: plain ``nn.Module``s from normalised images to logits, and what they share.

A backbone is one file here and one YAML in ``conf/model``; the folder is the registry. Its constructor is
flat and keyword-only, takes ``num_classes``, ``image_size`` and ``in_channels``, and refuses wrong
values; its ``forward`` maps ``(N, in_channels, S, S)`` normalised float images to ``(N, num_classes)``
logits; ``head`` is its last ``nn.Linear``, which fine-tuning on other classes replaces.
"""

from collections.abc import Collection, Sequence
from typing import Any, Self

from torch import Tensor, nn

from fer_lightning.core.errors import FERError


class Backbone(nn.Module):
    """A network that remembers its settings, so that a checkpoint of any Trainer can describe it.

    A network without this base class can be trained, too. A checkpoint describes it if it was built from a
    config.

    Attributes:
        settings: The keyword arguments of its constructor.
    """

    settings: dict[str, Any]

    def __new__(cls, *_args: Any, **settings: Any) -> Self:
        """Keep the settings before the constructor runs."""
        network = super().__new__(cls)
        network.__dict__["settings"] = settings
        return network


def check_count(name: str, value: int, *, minimum: int = 1) -> None:
    """Refuse anything but a whole number of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise FERError(f"model.{name}={value}: expected a whole number of at least {minimum}")


def check_counts(name: str, values: Sequence[int]) -> None:
    """Refuse anything but a non-empty list of whole numbers of at least 1."""
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise FERError(f"model.{name}={values}: expected a list of whole numbers, such as [512, 256]")
    for position, value in enumerate(values):
        check_count(f"{name}[{position}]", value)


def check_dropout(name: str, value: float) -> None:
    """Refuse anything but a number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise FERError(f"model.{name}={value}: expected a number in [0, 1)")


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Refuse anything but one of ``choices``."""
    if value not in choices:
        raise FERError(f"model.{name}={value}: expected one of: {', '.join(map(str, choices))}")


def check_images(images: Tensor, *, in_channels: int, image_size: int, smallest: int | None = None) -> None:
    """Refuse a batch whose shape is not the backbone's.

    Args:
        images: The batch.
        in_channels: Its channels.
        image_size: Its side, in pixels.
        smallest: The smallest accepted side, for a network in training that can start on smaller images
            (``data.augment.sides``); None accepts ``image_size`` only.

    Raises:
        FERError: If ``images`` is not ``(N, in_channels, S, S)`` with such a side.
    """
    side = images.shape[-1] if images.ndim == 4 else 0
    fits = side == image_size or (smallest is not None and smallest <= side < image_size)
    if not fits or images.shape[1:] != (in_channels, side, side):
        raise FERError(
            f"images: expected (N, {in_channels}, {image_size}, {image_size}), got {tuple(images.shape)}; "
            "resize them or set model.image_size and model.in_channels"
        )
