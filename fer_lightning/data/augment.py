"""Random augmentation, batched on the device, with separate parameters for every image."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import Tensor

from fer_lightning.core.errors import FERError

# Random erasing, Zhong et al. 2017, arXiv:1708.04896. They erase up to 0.4 of an image; if a face fills the
# image, less already covers both eyes or the mouth.
_ERASED_AREA = (0.02, 0.2)
_ERASED_MAX_ASPECT = 3.3
_HIGHEST = {"rotate": 180, "scale": 0.9}  # 1 for all others
_SMALLEST_SIDE = 8


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Flip, shift, rotate, scale, re-light and partly erase images; every change is off by default.

    Changes are applied in this order: flip, scale and rotation about the centre, shift, contrast and
    brightness, erasing. Pixels from outside the image are reflected at its border. The number of random draws
    per image is constant, so enabling one change does not affect the others.

    Attributes:
        flip: Probability of a mirror image, in [0, 1].
        shift: Largest shift along each axis, as a fraction of the side, in [0, 1].
        rotate: Largest rotation in either direction, in degrees, in [0, 180].
        scale: Largest relative change of size, in [0, 0.9]: 0.1 resizes by 0.9 to 1.1.
        contrast: Largest relative change of the differences to the mean of the image, over all channels, in
            [0, 1].
        brightness: Largest change of all grey levels or channels, as a fraction of 255, in [0, 1].
        erase: Probability of filling one rectangle with the mean grey level or colour of the image, in
            [0, 1]. It covers 0.02 to 0.2 of the image, and one side is at most 3.3 times the other, before
            both are rounded to whole pixels.
        sides: Sides of the images, in pixels, each for an equal part of the epochs (progressive resizing,
            Howard 2018): ``(32, 48)`` starts with small images, which train faster, for networks that accept
            any size. Empty for the original side.
    """

    flip: float = 0.0
    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    erase: float = 0.0
    sides: Sequence[int] = ()

    def __post_init__(self) -> None:
        listed = isinstance(self.sides, Sequence) and not isinstance(self.sides, str)
        if not listed or any(not isinstance(side, int) or side < _SMALLEST_SIDE for side in self.sides):
            raise FERError(
                f"data.augment.sides={self.sides}: expected a list of sides of at least {_SMALLEST_SIDE} "
                "pixels, such as [32, 40, 48], or []"
            )
        for name, value in asdict(self).items():
            if name == "sides":
                continue
            high = _HIGHEST.get(name, 1)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value <= high:
                raise FERError(f"data.augment.{name}={value}: expected a number in [0, {high}]")

    @cached_property  # read in each step, and slow to compute
    def enabled(self) -> bool:
        """Return whether any change is on."""
        return any(asdict(self).values())

    def side(self, epoch: int, max_epochs: int) -> int | None:
        """Return the side of the images of an epoch (from 0), in pixels; None for the original side."""
        return self.sides[epoch * len(self.sides) // max_epochs] if self.sides else None

    def __call__(self, images: Tensor, generator: torch.Generator, *, side: int | None = None) -> Tensor:
        """Augment a batch.

        Args:
            images: ``(N, C, S, S)`` uint8 pixels, C 1 for grey and 3 for colour.
            generator: The source of all randomness, on the device of ``images``.
            side: Side of the result, in pixels; None for the side of ``images``.

        Returns:
            ``(N, C, side, side)`` float32 pixels in [0, 255], not rounded; ``images`` itself if every
            change is off.
        """
        if not self.enabled:
            return images
        # Uniform in [0, 1), one row per parameter; nothing is read back from the device.
        draws = torch.rand((12, len(images), 1, 1, 1), generator=generator, device=images.device)
        flip, dx, dy, angle, size, contrast, brightness, erase, area, aspect, left, top = draws

        images = images.float()
        if self.flip:
            images = torch.where(flip < self.flip, images.flip(-1), images)
        side = side or images.shape[-1]
        if self.shift or self.rotate or self.scale or side != images.shape[-1]:
            images = _warp(
                images,
                side=side,
                shift_x=self.shift * _signed(dx),
                shift_y=self.shift * _signed(dy),
                angle=math.radians(self.rotate) * _signed(angle),
                scale=1 + self.scale * _signed(size),
            )
        if self.contrast or self.brightness:
            dims = (-2, -1) if images.shape[1] == 1 else (-3, -2, -1)
            mean = images.mean(dim=dims, keepdim=True)
            gain = 1 + self.contrast * _signed(contrast)
            offset = 255 * self.brightness * _signed(brightness)
            images = (images - mean) * gain + mean + offset
        images = images.clamp(0, 255)  # interpolation may exceed the range by rounding
        if self.erase:
            hidden = _rectangles(images.shape[-1], area=area, aspect=aspect, left=left, top=top)
            mean = images.mean(dim=(-2, -1), keepdim=True)
            images = torch.where(hidden & (erase < self.erase), mean, images)
        return images


def to_augment(settings: object) -> Augment:
    """Build the augmentation from its settings by name; None changes nothing."""
    if isinstance(settings, Augment):
        return settings
    if not isinstance(settings, Mapping | None):
        raise FERError(f"data.augment={settings}: expected its settings, as in conf/data/fer2013.yaml")
    given = {str(key): value for key, value in (settings or {}).items() if key != "_target_"}
    takes = [field.name for field in fields(Augment)]
    for key, value in given.items():
        if key not in takes:
            raise FERError(f"data.augment.{key}={value}: no such setting; it takes {', '.join(takes)}")
    return Augment(**given)


def _signed(uniform: Tensor) -> Tensor:
    """Map numbers in [0, 1) to [-1, 1)."""
    return 2 * uniform - 1


def _warp(
    images: Tensor, *, side: int, shift_x: Tensor, shift_y: Tensor, angle: Tensor, scale: Tensor
) -> Tensor:
    """Scale and rotate about the centre, then shift; interpolate to a side.

    The grid is computed here because ``affine_grid`` multiplies matrices, for which autocast would use
    bfloat16, which is too coarse for coordinates.

    Args:
        images: ``(N, C, S, S)`` float32.
        side: Side of the result, in pixels.
        shift_x: ``(N, 1, 1, 1)`` shift to the right, as a fraction of the side.
        shift_y: ``(N, 1, 1, 1)`` downward shift, as a fraction of the side.
        angle: ``(N, 1, 1, 1)`` rotation, in radians.
        scale: ``(N, 1, 1, 1)`` factor, above 0.

    Returns:
        ``(N, C, side, side)`` float32, interpolated linearly.
    """
    # Coordinates of pixel centres; the image spans [-1, 1].
    centres = (2 * torch.arange(side, device=images.device) + 1) / side - 1
    x = centres - 2 * shift_x  # (N, 1, 1, side)
    y = centres[:, None] - 2 * shift_y  # (N, 1, side, 1)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    # (N, 1, side, side, 2): the source coordinates of each pixel.
    grid = torch.stack((cos * x + sin * y, cos * y - sin * x), dim=-1)
    return F.grid_sample(
        images, grid.squeeze(1), mode="bilinear", padding_mode="reflection", align_corners=False
    )


def _rectangles(size: int, *, area: Tensor, aspect: Tensor, left: Tensor, top: Tensor) -> Tensor:
    """Choose one rectangle in each image from uniform draws in [0, 1).

    Args:
        size: Side of the images, in pixels.
        area: ``(N, 1, 1, 1)`` draws for the area.
        aspect: ``(N, 1, 1, 1)`` draws for the logarithm of height / width.
        left: ``(N, 1, 1, 1)`` draws for the column, among those where the rectangle fits.
        top: ``(N, 1, 1, 1)`` draws for the row, among those where the rectangle fits.

    Returns:
        ``(N, 1, S, S)`` bool, True inside the rectangle.
    """
    low, high = _ERASED_AREA
    pixels = size**2 * (low + (high - low) * area)
    ratio = (math.log(_ERASED_MAX_ASPECT) * _signed(aspect)).exp()
    height = (pixels * ratio).sqrt().round().clamp(1, size)
    width = (pixels / ratio).sqrt().round().clamp(1, size)
    y0 = (top * (size - height + 1)).floor()
    x0 = (left * (size - width + 1)).floor()
    x = torch.arange(size, device=area.device)
    y = x[:, None]
    return (y >= y0) & (y < y0 + height) & (x >= x0) & (x < x0 + width)
