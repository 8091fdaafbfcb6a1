import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models._api import WeightsEnum

from fer_lightning.core.errors import FERError
from fer_lightning.models.resnet import ResNet, fold_grey

FILE = "resnet18-f37072fd.pth"


def build(**overrides: Any) -> ResNet:
    settings: dict[str, Any] = {"image_size": 48, "depth": 18, "stem": "imagenet", "pretrained": False}
    return ResNet(num_classes=7, **(settings | overrides))


@pytest.fixture(scope="module")
def published() -> nn.Module:
    """Replaces torchvision's pretrained network."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18()
    model(torch.randn(4, 3, 48, 48))  # moves the running statistics
    return model.eval()


@pytest.fixture(scope="module")
def file(published: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / FILE
    torch.save(published.state_dict(), path)
    return path


def features(model: nn.Module, images: Tensor) -> Tensor:
    """The activations before the classifier."""
    found: list[Tensor] = []
    hook = model.avgpool.register_forward_hook(
        lambda _module, _inputs, output: found.append(output.flatten(1))
    )
    with torch.inference_mode():
        model(images)
    hook.remove()
    return found[0]


def test_a_folded_kernel_sees_grey_as_the_colour_kernel_saw_it_repeated() -> None:
    kernel, grey = torch.randn(5, 3, 7, 7), torch.randn(2, 1, 20, 20)
    in_colour = nn.functional.conv2d(grey.expand(-1, 3, -1, -1), kernel, stride=2, padding=3)
    torch.testing.assert_close(nn.functional.conv2d(grey, fold_grey(kernel), stride=2, padding=3), in_colour)


def test_pretrained_features_of_a_grey_face_equal_those_of_torchvision(
    published: nn.Module, file: Path
) -> None:
    faces = torch.randn(2, 1, 48, 48)
    model = build(pretrained=str(file)).eval()
    expected = features(published, faces.expand(-1, 3, -1, -1))
    torch.testing.assert_close(features(model.body, faces), expected, atol=1e-4, rtol=1e-4)


def test_pretrained_colour_images_keep_the_kernel(published: nn.Module, file: Path) -> None:
    model = build(pretrained=str(file), in_channels=3)
    assert torch.equal(model.body.conv1.weight, published.conv1.weight)


def test_small_stem_is_initialised_and_the_rest_is_pretrained(published: nn.Module, file: Path) -> None:
    model = build(pretrained=str(file), stem="small", in_channels=2)
    assert model.body.conv1.weight.shape == (64, 2, 3, 3)
    assert torch.equal(model.body.bn1.running_mean, torch.zeros(64))
    assert torch.equal(model.body.layer1[0].conv1.weight, published.layer1[0].conv1.weight)
    assert torch.equal(model.body.layer4[1].bn2.running_var, published.layer4[1].bn2.running_var)


def test_the_small_stem_keeps_the_picture_at_full_size() -> None:
    maps: list[Tensor] = []
    model = build(stem="small", image_size=16).eval()
    model.body.layer1.register_forward_hook(lambda _module, _inputs, output: maps.append(output))
    model(torch.zeros(1, 1, 16, 16))
    assert maps[0].shape == (1, 64, 16, 16)


@pytest.mark.parametrize(("depth", "features"), [(18, 512), (34, 512), (50, 2048)])
def test_each_depth_ends_in_its_own_number_of_features(depth: int, features: int) -> None:
    assert build(depth=depth).head.in_features == features


def test_our_own_depth_has_fifteen_layers_and_ends_in_maps_of_six_pixels() -> None:
    model = build(depth=15, stem="small").eval()
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == 15
    maps: list[Tensor] = []
    layers[-2].register_forward_hook(lambda _module, _inputs, output: maps.append(output))
    assert model(torch.zeros(2, 1, 48, 48)).shape == (2, 7)
    assert maps[0].shape == (2, 256, 6, 6)


def test_weights_older_than_the_step_counters_are_accepted(published: nn.Module, tmp_path: Path) -> None:
    old = {name: t for name, t in published.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / FILE)
    model = build(pretrained=str(tmp_path / FILE))
    assert torch.equal(model.body.bn1.running_mean, published.bn1.running_mean)


def test_pretrained_true_takes_what_torchvision_publishes(
    published: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_args, **_kwargs: published.state_dict())
    assert torch.equal(build(pretrained=True).body.bn1.running_mean, published.bn1.running_mean)


@pytest.mark.parametrize(
    "error",
    [urllib.error.URLError("no route"), TimeoutError("timed out"), RuntimeError("invalid hash value")],
)
def test_weights_that_cannot_be_fetched_name_the_ways_out(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise error

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    with pytest.raises(FERError) as caught:
        build(pretrained=True)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for part in (
        f"https://download.pytorch.org/models/{FILE}",
        str(error),
        "model.pretrained=false",
        f"PATH/{FILE}",
    ):
        assert part in sentence


def _missing(path: Path) -> None:
    pass


def _text(path: Path) -> None:
    path.write_text("<html>not found</html>")


def _empty(path: Path) -> None:
    path.touch()


def _truncated(path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), path)
    path.write_bytes(path.read_bytes()[:100_000])


def _folder(path: Path) -> None:
    path.mkdir()


def _hostile(path: Path) -> None:
    torch.save({"conv1.weight": Path("anything but a tensor")}, path)


def _list(path: Path) -> None:
    torch.save([torch.zeros(3)], path)


def _another_depth(path: Path) -> None:
    torch.save(torchvision.models.resnet34().state_dict(), path)


def _another_shape(path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict() | {"bn1.weight": torch.zeros(3)}, path)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (_missing, "no such file"),
        (_text, "not a file of weights"),
        (_empty, "not a file of weights"),
        (_truncated, "not a file of weights"),
        (_folder, "not a file of weights"),
        (_hostile, "not a file of weights"),
        (_list, "not the weights of torchvision's ResNet-18"),
        (_another_depth, "not the weights of torchvision's ResNet-18"),
        (_another_shape, "not the weights of torchvision's ResNet-18"),
    ],
)
def test_a_wrong_file_is_refused_with_the_right_ones_name(write: Any, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(FERError) as caught:
        build(pretrained=str(path))
    sentence = str(caught.value)
    assert sentence.startswith(f"model.pretrained={path}: {reason}")
    assert sentence.endswith(f"expected {FILE} from https://download.pytorch.org/models/{FILE}")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"depth": 101}, "model.depth=101: expected one of: 15, 18, 34, 50"),
        ({"depth": 15}, "model.stem=imagenet: model.depth=15 is for small images; set model.stem=small too"),
        (
            {"depth": 15, "stem": "small", "pretrained": True},
            "model.pretrained=true: no ImageNet weights exist for model.depth=15, "
            "as in experiment=improved_resnet; "
            "set model.depth=34 too",
        ),
        ({"stem": "large"}, "model.stem=large: expected one of: imagenet, small"),
        ({"pretrained": None}, "model.pretrained=None: expected true, false or the path"),
        ({"pretrained": ""}, "model.pretrained=: expected true, false or the path"),
        ({"pretrained": 1}, "model.pretrained=1: expected true, false or the path"),
        (
            {"pretrained": True, "in_channels": 2},
            "model.in_channels=2: pretrained weights take images of 1 or 3",
        ),
    ],
)
def test_settings_out_of_range_are_refused(overrides: dict[str, Any], expected: str) -> None:
    with pytest.raises(FERError) as caught:
        build(**overrides)
    assert str(caught.value).startswith(expected)
