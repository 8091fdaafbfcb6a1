"""Any network of timm (PyTorch Image Models, Wightman 2019): ``pip install timm``.

The network is timm's, unchanged: https://github.com/huggingface/pytorch-image-models. A linear layer of
``num_classes`` outputs replaces its classifier.
"""

import difflib
from typing import Any

import torch
from torch import Tensor, nn

from fer_lightning.core.errors import FERError
from fer_lightning.models import Backbone, check_count, check_images


class TimmModel(Backbone):
    """A network that timm builds by name.

    Args:
        name: As in ``timm.list_models()``, such as ``resnet18`` or ``vit_tiny_patch16_224``.
        num_classes: Number of logits.
        image_size: Side of the images, in pixels; given to networks that need it, such as transformers.
        pretrained: Whether to start from timm's weights, downloaded from the Hugging Face Hub.
        in_channels: Channels of the images; timm adapts pre-trained weights to one channel.
        **settings: Further arguments of ``timm.create_model``, such as ``drop_rate``.

    Raises:
        FERError: If timm is not installed, has no such network, refuses a setting, or cannot fetch the
            weights.
    """

    def __init__(
        self,
        *,
        name: str,
        num_classes: int,
        image_size: int,
        pretrained: bool = False,
        in_channels: int = 1,
        **settings: Any,
    ) -> None:
        super().__init__()
        check_count("num_classes", num_classes)
        check_count("image_size", image_size)
        check_count("in_channels", in_channels)
        if not isinstance(pretrained, bool):
            raise FERError(f"model.pretrained={pretrained}: expected true or false")
        self.image_size, self.in_channels = image_size, in_channels
        self.body = _create(
            name,
            num_classes=0,  # its features after pooling
            image_size=image_size,
            pretrained=pretrained,
            in_chans=in_channels,
            **settings,
        )
        self.head = nn.Linear(self.body.head_hidden_size, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(N, C, S, S)`` normalised float images to ``(N, num_classes)`` logits."""
        check_images(images, in_channels=self.in_channels, image_size=self.image_size)
        logits: Tensor = self.head(self.body(images))
        return logits


def _create(name: str, *, image_size: int, **settings: Any) -> Any:
    """Build a network; one with position embeddings is built for the side of its images."""
    try:
        import timm  # optional
    except ImportError as error:
        raise FERError(
            f"model.name={name}: networks of timm need that package: pip install timm ({error})"
        ) from error
    if not timm.is_model(str(name).partition(".")[0]):
        close = difflib.get_close_matches(str(name), timm.list_models(), n=3)
        meant = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() lists them"
        raise FERError(f"model.name={name}: timm {timm.__version__} has no such network; {meant}")
    try:
        try:
            return timm.create_model(name, img_size=image_size, **settings)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            return timm.create_model(name, **settings)  # most convolutional networks take any size
    except TypeError as error:
        raise FERError(f"model: timm's {name} refuses a setting ({error})") from error
    except (OSError, RuntimeError, ValueError) as error:
        if settings["pretrained"] and not isinstance(error, torch.OutOfMemoryError):
            reason = " ".join(str(error).split())[:200]
            raise FERError(
                f"model.pretrained=true: the weights of {name} could not be fetched or used "
                f"({reason}); connect "
                "to the Hugging Face Hub, or set model.pretrained=false"
            ) from error
        raise
