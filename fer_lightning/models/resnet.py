"""torchvision's residual networks: the paper's ResNet-34 (sections 4.2, 4.3 and 6.2) and its neighbours.

He et al. 2015, arXiv:1512.03385, as torchvision builds it; Karnati et al., "Deep Learning for Facial
Expression Recognition", fine-tuned depth 34 from ImageNet weights at 48 pixels.

Differences from torchvision: the first convolution takes grey images, and ``stem=small`` keeps the
resolution of small images, so that 48 pixels end as 6x6 instead of 2x2, for about 16 times the arithmetic.

Depth 15 is ours, for images of 48 pixels: convolutions 32-32 | 64-64 | 128 and two residual blocks | 256 and
two residual blocks, with max-pooling between. It has a sixth of the weights of torchvision's depth 34 and a
third more arithmetic (245 M multiply-adds per image against 188 M), on maps of 48 to 6 pixels a side instead
of 24 to 2.

For one input channel, the pretrained kernel is summed over its three channels. This gives exactly the
activations of a grey image repeated three times, with each channel standardised by our one mean and
deviation. ImageNet's own normalisation, whose means (0.485, 0.456, 0.406) and deviations (0.229, 0.224,
0.225) differ by channel, is not folded in: its means cannot be at the border, where zero padding is a
different grey in each channel. Standardised images have the zero mean and unit variance that the weights
expect.
"""

import http.client
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision  # type: ignore[import-untyped]
from torch import Tensor, nn

from fer_lightning.core.errors import FERError
from fer_lightning.models import Backbone, check_choice, check_count, check_dropout, check_images
from fer_lightning.models.face_resnet import face_body

_DEPTHS = (15, 18, 34, 50)
_STEMS = ("imagenet", "small")
_LARGEST_SMALL = 64  # pixels a side: 48 end as 2; of 96 the memory format matters no more
_WIDTHS = (0.125, 8.0)
_SMALLEST = 16  # pixels a side: below, the last maps of every depth are single points


class ResNet(Backbone):
    """A ResNet whose stem takes grey images and whose classifier is ``head``.

    Args:
        num_classes: Number of logits.
        image_size: Side of the images, in pixels; in training, smaller images are accepted, since the end
            pools.
        depth: 18, 34 or 50 layers as in torchvision, or 15, ours for small images.
        stem: ``imagenet`` (7x7 of stride 2, then max-pooling of stride 2) or ``small`` (3x3 of stride 1, no
            pooling); depth 15 has a small one only.
        pretrained: ``True`` fetches torchvision's ImageNet weights, ``False`` starts from random ones, a path
            reads a file of them. The head always starts from random weights; with ``stem=small`` so does the
            stem, for which the 7x7 kernel of stride 2 has no counterpart.
        in_channels: Channels of the images; a pretrained ``imagenet`` stem takes 1 or 3.
        width: Factor of the numbers of channels of depth 15, in [0.125, 8]; 2 has four times the arithmetic.
        squeeze_excitation: Whether the residual blocks of depth 15 weight their channels (arXiv:1709.01507).
        stochastic_depth: Probability in [0, 1) of leaving out the last residual block of depth 15 for an
            image in training; for earlier ones it is less (arXiv:1603.09382).

    Raises:
        FERError: If an argument is out of range, or the weights cannot be fetched, read or used.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        image_size: int,
        depth: int = 34,
        stem: str = "imagenet",
        pretrained: bool | str = False,
        in_channels: int = 1,
        width: float = 1.0,
        squeeze_excitation: bool = False,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        check_count("num_classes", num_classes)
        check_count("image_size", image_size)
        check_count("in_channels", in_channels)
        check_choice("depth", depth, _DEPTHS)
        check_choice("stem", stem, _STEMS)
        _check_pretrained(pretrained, depth=depth, stem=stem, in_channels=in_channels)
        _check_face_parts(
            depth, width=width, squeeze_excitation=squeeze_excitation, stochastic_depth=stochastic_depth
        )
        self.image_size, self.in_channels = image_size, in_channels
        self.small_maps = stem == "imagenet" and image_size <= _LARGEST_SMALL

        if depth == 15:
            body, channels = face_body(
                in_channels,
                width=width,
                squeeze_excitation=squeeze_excitation,
                stochastic_depth=stochastic_depth,
            )
            self.body: nn.Module = body
            self.head: nn.Module = nn.Linear(channels, num_classes)
            return
        published: Any = torchvision.models.get_model(f"resnet{depth}", num_classes=num_classes)
        self.body, self.head = published, published.fc
        published.fc = nn.Identity()
        published.conv1 = _stem(in_channels, stem)
        if stem == "small":
            published.maxpool = nn.Identity()
        if pretrained:
            weights = _fetch(depth) if pretrained is True else _read(str(pretrained), depth)
            self._start_from(weights, keep_stem=stem == "small")

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(N, C, S, S)`` normalised float images to ``(N, num_classes)`` logits.

        Raises:
            FERError: If the images have another shape.
        """
        check_images(
            images,
            in_channels=self.in_channels,
            image_size=self.image_size,
            smallest=_SMALLEST if self.training else None,
        )
        logits: Tensor = self.head(self.body(images))
        return logits

    def _start_from(self, weights: Mapping[str, Tensor], *, keep_stem: bool) -> None:
        state = {name: tensor for name, tensor in weights.items() if not name.startswith("fc.")}
        if keep_stem:
            own = self.body.state_dict()
            state |= {name: own[name] for name in own if name.startswith(("conv1.", "bn1."))}
        elif self.in_channels == 1:
            state["conv1.weight"] = fold_grey(state["conv1.weight"])
        self.body.load_state_dict(state)


