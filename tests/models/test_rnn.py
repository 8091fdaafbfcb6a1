import pytest
import torch
from torch import nn

from fer_lightning.core.errors import FERError
from fer_lightning.models.rnn import RNN


def build(**overrides: object) -> RNN:
    settings = {"cell": "lstm", "hidden": 6, "num_layers": 2, "bidirectional": False, "dropout": 0.0}
    torch.manual_seed(0)
    return RNN(num_classes=7, image_size=8, **(settings | overrides))  # type: ignore[arg-type]


def skip_what_this_processor_lacks(model: nn.Module, *, bfloat16: bool) -> None:
    """Skip where torch has no LSTM in bf16, which wants AVX-512."""
    lstm = any(isinstance(layer, nn.LSTM) for layer in model.modules())
    if bfloat16 and lstm and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("torch has no bf16 LSTM for a processor without AVX-512")


@pytest.mark.parametrize(("cell", "layer"), [("rnn", nn.RNN), ("gru", nn.GRU), ("lstm", nn.LSTM)])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_every_cell_trains_in_both_directions_and_precisions(
    cell: str, layer: type[nn.Module], bidirectional: bool, bfloat16: bool
) -> None:
    model = build(cell=cell, bidirectional=bidirectional, dropout=0.1)
    skip_what_this_processor_lacks(model, bfloat16=bfloat16)
    assert all(isinstance(part, layer) for part in model.body)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = model(torch.randn(3, 1, 8, 8))
    assert logits.shape == (3, 7)
    logits.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_a_step_is_a_row_read_from_top_to_bottom() -> None:
    model = build(num_layers=1).eval()
    face = torch.randn(1, 1, 8, 8)
    by_hand = torch.zeros(1, 6), torch.zeros(1, 6)
    cell = nn.LSTMCell(8, 6)
    cell.load_state_dict({name.removesuffix("_l0"): p for name, p in model.body[0].state_dict().items()})
    for row in face[0, 0]:
        by_hand = cell(row[None], by_hand)
    torch.testing.assert_close(model(face), model.head(by_hand[0]))


def test_a_step_can_bring_several_rows_of_every_channel() -> None:
    model = build(num_layers=1, rows_per_step=4, in_channels=2).eval()
    face = torch.randn(1, 2, 8, 8)
    by_hand = torch.zeros(1, 6), torch.zeros(1, 6)
    cell = nn.LSTMCell(4 * 2 * 8, 6)
    cell.load_state_dict({name.removesuffix("_l0"): p for name, p in model.body[0].state_dict().items()})
    for rows in (face[0, :, :4], face[0, :, 4:]):
        by_hand = cell(rows.transpose(0, 1).reshape(1, -1), by_hand)
    torch.testing.assert_close(model(face), model.head(by_hand[0]))


def test_the_second_direction_reads_from_bottom_to_top() -> None:
    model = build(cell="gru", num_layers=1, bidirectional=True).eval()
    weights = model.body[0].state_dict()
    model.body[0].load_state_dict({name: weights[name.removesuffix("_reverse")] for name in weights})
    head = model.head.weight.detach()
    model.head.weight = nn.Parameter(torch.cat((head[:, 6:], head[:, :6]), dim=1))
    face = torch.randn(2, 1, 8, 8)
    mirrored = model(face.flip(-2))
    model.head.weight = nn.Parameter(head)
    torch.testing.assert_close(mirrored, model(face))


def test_one_layer_with_dropout_drops_before_the_head_without_a_warning() -> None:
    model = build(num_layers=1, dropout=0.5)
    images = torch.randn(8, 1, 8, 8)
    assert not torch.equal(model(images), model(images))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("cell", "transformer", "expected one of: rnn, gru, lstm"),
        ("hidden", 0, "expected a whole number"),
        ("num_layers", 0, "expected a whole number"),
        ("bidirectional", "yes", "expected one of: True, False"),
        ("dropout", 1.5, "expected a number in"),
        ("rows_per_step", 0, "expected a whole number"),
        ("rows_per_step", 3, "8 rows of an image cannot be divided by it; expected a divisor of 8"),
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: object, expected: str) -> None:
    with pytest.raises(FERError, match=rf"model\.{name}={value}: {expected}"):
        build(**{name: value})
