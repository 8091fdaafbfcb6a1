"""Depth 15 of ``ResNet``, ours for faces of 48 pixels, with the parts that longer trainings gain from.

Squeeze-and-excitation: Hu et al. 2018, arXiv:1709.01507; stochastic depth: Huang et al. 2016,
arXiv:1603.09382; both as torchvision builds them.
"""

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock  # type: ignore[import-untyped]
from torchvision.ops import SqueezeExcitation, StochasticDepth  # type: ignore[import-untyped]

_REDUCTION = 16  # of the channels within squeeze-and-excitation, as in its paper
_NUM_BLOCKS = 4


class FaceBlock(BasicBlock):  # type: ignore[misc] # torchvision has no types
    """torchvision's ``BasicBlock``, whose residual branch may be recalibrated and, in training, left out.

    Args:
        channels: Of its input and output.
        squeeze_excitation: Multiply the branch's channels by weights that depend on their means.
        drop: Probability in [0, 1) with which the branch of an image is left out in training.
    """

    def __init__(self, channels: int, *, squeeze_excitation: bool, drop: float) -> None:
        super().__init__(channels, channels)
        self.recalibrate: nn.Module = nn.Identity()
        if squeeze_excitation:
            self.recalibrate = SqueezeExcitation(channels, max(1, channels // _REDUCTION))
        self.drop: nn.Module = StochasticDepth(drop, mode="row") if drop else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``(N, channels, H, W)`` to the same shape."""
        branch = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(maps)))))
        output: Tensor = self.relu(self.drop(self.recalibrate(branch)) + maps)
        return output


def face_body(
    in_channels: int, *, width: float = 1.0, squeeze_excitation: bool = False, stochastic_depth: float = 0.0
) -> tuple[nn.Sequential, int]:
    """Build depth 15 without its head.

    Args:
        in_channels: Channels of the images.
        width: Factor of the numbers of channels (32, 64, 128, 256), which are rounded to a multiple of 8.
        squeeze_excitation: See ``FaceBlock``.
        stochastic_depth: Probability of leaving out the last block; of the earlier ones it grows from
            a quarter of it in equal steps.

    Returns:
        The network from ``(N, in_channels, S, S)`` to ``(N, C)``, and C.
    """
    a, b, c, d = (max(8, 8 * round(channels * width / 8)) for channels in (32, 64, 128, 256))
    drops = [stochastic_depth * number / _NUM_BLOCKS for number in range(1, _NUM_BLOCKS + 1)]

    def blocks(channels: int, drops: list[float]) -> list[nn.Module]:
        return [FaceBlock(channels, squeeze_excitation=squeeze_excitation, drop=drop) for drop in drops]

    layers = [
        *(*_conv(in_channels, a), *_conv(a, a), nn.MaxPool2d(2)),
        *(*_conv(a, b), *_conv(b, b), nn.MaxPool2d(2)),
        *(*_conv(b, c), *blocks(c, drops[:2]), nn.MaxPool2d(2)),
        *(*_conv(c, d), *blocks(d, drops[2:]), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    ]
    return nn.Sequential(*layers), d


def _conv(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
    return conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
