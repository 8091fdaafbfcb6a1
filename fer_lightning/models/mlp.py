"""The multi-layer perceptron of the paper's sections 4.2 and 6.3: an image as one flat vector.

Karnati et al., "Deep Learning for Facial Expression Recognition". The text gives layer sizes only in
Figure 3, which is not available, so the sizes, batch normalisation and dropout are ours.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from fer_lightning.models import Backbone, check_count, check_counts, check_dropout, check_images


class MLP(Backbone):
    """Hidden layers of linear, batch normalisation, ReLU and dropout, then a linear head.

    Args:
        num_classes: Number of logits.
        image_size: Side of the images, in pixels.
        hidden: Units of each hidden layer, first to last.
        dropout: Probability of zeroing a hidden unit, in [0, 1).
        in_channels: Channels of the images.

    Raises:
        FERError: If an argument is out of range.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        image_size: int,
        hidden: Sequence[int] = (512, 256),
        dropout: float = 0.5,
        in_channels: int = 1,
    ) -> None:
        super().__init__()
        check_count("num_classes", num_classes)
        check_count("image_size", image_size)
        check_count("in_channels", in_channels)
        check_counts("hidden", hidden)
        check_dropout("dropout", dropout)
        self.image_size, self.in_channels = image_size, in_channels

        layers: list[nn.Module] = [nn.Flatten()]
        width = in_channels * image_size**2
        for units in hidden:
            layers += [
                nn.Linear(width, units, bias=False),  # batch normalisation has the bias
                nn.BatchNorm1d(units),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
            ]
            width = units
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(N, C, S, S)`` normalised float images to ``(N, num_classes)`` logits.

        Raises:
            FERError: If the images have another shape.
        """
        check_images(images, in_channels=self.in_channels, image_size=self.image_size)
        logits: Tensor = self.head(self.body(images))
        return logits
