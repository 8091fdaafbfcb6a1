"""Batches by indexing: what a ``DataLoader`` is to files, for one tensor of images."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_NUM_INDEXED = 16  # batches indexed together, which is faster than one by one


class Batch(NamedTuple):
    """One batch.

    Attributes:
        images: ``(N, C, S, S)`` pixels in [0, 255], C 1 for grey and 3 for colour; uint8, or float32 after
            augmentation.
        labels: ``(N,)`` int64 classes.
        rows: ``(N,)`` int64 rows in the data set.
        seed: The seed of all randomness of this batch, a function of the run's seed, the epoch, the number
            of the batch and the rank of the process, so that a resumed run repeats it.
        targets: ``(N, num_classes)`` float32 soft targets that sum to 1, of the data set or of a batch
            transform; None if there are labels only.
        share: This process's part of a batch that several processes divide, times their number: the weight of
            its loss in the mean over processes that DDP computes. 1 in one process, and for equal parts.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor
    seed: int
    targets: Tensor | None = None
    share: float = 1.0


def batch_seed(*numbers: int) -> int:
    """Hash counters (seed, epoch, batch) to a 63-bit seed.

    Their number is hashed too: NumPy pads entropy with zeros, so an epoch and its batch 0 would agree.
    """
    state = np.random.SeedSequence((len(numbers), *numbers)).generate_state(1, np.uint64)
    return int(state[0] >> 1)


def batch_bounds(num_rows: int, batch_size: int, world_size: int) -> list[tuple[int, int]]:
    """Return first and last row of each batch that ``world_size`` processes divide.

    A remainder of fewer rows than two for each process joins the batch before it.
    """
    starts = list(range(0, num_rows, batch_size))
    if len(starts) > 1 and num_rows - starts[-1] < 2 * world_size:
        starts.pop()
    return list(zip(starts, [*starts[1:], num_rows], strict=True))


class BatchLoader:
    """Iterate over batches of some rows of a tensor of images.

    The order is a function of (seed, epoch). Lightning calls ``set_epoch`` through ``sampler``, and
    ``load_state_dict`` when it resumes in the middle of an epoch.

    Args:
        images: ``(M, 1, S, S)`` or ``(M, 3, S, S)`` uint8, the whole data set, on the device if it fits;
            colour images are faster if their memory format is channels-last.
        labels: ``(M,)`` int64, on the device of ``images``.
        rows: ``(N,)`` int64 rows to visit.
        batch_size: Rows per batch and process. Fewer remaining rows than two for each process join the batch
            before them, because batch normalisation cannot train on one image.
        shuffle: Whether to visit the rows in another order each epoch.
        seed: The seed of the order and of the batches.
        rank: The rank of this process under DDP.
        world_size: The number of processes, which divide each batch of ``world_size * batch_size`` rows among
            them as equally as can be, so that one process with such batches sees the same ones.
        targets: ``(M, num_classes)`` float32 soft targets, on the device of ``images``; None without.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        rows: Tensor,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        targets: Tensor | None = None,
    ) -> None:
        self.images = images
        self.labels = labels
        self.targets = targets
        self.rows = rows
        self.shuffle = shuffle
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.sampler = self  # Lightning looks for set_epoch here
        self.batch_sampler = None  # and then here
        self._bounds = batch_bounds(len(rows), batch_size * world_size, world_size)
        self._first = 0
        self._yielded = 0

    def __len__(self) -> int:
        return len(self._bounds)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order the next iteration follows."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches of this epoch that were already yielded."""
        return {"batches": self._yielded % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Make the next iteration, and only that one, start at a saved position."""
        self._first = state["batches"]

    def __iter__(self) -> Iterator[Batch]:
        order = self.rows
        if self.shuffle:
            generator = torch.Generator().manual_seed(batch_seed(self.seed, self.epoch))
            order = order[torch.randperm(len(order), generator=generator).to(order.device)]
        begin, self._first = self._first, 0
        for first in range(begin, len(self), _NUM_INDEXED):
            numbers = range(first, min(first + _NUM_INDEXED, len(self)))
            parts = [self._own_part(number) for number in numbers]
            rows = torch.cat([order[part] for part in parts])
            # index_select copies whole images, which is faster than indexing.
            images, labels = _select(self.images, rows), self.labels.index_select(0, rows)
            targets = None if self.targets is None else self.targets.index_select(0, rows)
            seeds = [batch_seed(self.seed, self.epoch, number, self.rank) for number in numbers]
            end = 0
            for number, seed, own in zip(numbers, seeds, parts, strict=True):
                part = slice(end, end := end + own.stop - own.start)
                self._yielded = number + 1
                target = None if targets is None else targets[part]
                begun, ended = self._bounds[number]
                share = (own.stop - own.start) * self.world_size / (ended - begun)
                yield Batch(images[part], labels[part], rows[part], seed, target, share)

    def _own_part(self, number: int) -> slice:
        """Return the rows of a batch, as a part of the epoch's order, that are this process's."""
        begin, end = self._bounds[number]
        first, last = (begin + (end - begin) * rank // self.world_size for rank in (self.rank, self.rank + 1))
        return slice(first, last)


def _select(images: Tensor, rows: Tensor) -> Tensor:
    """Copy some images; colours are copied as they are in memory, pixel by pixel."""
    if images.shape[1] == 1:
        return images.index_select(0, rows)
    return images.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)
