import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fer_lightning.models.cnn import CNN
from fer_lightning.models.mlp import MLP
from fer_lightning.models.resnet import ResNet
from fer_lightning.models.rnn import RNN
from fer_lightning.report.architecture import condense, layers_of

IMAGE_SHAPE = (1, 48, 48)


def networks():
    shape = {"num_classes": 7, "image_size": 48}
    return {
        "mlp": MLP(**shape, hidden=[512, 256], dropout=0.5),
        "cnn": CNN(**shape, widths=[32, 64, 128, 256], hidden=256, conv_dropout=0.2, dropout=0.5),
        "rnn": RNN(**shape, cell="lstm", hidden=128, num_layers=2, bidirectional=False, dropout=0.3),
        "resnet": ResNet(**shape, depth=34, stem="imagenet", pretrained=False),
    }


@pytest.fixture(scope="module")
def listed():
    return {name: (network, layers_of(network, IMAGE_SHAPE)) for name, network in networks().items()}


@pytest.mark.parametrize("name", ["mlp", "cnn", "rnn", "resnet"])
def test_every_parameter_is_counted_in_exactly_one_layer(listed, name):
    network, layers = listed[name]

    assert sum(layer.num_parameters for layer in layers) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet"])
def test_multiply_adds_are_half_of_torch_flop_count(listed, name):
    network, layers = listed[name]

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, *IMAGE_SHAPE))

    assert sum(layer.multiply_adds for layer in layers) == counter.get_total_flops() / 2


def test_cnn_layers_equal_those_counted_by_hand(listed):
    layers = listed["cnn"][1]

    rows = [(layer.kind, layer.output_shape, layer.num_parameters, layer.multiply_adds) for layer in layers]
    assert rows[:3] == [
        ("4\N{MULTIPLICATION SIGN}4 convolution, stride 2", (32, 24, 24), 16 * 32 + 64, 16 * 32 * 24 * 24),
        ("3\N{MULTIPLICATION SIGN}3 convolution", (64, 24, 24), 9 * 32 * 64 + 128, 9 * 32 * 64 * 24 * 24),
        ("2\N{MULTIPLICATION SIGN}2 max-pooling, stride 2", (64, 12, 12), 0, 0),
    ]
    assert layers[0].followed_by == ("batch norm", "ReLU")
    assert rows[-1] == ("linear", (7,), 256 * 7 + 7, 256 * 7)


@pytest.mark.parametrize(("cell", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_layer_counts_each_weight_once_per_step(cell, gates, bidirectional):
    network = RNN(
        num_classes=7,
        image_size=12,
        cell=cell,
        hidden=5,
        num_layers=2,
        bidirectional=bidirectional,
        dropout=0.3,
    )

    first, second, _ = layers_of(network, (1, 12, 12))

    directions = 1 + bidirectional
    assert first.multiply_adds == 12 * directions * gates * 5 * (12 + 5)
    assert second.multiply_adds == 12 * directions * gates * 5 * (5 * directions + 5)
    assert first.output_shape == second.output_shape == (12, 5 * directions)
    assert first.kind == second.kind == cell.upper() + (", bidirectional" if bidirectional else "")


def test_stacked_recurrent_layers_have_no_batch_dimension():
    stacked = nn.LSTM(4, 5, num_layers=2, batch_first=True)

    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = stacked

        def forward(self, images):
            return self.body(images[:, 0])[0]

    (layer,) = layers_of(Sequence(), (1, 6, 4))
    assert (layer.kind, layer.output_shape) == ("LSTM, 2 layers", (6, 5))
    assert layer.multiply_adds == 6 * 4 * 5 * (4 + 5 + 5 + 5)


def test_linear_and_grouped_convolution_count_every_position():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Conv2d(4, 8, 3, groups=2, padding=1)
            self.project = nn.Linear(6, 3)

        def forward(self, images):
            return self.project(self.mix(images))

    mix, project = layers_of(Tokens(), (4, 6, 6))

    assert mix.multiply_adds == 8 * 2 * 9 * 36
    assert project.multiply_adds == 6 * 3 * 8 * 6
    assert mix.kind == "3\N{MULTIPLICATION SIGN}3 convolution, 2 groups"


def test_shared_layer_counts_its_weights_once():
    layer = nn.Linear(4, 4, bias=False)

    layers = layers_of(nn.Sequential(layer, layer), (4,))

    assert [row.multiply_adds for row in layers] == [16, 16]
    assert [row.num_parameters for row in layers] == [16, 0]


def test_unused_parameters_are_listed():
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 2, bias=False)
            self.unused = nn.Linear(3, 3, bias=False)

        def forward(self, images):
            return self.head(images)

    layers = layers_of(Lazy(), (4,))

    assert [(row.name, row.num_parameters) for row in layers] == [("head", 8), ("elsewhere", 9)]


def test_layers_of_does_not_change_the_network(listed):
    network = MLP(num_classes=7, image_size=12, hidden=[8], dropout=0.5).train()
    before = {name: weight.clone() for name, weight in network.state_dict().items()}

    layers_of(network, (1, 12, 12))

    assert network.training
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())


def test_condense_sums_equal_neighbours(listed):
    layers = listed["resnet"][1]

    condensed = condense(layers)

    count, first = condensed[2]
    assert (count, first.kind, first.output_shape) == (
        6,
        "3\N{MULTIPLICATION SIGN}3 convolution",
        (64, 12, 12),
    )
    assert first.multiply_adds == 6 * 9 * 64 * 64 * 12 * 12
    assert sum(count for count, _ in condensed) == len(layers)
    assert sum(layer.num_parameters for _, layer in condensed) == sum(row.num_parameters for row in layers)


def test_layer_with_unknown_cost_is_marked_as_not_counted():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(4))

        def forward(self, values):
            return values * self.factor

    layers = layers_of(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), Scale()), (4,))

    assert [(layer.kind, layer.counted) for layer in layers] == [("linear", True), ("Scale", False)]


def test_work_of_a_submodule_is_not_counted_twice():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4, bias=False)
            self.weight = nn.Parameter(torch.ones(2, 4))

        def forward(self, values):
            return self.inner(values) @ self.weight.T

    layers = layers_of(Block(), (4,))

    assert [(layer.name, layer.multiply_adds) for layer in layers] == [("inner", 16), ("", 8)]
