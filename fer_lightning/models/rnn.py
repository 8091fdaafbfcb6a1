"""The recurrent network of the paper's sections 4.2 and 6.4: an image read row by row.

Karnati et al., "Deep Learning for Facial Expression Recognition". The text gives the layer sizes and the
kind of recurrent cell only in Figure 3, which is not available, so both are ours.
"""

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from fer_lightning.core.errors import FERError
from fer_lightning.models import Backbone, check_choice, check_count, check_dropout, check_images

_CELLS: dict[str, type[nn.RNN] | type[nn.GRU] | type[nn.LSTM]] = {
    "rnn": nn.RNN,
    "gru": nn.GRU,
    "lstm": nn.LSTM,
}


class RNN(Backbone):
    """Recurrent layers over the rows from top to bottom; a linear head reads the last layer's final state.

    Args:
        num_classes: Number of logits.
        image_size: Side of the images, in pixels.
        cell: ``rnn`` (tanh), ``gru`` or ``lstm``.
        hidden: Units of each layer and direction.
        num_layers: Number of stacked layers.
        bidirectional: Whether a second set of layers reads from bottom to top.
        dropout: Probability of zeroing a unit between layers and before the head, in [0, 1).
        rows_per_step: Rows in each step, a divisor of ``image_size``. Twice as many rows take half the steps.
        in_channels: Channels of the images; a step has its rows of every channel.

    Raises:
        FERError: If an argument is out of range.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        image_size: int,
        cell: str = "lstm",
        hidden: int = 128,
        num_layers: int = 2,
        bidirectional: bool = False,
        dropout: float = 0.3,
        rows_per_step: int = 1,
        in_channels: int = 1,
    ) -> None:
        super().__init__()
        check_count("num_classes", num_classes)
        check_count("image_size", image_size)
        check_count("in_channels", in_channels)
        check_choice("cell", cell, _CELLS)
        check_count("hidden", hidden)
        check_count("num_layers", num_layers)
        check_choice("bidirectional", bidirectional, (True, False))
        check_dropout("dropout", dropout)
        check_count("rows_per_step", rows_per_step)
        if image_size % rows_per_step:
            raise FERError(
                f"model.rows_per_step={rows_per_step}: {image_size} rows of an image cannot be divided by "
                f"it; expected a divisor of {image_size}"
            )
        self.image_size, self.in_channels = image_size, in_channels
        self.num_steps = image_size // rows_per_step

        self.num_directions = 2 if bidirectional else 1
        self.step_size = in_channels * rows_per_step * image_size  # pixels
        width = self.num_directions * hidden
        # One module per layer: cuDNN would set up the random state of a stack's own dropout again whenever
        # the generator is seeded, which the classifier does each step.
        self.body = nn.ModuleList(
            _CELLS[cell](self.step_size if number == 0 else width, hidden, bidirectional=bidirectional)
            for number in range(num_layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(N, C, S, S)`` normalised float images to ``(N, num_classes)`` logits.

        Raises:
            FERError: If the images have another shape.
        """
        check_images(images, in_channels=self.in_channels, image_size=self.image_size)
        rows = images.transpose(1, 2).reshape(images.shape[0], self.num_steps, self.step_size)
        # Under autocast cuDNN's layers compute in float16 whatever dtype was asked for, and nothing scales
        # their loss; on a GPU they run in float32 (TF32 inside).
        with torch.autocast("cuda", enabled=False) if rows.is_cuda else nullcontext():
            last = self._read(rows.float() if rows.is_cuda else rows)
        logits: Tensor = self.head(self.dropout(last))
        return logits

    def _read(self, rows: Tensor) -> Tensor:
        """Map ``(N, T, step_size)`` rows to the last layer's final state ``(N, directions * hidden)``."""
        sequence = rows.transpose(0, 1)  # (T, N, step_size)
        for number, layer in enumerate(self.body):
            sequence, state = layer(sequence if number == 0 else self.dropout(sequence))
        hidden = state[0] if isinstance(state, tuple) else state  # an LSTM also returns its cell state
        return torch.cat(tuple(hidden), dim=1)
