from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from fer_lightning.core.errors import FERError
from fer_lightning.models.face_resnet import FaceBlock, face_body
from fer_lightning.models.resnet import ResNet


def build(**overrides: Any) -> ResNet:
    settings: dict[str, Any] = {"image_size": 48, "depth": 15, "stem": "small"}
    return ResNet(num_classes=7, **(settings | overrides))


@pytest.mark.parametrize("training", [True, False])
def test_a_block_without_the_parts_is_that_of_torchvision(training: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = FaceBlock(8, squeeze_excitation=False, drop=0.0), BasicBlock(8, 8)
    theirs.load_state_dict(ours.state_dict())  # the same names, too
    maps = torch.randn(3, 8, 6, 6)
    assert torch.equal(ours.train(training)(maps), theirs.train(training)(maps))


def test_a_left_out_branch_leaves_the_input_and_the_others_are_scaled() -> None:
    torch.manual_seed(0)
    block = FaceBlock(8, squeeze_excitation=False, drop=0.5)
    nn.init.ones_(block.bn2.weight)
    maps = torch.randn(64, 8, 6, 6)
    branch = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(maps)))))
    outputs = block(maps)
    left_out = torch.tensor([torch.equal(out, each.relu()) for out, each in zip(outputs, maps, strict=True)])
    assert 16 <= int(left_out.sum()) <= 48
    kept = ~left_out
    torch.testing.assert_close(outputs[kept], (maps + 2 * branch)[kept].relu())
    evaluated = block.eval()(maps)
    assert torch.equal(evaluated, block.eval()(maps))
    assert not any(torch.equal(out, each.relu()) for out, each in zip(evaluated, maps, strict=True))


def test_later_blocks_are_left_out_more_often() -> None:
    body, _ = face_body(1, stochastic_depth=0.4)
    drops = [block.drop.p for block in body if isinstance(block, FaceBlock)]
    assert drops == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_squeeze_and_excitation_scales_each_channel_of_the_branch() -> None:
    torch.manual_seed(0)
    block = FaceBlock(32, squeeze_excitation=True, drop=0.0).eval()
    maps = torch.randn(2, 32, 6, 6)
    branch = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(maps)))))
    scaled = block.recalibrate(branch)
    factors = scaled / branch
    assert factors.shape == maps.shape
    torch.testing.assert_close(factors, factors[..., :1, :1].expand_as(factors), rtol=1e-3, atol=1e-4)
    assert bool(((factors > 0) & (factors < 1)).all())
    torch.testing.assert_close(block(maps), (scaled + maps).relu())


@pytest.mark.parametrize(("width", "channels"), [(0.5, 128), (1.0, 256), (1.3, 336), (2.0, 512)])
def test_width_scales_the_channels(width: float, channels: int) -> None:
    assert build(width=width).head.in_features == channels
    assert build(width=width).eval()(torch.randn(2, 1, 48, 48)).shape == (2, 7)


def test_width_one_has_the_weights_that_it_always_had() -> None:
    assert sum(weights.numel() for weights in build().parameters()) == 3_388_583
    assert not any("recalibrate" in name for name in build().state_dict())
    assert any("recalibrate" in name for name in build(squeeze_excitation=True).state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, r"model\.width=0: expected a number in \[0\.125, 8\]"),
        ({"width": True}, r"model\.width=True: expected a number"),
        ({"squeeze_excitation": 1}, r"model\.squeeze_excitation=1: expected true or false"),
        ({"stochastic_depth": 1.0}, r"model\.stochastic_depth=1\.0: expected a number in \[0, 1\)"),
        ({"width": 2, "depth": 18}, r"model\.width=2: .* set model\.depth=15"),
        ({"squeeze_excitation": True, "depth": 34}, r"model\.squeeze_excitation=True: .* model\.depth=15"),
        ({"stochastic_depth": 0.1, "depth": 50}, r"model\.stochastic_depth=0\.1: .* model\.depth=15"),
    ],
)
def test_parts_that_cannot_be_had_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(FERError, match=message):
        build(**settings)
