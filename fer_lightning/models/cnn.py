"""The convolutional network of the paper's sections 4.2 and 6.1.

Karnati et al., "Deep Learning for Facial Expression Recognition". The text gives layer sizes only in
Figure 3, which is not available, so everything here is ours. The shape is chosen for CPUs: the first
convolution halves the image, because thin layers at full resolution are bound by memory and not by
arithmetic.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from fer_lightning.core.errors import FERError
from fer_lightning.models import Backbone, check_count, check_counts, check_dropout, check_images


class CNN(Backbone):
    """Convolutions that each halve the image, one hidden linear layer, a linear head.

    The first stage is a 4x4 convolution of stride 2, every further one a 3x3 convolution, 2x2 max-pooling and
    dropout of whole channels; batch normalisation and ReLU follow each convolution.

    Args:
        num_classes: Number of logits.
        image_size: Side of the images, in pixels, at least 2 to the power of the number of stages.
        widths: Channels of each stage, first to last.
        hidden: Units of the hidden linear layer.
        conv_dropout: Probability of zeroing a channel after each stage but the first, in [0, 1).
        dropout: Probability of zeroing a value before and after the hidden layer, in [0, 1).
        in_channels: Channels of the images.

    Raises:
        FERError: If an argument is out of range or the images are too small for the number of stages.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        image_size: int,
        widths: Sequence[int] = (32, 64, 128, 256),
        hidden: int = 256,
        conv_dropout: float = 0.2,
        dropout: float = 0.5,
        in_channels: int = 1,
    ) -> None:
        super().__init__()
        check_count("num_classes", num_classes)
        check_count("image_size", image_size)
        check_count("in_channels", in_channels)
        check_counts("widths", widths)
        check_count("hidden", hidden)
        check_dropout("conv_dropout", conv_dropout)
        check_dropout("dropout", dropout)
        smallest = 2 ** len(widths)
        if image_size < smallest:
            raise FERError(
                f"model.image_size={image_size}: the {len(widths)} stages of model.widths halve the image "
                f"{len(widths)} times, expected at least {smallest}; take larger images or fewer stages"
            )
        self.image_size, self.in_channels = image_size, in_channels

        stages: list[nn.Module] = [_stem(in_channels, widths[0])]
        stages += [_stage(width, after, conv_dropout) for width, after in pairwise(widths)]
        self.body = nn.Sequential(
            *stages,
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(widths[-1] * (image_size // smallest) ** 2, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(N, C, S, S)`` normalised float images to ``(N, num_classes)`` logits.

        Raises:
            FERError: If the images have another shape.
        """
        check_images(images, in_channels=self.in_channels, image_size=self.image_size)
        logits: Tensor = self.head(self.body(images))
        return logits


def _stem(in_channels: int, out_channels: int) -> nn.Module:
    """A strided convolution: ``(N, in_channels, S, S)`` to ``(N, out_channels, S // 2, S // 2)``."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _stage(in_channels: int, out_channels: int, dropout: float) -> nn.Module:
    """A pooled convolution: ``(N, in_channels, S, S)`` to ``(N, out_channels, S // 2, S // 2)``."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Dropout2d(dropout),  # by channel, since neighbouring values are alike
    )
