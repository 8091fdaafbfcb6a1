import pytest
import torch

from fer_lightning.core.errors import FERError
from fer_lightning.models.cnn import CNN


def build(image_size: int = 16, **overrides: object) -> CNN:
    sizes = {"widths": [4, 6, 8], "hidden": 5, "conv_dropout": 0.0, "dropout": 0.0}
    return CNN(num_classes=7, image_size=image_size, **(sizes | overrides))  # type: ignore[arg-type]


def test_each_stage_halves_the_picture() -> None:
    body = build().body
    maps = torch.zeros(2, 1, 16, 16)
    for width, side in ((4, 8), (6, 4), (8, 2)):
        stage, body = body[0], body[1:]
        maps = stage(maps)
        assert maps.shape == (2, width, side, side)


def test_the_smallest_picture_is_accepted_and_the_next_is_refused() -> None:
    assert build(8).eval()(torch.zeros(1, 1, 8, 8)).shape == (1, 7)
    with pytest.raises(FERError, match=r"model\.image_size=7: the 3 stages .* expected at least 8"):
        build(7)


@pytest.mark.parametrize("name", ["conv_dropout", "dropout"])
def test_each_dropout_is_checked_and_acts_in_training(name: str) -> None:
    with pytest.raises(FERError, match=rf"model\.{name}=1: expected a number in \[0, 1\)"):
        build(**{name: 1})
    torch.manual_seed(0)
    images = torch.randn(4, 1, 16, 16)
    without, with_dropout = build(), build(**{name: 0.9})
    assert torch.equal(without(images), without(images))
    assert not torch.equal(with_dropout(images), with_dropout(images))


@pytest.mark.parametrize(("name", "value"), [("widths", []), ("widths", [4, 0]), ("hidden", 0)])
def test_sizes_out_of_range_are_refused(name: str, value: object) -> None:
    with pytest.raises(FERError, match=rf"model\.{name}"):
        build(**{name: value})
