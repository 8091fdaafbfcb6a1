"""Test-time augmentation: views of an image whose logits are averaged."""

from collections.abc import Iterator
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

TTA = Literal["none", "flip", "ten_crop"]
TTA_NAMES: tuple[str, ...] = get_args(TTA)
NUM_VIEWS: dict[str, int] = {"none": 1, "flip": 2, "ten_crop": 10}
CROP_SHARE = 11 / 12  # of the image's side: 44 of FER-2013's 48 pixels


def average_logits(network: nn.Module, images: Tensor, tta: TTA) -> Tensor:
    """Return the mean logits of a network over the views of each image.

    Args:
        network: Maps normalised images to logits.
        images: ``(N, C, S, S)`` normalised float images.
        tta: ``none``: the image; ``flip``: also its mirror image; ``ten_crop``: four corners and the centre,
            ``CROP_SHARE`` of the side, scaled back to ``S``, and their mirror images.

    Returns:
        ``(N, num_classes)`` float logits.
    """
    total: Tensor | None = None
    for view in _views(images, tta):
        logits = network(view)
        if tta == "ten_crop":
            logits = logits.float()  # ten of bf16's 8 bits would lose some
        total = logits if total is None else total + logits
    assert total is not None
    return total / NUM_VIEWS[tta] if tta != "none" else total


def _views(images: Tensor, tta: TTA) -> Iterator[Tensor]:
    crops = _crops(images) if tta == "ten_crop" else [images]
    for crop in crops:
        yield crop
        if tta != "none":
            yield crop.flip(-1)


def _crops(images: Tensor) -> Iterator[Tensor]:
    """Yield corners and centre of ``(N, C, S, S)`` images, scaled back."""
    size = images.shape[-1]
    side = max(1, round(CROP_SHARE * size))
    end, middle = size - side, (size - side) // 2
    for top, left in ((0, 0), (0, end), (end, 0), (end, end), (middle, middle)):
        crop = images[..., top : top + side, left : left + side]
        yield F.interpolate(crop, size=(size, size), mode="bilinear", align_corners=False)
