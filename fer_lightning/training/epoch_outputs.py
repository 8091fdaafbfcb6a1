"""Outputs of an epoch, collected for its metrics."""

import torch
from torch import Tensor

from fer_lightning.training.across_processes import join

_MOVED_TOGETHER = 16  # batches
_FIRST_ROWS = 1024  # initial rows of the buffers, which double when they are full


class EpochOutputs:
    """Logits and labels of an epoch so far, so that metrics are computed once per epoch and not in each step.

    They are moved to buffers that outlive the epoch. Small tensors kept from every step would fragment the
    memory that the gradients of the next step reuse, which doubles the time of the MLP's backward pass on a
    CPU (benchmarks/README.md).

    A checkpoint in the middle of an epoch includes them, so that a resumed epoch reports all of its images.
    """

    def __init__(self) -> None:
        self._latest: list[tuple[Tensor, Tensor, Tensor]] = []
        self._buffers: list[Tensor] = []  # of logits, labels, losses times images
        self._used = [0, 0, 0]
        self._last_added: int | None = None

    def add(self, logits: Tensor, labels: Tensor, loss: Tensor, batch_idx: int) -> None:
        """Keep one batch, once: an optimiser may compute the loss of a batch several times, as SAM does.

        Args:
            logits: ``(N, C)``.
            labels: ``(N,)`` int64.
            loss: The scalar mean.
            batch_idx: Number of the batch in the epoch.
        """
        if batch_idx == self._last_added:
            return
        self._last_added = batch_idx
        self._latest.append((logits.detach(), labels, loss.detach()))
        if len(self._latest) == _MOVED_TOGETHER:
            self._move()

    def clear(self) -> None:
        """Forget the epoch."""
        self._latest.clear()
        self._used = [0, 0, 0]
        self._last_added = None

    def _kept(self) -> list[Tensor]:
        """Return ``(N, C)`` logits, ``(N,)`` labels and ``(B,)`` losses times images."""
        self._move()
        return [buffer[:used] for buffer, used in zip(self._buffers, self._used, strict=True)]

    def _move(self) -> None:
        if not self._latest:
            return
        logits, labels, losses = zip(*self._latest, strict=True)
        self._latest.clear()
        # Multiplied one by one: a tensor of the sizes would have to be copied to a GPU, which waits for it.
        sums = [loss * len(part) for loss, part in zip(losses, labels, strict=True)]
        parts = [torch.cat(logits), torch.cat(labels), torch.stack(sums)]
        buffers = self._buffers or [part[:0] for part in parts]
        for place, (buffer, used, part) in enumerate(zip(buffers, self._used, parts, strict=True)):
            needed = used + len(part)
            if len(buffer) < needed or buffer.device != part.device:  # a checkpoint's are on the CPU
                grown = part.new_empty((max(needed, 2 * len(buffer), _FIRST_ROWS), *part.shape[1:]))
                grown[:used] = buffer[:used].to(part.device)
                buffers[place] = buffer = grown
            buffer[used:needed] = part
            self._used[place] = needed
        self._buffers = buffers

    def collect(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``(N, C)`` probs, ``(N,)`` labels and the scalar mean loss, of all processes of the run."""
        logits, labels, losses = join(self._kept())
        return logits.float().softmax(dim=1), labels, losses.sum() / len(labels)

    def state_dict(self) -> dict[str, Tensor]:
        """Copy the outputs so far, of all processes of the run; empty before the first batch."""
        if not (self._latest or any(self._used)):
            return {}
        kept = join(self._kept())
        return dict(zip(("logits", "labels", "losses"), map(torch.clone, kept), strict=True))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the saved state."""
        self.clear()
        if state:
            self._buffers = [state["logits"], state["labels"], state["losses"]]
            self._used = [len(buffer) for buffer in self._buffers]
