import pytest
import torch

from fer_lightning.core.errors import FERError
from fer_lightning.models.mlp import MLP


def test_hidden_gives_the_units_of_each_layer() -> None:
    model = MLP(num_classes=7, image_size=4, hidden=[5, 3], dropout=0.0)
    shapes = [tuple(p.shape) for p in model.parameters() if p.ndim == 2]
    assert shapes == [(5, 16), (3, 5), (7, 3)]


@pytest.mark.parametrize("hidden", [[], "512", 512, None])
def test_hidden_that_is_no_list_is_refused(hidden: object) -> None:
    with pytest.raises(FERError, match=r"model\.hidden=.*: expected a list of whole numbers"):
        MLP(num_classes=7, image_size=4, hidden=hidden, dropout=0.0)  # type: ignore[arg-type]


def test_a_bad_layer_is_named_by_its_position() -> None:
    with pytest.raises(FERError, match=r"model\.hidden\[1\]=0: expected a whole number of at least 1"):
        MLP(num_classes=7, image_size=4, hidden=[5, 0], dropout=0.0)


@pytest.mark.parametrize("dropout", [1.5, 1, -0.1, float("nan"), "0.5", True, None])
def test_dropout_out_of_range_is_refused(dropout: object) -> None:
    with pytest.raises(FERError, match=rf"model\.dropout={dropout}: expected a number in \[0, 1\)"):
        MLP(num_classes=7, image_size=4, hidden=[5], dropout=dropout)  # type: ignore[arg-type]


def test_dropout_acts_in_training_alone() -> None:
    model = MLP(num_classes=7, image_size=4, hidden=[64], dropout=0.5)
    images = torch.randn(3, 1, 4, 4)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))