def _check_pretrained(pretrained: bool | str, *, depth: int, stem: str, in_channels: int) -> None:
    """Refuse weights that do not exist for such a network, and a stem that depth 15 does not have."""
    if not isinstance(pretrained, bool | str) or pretrained == "":
        raise FERError(f"model.pretrained={pretrained}: expected true, false or the path of a weights file")
    if depth == 15 and pretrained:
        raise FERError(
            f"model.pretrained={'true' if pretrained is True else pretrained}: no ImageNet weights "
            "exist for model.depth=15, as in experiment=improved_resnet; set "
            "model.depth=34 too, or 18 or 50"
        )
    if depth == 15 and stem != "small":
        raise FERError(
            f"model.stem={stem}: model.depth=15 is for small images; set model.stem=small too, or "
            "another depth"
        )
    if pretrained and stem == "imagenet" and in_channels not in (1, 3):
        raise FERError(
            f"model.in_channels={in_channels}: pretrained weights take images of 1 or 3 channels; "
            "set model.pretrained=false or model.stem=small"
        )


def _check_face_parts(depth: int, *, width: float, squeeze_excitation: bool, stochastic_depth: float) -> None:
    """Refuse values out of range, and at other depths than 15 anything but the defaults."""
    low, high = _WIDTHS
    if isinstance(width, bool) or not isinstance(width, int | float) or not low <= width <= high:
        raise FERError(f"model.width={width}: expected a number in [{low}, {high:g}]")
    if not isinstance(squeeze_excitation, bool):
        raise FERError(f"model.squeeze_excitation={squeeze_excitation}: expected true or false")
    check_dropout("stochastic_depth", stochastic_depth)
    given = {"width": width, "squeeze_excitation": squeeze_excitation, "stochastic_depth": stochastic_depth}
    for name, default in (("width", 1), ("squeeze_excitation", False), ("stochastic_depth", 0)):
        if depth != 15 and given[name] != default:
            raise FERError(
                f"model.{name}={given[name]}: torchvision's networks have no such part; set model.depth=15 "
                "and model.stem=small, or leave it out"
            )


def fold_grey(kernel: Tensor) -> Tensor:
    """Turn a colour kernel into one for grey images that gives what the grey repeated three times gave.

    Args:
        kernel: ``(out_channels, 3, k, k)`` weights of a convolution.

    Returns:
        ``(out_channels, 1, k, k)`` weights.
    """
    return kernel.sum(dim=1, keepdim=True)


def _stem(in_channels: int, stem: str) -> nn.Conv2d:
    """The first convolution, initialised as torchvision does."""
    if stem == "small":
        conv = nn.Conv2d(in_channels, 64, kernel_size=3, padding=1, bias=False)
    else:
        conv = nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def _fetch(depth: int) -> Mapping[str, Tensor]:
    """Download torchvision's ImageNet weights, or take them from torch's cache."""
    weights = _published(depth)
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise FERError(
            f"model.pretrained=true: cannot fetch {weights.url} ({error}); set model.pretrained=false to "
            "start from random weights, or download that file elsewhere and set "
            f"model.pretrained=PATH/{_file_name(weights)}"
        ) from error
    return state


def _read(path: str, depth: int) -> Mapping[str, Tensor]:
    """Read a file of torchvision's weights, and refuse any other file."""
    published = _published(depth)
    expected = f"expected {_file_name(published)} from {published.url}"
    try:
        weights: Mapping[str, Tensor] = torch.load(
            Path(path).expanduser(), map_location="cpu", weights_only=True
        )
    except FileNotFoundError as error:
        raise FERError(f"model.pretrained={path}: no such file; {expected}") from error
    except Exception as error:  # a damaged pickle raises anything
        reason = type(error).__name__
        raise FERError(f"model.pretrained={path}: not a file of weights ({reason}); {expected}") from error
    if _shapes(weights) != _shapes(torchvision.models.get_model(f"resnet{depth}").state_dict()):
        raise FERError(
            f"model.pretrained={path}: not the weights of torchvision's ResNet-{depth}; {expected}"
        )
    return weights


def _shapes(weights: object) -> dict[str, torch.Size]:
    """Name the shape of each weight, without the step counters that older files (resnet34's) lack."""
    if not isinstance(weights, Mapping):
        return {}
    return {
        name: tensor.shape
        for name, tensor in weights.items()
        if isinstance(tensor, Tensor) and not str(name).endswith(".num_batches_tracked")
    }


def _published(depth: int) -> Any:
    return torchvision.models.get_model_weights(f"resnet{depth}").DEFAULT


def _file_name(weights: Any) -> str:
    return str(weights.url).rpartition("/")[2]
