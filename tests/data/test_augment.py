import pytest
import torch
from torch import Tensor

from fer_lightning.core.errors import FERError
from fer_lightning.data.augment import Augment

EVERYTHING = {
    "flip": 0.5,
    "shift": 0.1,
    "rotate": 15,
    "scale": 0.2,
    "contrast": 0.3,
    "brightness": 0.2,
    "erase": 0.5,
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(num: int, size: int = 48) -> Tensor:
    return torch.randint(256, (num, 1, size, size), dtype=torch.uint8, generator=generator(99))


def ramp(num: int, size: int = 48) -> Tensor:
    """Make images whose grey level is the column, so that a level shows how far it moved."""
    return torch.arange(size, dtype=torch.uint8).expand(num, 1, size, size).contiguous()


def test_disabled_augmentation_returns_the_images() -> None:
    images = noise(3)
    augment = Augment()
    assert not augment.enabled
    assert augment(images, generator()) is images


@pytest.mark.parametrize("name", EVERYTHING)
def test_each_setting_changes_the_images(name: str) -> None:
    images = noise(16)
    augment = Augment(**{name: EVERYTHING[name]})
    assert augment.enabled
    changed = augment(images, generator())
    assert changed.dtype == torch.float32
    assert changed.shape == images.shape
    assert not torch.equal(changed, images.float())


@pytest.mark.parametrize("name", EVERYTHING)
def test_each_image_gets_different_parameters(name: str) -> None:
    face = noise(1)
    augment = Augment(**{name: 1 if name == "erase" else EVERYTHING[name]})
    changed = augment(face.expand(32, -1, -1, -1), generator())
    assert len(torch.unique(changed, dim=0)) == (2 if name == "flip" else 32)


def test_each_side_lasts_an_equal_part_of_the_epochs() -> None:
    augment = Augment(sides=[32, 40, 48])
    assert augment.enabled
    assert [augment.side(epoch, 30) for epoch in (0, 9, 10, 19, 20, 29)] == [32, 32, 40, 40, 48, 48]
    assert [augment.side(epoch, 2) for epoch in (0, 1)] == [32, 40]
    assert Augment(flip=0.5).side(0, 30) is None


def test_smaller_side_shows_the_whole_image() -> None:
    columns = torch.arange(48.0).expand(1, 1, 48, 48)
    small = Augment(sides=[24, 48])(columns, generator(), side=24)
    # Each of its pixels lies between two of the original's.
    torch.testing.assert_close(small, (2 * torch.arange(24.0) + 0.5).expand(1, 1, 24, 24))


def test_smaller_side_is_augmented_too() -> None:
    changed = Augment(**EVERYTHING, sides=[32, 48])(noise(16), generator(), side=32)
    assert changed.shape == (16, 1, 32, 32)
    assert len(torch.unique(changed, dim=0)) == 16


@pytest.mark.parametrize("sides", [[7, 48], [0.5], ["32"], "32", None, 48, {0: 32}])
def test_invalid_sides_are_refused(sides: object) -> None:
    with pytest.raises(FERError, match=r"data.augment.sides=.*: expected a list of sides of at least 8"):
        Augment(sides=sides)


def test_all_changes_keep_the_value_range_and_the_input() -> None:
    images = noise(64)
    before = images.clone()
    strongest = Augment(flip=1, shift=1, rotate=180, scale=0.9, contrast=1, brightness=1, erase=1)
    changed = strongest(images, generator())
    assert torch.equal(images, before)
    assert changed.isfinite().all()
    assert changed.min() >= 0
    assert changed.max() <= 255


def test_result_depends_only_on_the_generator() -> None:
    augment, images = Augment(**EVERYTHING), noise(8)
    first = augment(images, generator(1))
    assert torch.equal(first, augment(images, generator(1)))
    assert not torch.equal(first, augment(images, generator(2)))


def test_global_random_state_is_not_used() -> None:
    augment, images = Augment(**EVERYTHING), noise(8)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = augment(images, generator())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(first, augment(images, generator()))


def test_enabling_one_change_does_not_affect_the_others() -> None:
    images = noise(16)
    flipped = Augment(flip=0.5)(images, generator())
    also_erased = Augment(flip=0.5, erase=1)(images, generator())
    kept = also_erased == flipped
    assert 0.7 < kept.float().mean() < 1


def test_flip_mirrors_exactly_with_its_probability() -> None:
    images = noise(400, size=4)
    assert torch.equal(Augment(flip=1)(images, generator()), images.flip(-1).float())
    changed = Augment(flip=0.25)(images, generator())
    flipped = (changed == images.flip(-1)).flatten(1).all(dim=1)
    kept = (changed == images).flatten(1).all(dim=1)
    assert (flipped | kept).all()
    assert 70 < flipped.sum() < 130


def test_shift_stays_within_its_fraction_both_ways() -> None:
    changed = Augment(shift=0.125)(ramp(500), generator())
    moves = ramp(1).float() - changed  # positive: to the right
    inside = moves[..., 6:-6]  # reflection reaches no further
    torch.testing.assert_close(inside, inside[..., :1, :1].expand_as(inside), atol=1e-3, rtol=0)
    assert inside.abs().max() <= 6 + 1e-3
    assert inside.max() > 5.8
    assert inside.min() < -5.8


def test_vertical_and_horizontal_shifts_are_independent() -> None:
    augment = Augment(shift=0.125)
    sideways = (ramp(500).float() - augment(ramp(500), generator()))[:, 0, 24, 24]
    down = (ramp(500).float() - augment(ramp(500).mT, generator()).mT)[:, 0, 24, 24]
    assert 5.8 < down.max() <= 6 + 1e-3
    assert -6 - 1e-3 <= down.min() < -5.8
    assert torch.corrcoef(torch.stack((sideways, down)))[0, 1].abs() < 0.2


def test_outside_pixels_are_reflected() -> None:
    changed = Augment(shift=1)(ramp(200), generator())
    assert changed.min() >= 0
    assert changed.max() <= 47
    assert (changed.std(dim=-1) > 5).all()  # a border repeated or blackened would leave flat rows


def test_rotation_stays_within_its_angle_both_ways() -> None:
    changed = Augment(rotate=20)(ramp(500), generator())[:, 0]
    across = changed[:, 24, 30] - changed[:, 24, 18]  # 12 cos(angle)
    down = changed[:, 30, 24] - changed[:, 18, 24]  # 12 sin(angle)
    angles = torch.rad2deg(torch.atan2(down, across))
    assert 19 < angles.max() <= 20.01
    assert -20.01 <= angles.min() < -19
    centre = changed[:, 23:25, 23:25].mean(dim=(1, 2))
    torch.testing.assert_close(centre, torch.full_like(centre, 23.5))


def test_scale_stays_within_its_fraction() -> None:
    changed = Augment(scale=0.25)(ramp(500), generator())[:, 0]
    factors = 8 / (changed[:, 24, 28] - changed[:, 24, 20])
    assert 1.24 < factors.max() <= 1.2501
    assert 0.7499 <= factors.min() < 0.76
    centre = changed[:, 23:25, 23:25].mean(dim=(1, 2))
    torch.testing.assert_close(centre, torch.full_like(centre, 23.5))


def test_contrast_keeps_the_mean_and_scales_the_differences() -> None:
    images = 100 + noise(200) // 5  # never clipped
    changed = Augment(contrast=0.5)(images, generator())
    torch.testing.assert_close(changed.mean(dim=(1, 2, 3)), images.float().mean(dim=(1, 2, 3)))
    gains = changed.flatten(1).std(dim=1) / images.float().flatten(1).std(dim=1)
    assert 0.5 <= gains.min() < 0.52
    assert 1.48 < gains.max() <= 1.5


def test_brightness_adds_the_same_to_every_pixel() -> None:
    images = 100 + noise(200) // 5
    offsets = Augment(brightness=0.2)(images, generator()) - images
    torch.testing.assert_close(offsets, offsets[..., :1, :1].expand_as(offsets))
    assert 50 < offsets.max() <= 51
    assert -51 <= offsets.min() < -50


def test_erasing_fills_one_rectangle_with_the_mean_grey() -> None:
    images = 255 * (noise(500) % 2)  # no pixel is the mean grey
    changed = Augment(erase=1)(images, generator())
    for image, after in zip(images[:, 0].float(), changed[:, 0], strict=True):
        hidden = after != image
        rows, columns = hidden.any(dim=1).nonzero(), hidden.any(dim=0).nonzero()
        height, width = int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
        assert hidden.sum() == height * width
        torch.testing.assert_close(after[hidden], image.mean().expand(height * width))
        assert (height + 0.5) * (width + 0.5) >= 0.02 * 48**2
        assert (height - 0.5) * (width - 0.5) <= 0.2 * 48**2
        assert max(height, width) - 0.5 <= 3.3 * (min(height, width) + 0.5)


def test_erasing_reaches_every_corner_with_its_probability() -> None:
    images = noise(2000, size=16)
    hidden = Augment(erase=0.5)(images, generator()) != images
    assert hidden.any(dim=0).all()
    assert 900 < hidden.flatten(1).any(dim=1).sum() < 1100


def test_coordinates_stay_exact_under_autocast() -> None:
    augment, images = Augment(**EVERYTHING), noise(8)
    with torch.autocast("cpu", torch.bfloat16):
        changed = augment(images, generator())
    assert torch.equal(changed, augment(images, generator()))


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize("value", [-0.1, 181, float("nan"), "0.5", True, None])
def test_invalid_augment_settings_are_named(name: str, value: object) -> None:
    with pytest.raises(FERError, match=rf"^data\.augment\.{name}={value}: expected a number in \[0, "):
        Augment(**{name: value})  # type: ignore[arg-type]
