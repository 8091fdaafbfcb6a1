"""What holds for every backbone: each YAML in conf/model is tested by being there."""

from pathlib import Path

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fer_lightning.core.errors import FERError
from fer_lightning.models.resnet import ResNet
from tests.models.test_rnn import skip_what_this_processor_lacks

YAMLS = sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))
NUM_CLASSES = 7


def build(
    yaml: Path, image_size: int = 48, num_classes: int = NUM_CLASSES, channels: int = 1, **overrides: object
) -> nn.Module:
    config = OmegaConf.create(
        {"data": {"num_classes": num_classes, "image_size": image_size, "channels": channels}}
    )
    config.model = OmegaConf.merge(OmegaConf.load(yaml), overrides)
    torch.manual_seed(0)
    try:
        return instantiate(config.model)
    except InstantiationException as error:
        if "pip install" in str(error.__cause__):  # a YAML whose package is optional
            pytest.skip(str(error.__cause__))
        raise error.__cause__ from None


def faces(num: int, image_size: int = 48) -> Tensor:
    return torch.randn(num, 1, image_size, image_size, generator=torch.Generator().manual_seed(0))


def without_dropout(model: nn.Module) -> nn.Module:
    """Train with batch statistics (running ones lag many steps behind) but drop nothing."""
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.train()
    return model


every_model = pytest.mark.parametrize("yaml", YAMLS, ids=lambda path: path.stem)


def test_the_four_networks_of_the_paper_are_there() -> None:
    assert {"mlp", "cnn", "rnn", "resnet"} <= {path.stem for path in YAMLS}


@every_model
def test_data_channels_reach_the_first_layer(yaml: Path) -> None:
    model = build(yaml, channels=3).eval()
    with torch.inference_mode():
        assert model(torch.randn(2, 3, 48, 48)).shape == (2, NUM_CLASSES)


@every_model
@pytest.mark.parametrize(("image_size", "num_classes"), [(48, 7), (33, 3)])
def test_logits_have_a_row_per_image_and_a_column_per_class(
    yaml: Path, image_size: int, num_classes: int
) -> None:
    model = build(yaml, image_size, num_classes).eval()
    for num in (1, 2, 5):
        with torch.inference_mode():
            logits = model(faces(num, image_size))
        assert logits.shape == (num, num_classes)
        assert logits.isfinite().all()


@every_model
def test_an_image_gets_the_same_logits_alone_and_in_a_batch(yaml: Path) -> None:
    model = build(yaml).eval()
    images = faces(3)
    with torch.inference_mode():
        together, alone = model(images), torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


@every_model
@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
def test_every_parameter_receives_a_gradient(yaml: Path, bfloat16: bool) -> None:
    model = build(yaml).to(memory_format=torch.channels_last)
    skip_what_this_processor_lacks(model, bfloat16=bfloat16)
    images = faces(8).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        loss = cross_entropy(model(images), torch.arange(8) % NUM_CLASSES)
    loss.backward()
    # Residual branches that start at zero give the weights before them none, until a first step.
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        cross_entropy(model(images), torch.arange(8) % NUM_CLASSES).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@every_model
def test_every_model_learns_32_random_labels_by_heart(yaml: Path) -> None:
    model = without_dropout(build(yaml))
    images = faces(32)
    labels = torch.randint(NUM_CLASSES, (32,), generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(50):
        logits = model(images)
        if (logits.argmax(dim=1) == labels).all():
            return
        optimizer.zero_grad()
        cross_entropy(logits, labels).backward()
        optimizer.step()
    pytest.fail("50 steps were not enough")


@every_model
def test_images_of_another_shape_are_refused_with_both_shapes(yaml: Path) -> None:
    model = build(yaml)
    for shape in (
        (2, 1, 49, 49),
        (2, 1, 44, 48),
        (2, 1, 8, 8),
        (2, 3, 48, 48),
        (2, 48, 48),
        (1, 48, 48),
        (2, 2304),
    ):
        with pytest.raises(FERError, match=r"^images: expected \(N, 1, 48, 48\), got \(") as caught:
            model(torch.zeros(shape))
        assert str(shape) in str(caught.value)


@every_model
def test_smaller_images_pass_only_in_training_of_networks_that_pool(yaml: Path) -> None:
    model = build(yaml)
    if isinstance(model, ResNet):
        assert model(torch.zeros(2, 1, 32, 32)).shape == (2, NUM_CLASSES)
        model.eval()  # and by these in training alone: a face to predict has the size of the others
    with pytest.raises(FERError, match=r"^images: expected \(N, 1, 48, 48\), got \(2, 1, 32, 32\)"):
        model(torch.zeros(2, 1, 32, 32))


@every_model
def test_head_is_the_last_layer_and_can_be_replaced(yaml: Path) -> None:
    model = build(yaml).eval()
    assert isinstance(model.head, nn.Linear)
    assert model.head.out_features == NUM_CLASSES
    model.head = nn.Linear(model.head.in_features, 3)
    with torch.inference_mode():
        assert model(faces(2)).shape == (2, 3)


@every_model
def test_images_may_have_several_channels(yaml: Path) -> None:
    model = build(yaml, in_channels=3).eval()
    with torch.inference_mode():
        logits = model(faces(2).expand(-1, 3, -1, -1))
    assert logits.shape == (2, NUM_CLASSES)


@every_model
@pytest.mark.parametrize("name", ["num_classes", "image_size", "in_channels"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "7"])
def test_shared_arguments_out_of_range_are_refused_by_name(yaml: Path, name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"model.{name}={value}: expected a whole number of at least 1"):
        build(yaml, **{name: value})
