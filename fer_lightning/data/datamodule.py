"""The whole data set as one uint8 tensor, cut into batches by indexing."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor

from fer_lightning.core.errors import FERError
from fer_lightning.data.augment import Augment
from fer_lightning.data.cache import load_faces
from fer_lightning.data.faces import Faces, Source
from fer_lightning.data.splits import Protocol, Rows, make_splits, without_leaks

log = logging.getLogger(__name__)

_COUNTED_AT_ONCE = 256  # faces
_AT_ONCE = 16  # batches cut out together: alone, each would find the interpreter's code gone from the cache


class Batch(NamedTuple):
    """One batch.

    Attributes:
        images: ``(N, 1, S, S)`` grey levels in [0, 255]; uint8, or float32 once augmented.
        labels: ``(N,)`` int64.
        rows: ``(N,)`` int64 positions in the data set.
        seed: Of everything random that happens to this batch: a function of the run's seed, the epoch and the
            batch's number, so that a resumed run repeats it.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor
    seed: int


def batch_seed(*numbers: int) -> int:
    """Hash some counters (seed, epoch, batch) to a 63-bit seed.

    Their number is hashed too: numpy fills entropy up with zeros, and an epoch would agree with its batch 0.
    """
    state = np.random.SeedSequence((len(numbers), *numbers)).generate_state(1, np.uint64)
    return int(state[0] >> 1)


class BatchLoader:
    """Batches of some rows of a tensor of faces; what a ``DataLoader`` is to files.

    Order is a function of (seed, epoch) alone. Lightning calls ``set_epoch`` through ``sampler``, and
    ``load_state_dict`` when an epoch is resumed in its middle.

    Args:
        images: ``(M, 1, S, S)`` uint8, the whole data set, on the device if it fits.
        labels: ``(M,)`` int64, beside it.
        rows: ``(N,)`` int64, the rows to visit.
        batch_size: Rows a batch; a single left-over row joins the batch before it, because batch
            normalisation cannot train on one.
        shuffle: Visit the rows in a new order each epoch.
        seed: Of order and batches.
        rank: Of this process under DDP, so that no two draw alike.
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
    ) -> None:
        self.images = images
        self.labels = labels
        self.rows = rows
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.epoch = 0
        self.sampler = self  # where Lightning looks for set_epoch
        self.batch_sampler = None  # and where it looks next
        starts = list(range(0, len(rows), batch_size))
        if len(starts) > 1 and len(rows) - starts[-1] == 1:
            starts.pop()
        self._bounds = list(zip(starts, [*starts[1:], len(rows)], strict=True))
        self._first = 0
        self._yielded = 0

    def __len__(self) -> int:
        return len(self._bounds)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration follows."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Say how far into the epoch the iteration is."""
        return {"batches": self._yielded % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Make the next iteration (that one alone) start there."""
        self._first = state["batches"]

    def __iter__(self) -> Iterator[Batch]:
        order = self.rows
        if self.shuffle:
            generator = torch.Generator().manual_seed(batch_seed(self.seed, self.epoch))
            order = order[torch.randperm(len(order), generator=generator).to(order.device)]
        begin, self._first = self._first, 0
        for first in range(begin, len(self), _AT_ONCE):
            numbers = range(first, min(first + _AT_ONCE, len(self)))
            start = self._bounds[first][0]
            rows = order[start : self._bounds[numbers[-1]][1]]
            # Whole faces at a time: a sixth of what indexing takes.
            images, labels = self.images.index_select(0, rows), self.labels.index_select(0, rows)
            seeds = [batch_seed(self.seed, self.epoch, number, self.rank) for number in numbers]
            for number, seed in zip(numbers, seeds, strict=True):
                part = slice(*(bound - start for bound in self._bounds[number]))
                self._yielded = number + 1
                yield Batch(images[part], labels[part], rows[part], seed)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_settings(**settings: Any) -> None:
    """Refuse settings of the data module that are out of range or do not go together."""
    for key in ("image_size", "num_classes", "batch_size", "eval_batch_size"):
        if not _is_count(settings[key]):
            raise FERError(f"data.{key}={settings[key]}: expected a whole number of at least 1")
    classes, augment, image_size = settings["classes"], settings["augment"], settings["image_size"]
    listed = isinstance(classes, Sequence) and not isinstance(classes, str)
    if not listed or len(set(map(str, classes))) != len(classes) or len(classes) < 2:
        raise FERError(
            f"data.classes={classes}: expected a list of at least two different names, such as [happy,sad]"
        )
    if settings["num_classes"] != len(classes):
        raise FERError(
            f"data.num_classes={settings['num_classes']}: data.classes names {len(classes)} different "
            f"classes ({', '.join(map(str, classes))}); set both"
        )
    expected = {
        "protocol": ("official or paper", settings["protocol"] in ("official", "paper")),
        "on_bad": ("error or skip", settings["on_bad"] in ("error", "skip")),
        "drop_leaks": ("true or false", isinstance(settings["drop_leaks"], bool)),
        "val_fraction": (
            "a number in [0, 1)",
            _is_number(settings["val_fraction"]) and 0 <= settings["val_fraction"] < 1,
        ),
        "in_memory_gb": (
            "a number of at least 0",
            _is_number(settings["in_memory_gb"]) and settings["in_memory_gb"] >= 0,
        ),
    }
    for key, (words, is_right) in expected.items():
        if not is_right:
            raise FERError(f"data.{key}={settings[key]}: expected {words}")
    if not isinstance(augment, Augment):
        raise FERError(f"data.augment={augment}: expected its settings, as in conf/data/fer2013.yaml")
    if augment.sides and augment.sides[-1] != image_size:
        raise FERError(
            f"data.augment.sides={list(augment.sides)}: the last must be data.image_size={image_size}, "
            "on which the network is tested; change it, or set data.augment.sides=[]"
        )


class FERDataModule(LightningDataModule):
    """Faces from any source, split by a protocol, in memory as uint8.

    Args:
        name: The data set's name in every file.
        source: Opens the source from ``root``, ``classes`` and ``image_size``.
        classes: Class names; labels are positions in this list whatever is on disk.
        num_classes: How many, for other configs to refer to.
        image_size: Side of a face, in pixels.
        protocol: See ``splits.assign``.
        val_fraction: See ``splits.assign``.
        batch_size: Faces a training batch.
        eval_batch_size: Faces a batch without gradients.
        augment: What to do to training batches, on the device.
        on_bad: ``error`` or ``skip``: what an unreadable image does.
        cache_dir: Where decoded faces are kept; ``~`` is understood.
        seed: Of order, batches and ``val_fraction``.
        in_memory_gb: The most that the faces may take in memory, in GB (1e9 bytes); more of them stay on the
            disk, from where the operating system brings them.
        root: Where the source is; None for a source that draws its faces.
        drop_leaks: Train without the faces whose copy stands in val or test, and validate without those
            whose copy stands in test; after ``setup``, ``dropped`` holds how many each split lost.
    """

    def __init__(
        self,
        *,
        name: str,
        source: Callable[..., Source],
        classes: Sequence[str],
        num_classes: int,
        image_size: int,
        protocol: Protocol,
        val_fraction: float,
        batch_size: int,
        eval_batch_size: int,
        augment: Augment,
        on_bad: Literal["error", "skip"],
        cache_dir: str,
        seed: int,
        in_memory_gb: float = 4.0,
        root: str | None = None,
        drop_leaks: bool = False,
    ) -> None:
        super().__init__()
        _check_settings(
            classes=classes,
            num_classes=num_classes,
            image_size=image_size,
            protocol=protocol,
            val_fraction=val_fraction,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            augment=augment,
            on_bad=on_bad,
            in_memory_gb=in_memory_gb,
            drop_leaks=drop_leaks,
        )
        if not callable(source):
            raise FERError(f"data.source={source}: expected a reader, as in conf/data")
        self.name = name
        self.source: Source = source(root=root, classes=classes, image_size=image_size)
        self.classes = tuple(classes)
        self.image_size = image_size
        self.protocol: Protocol = protocol
        self.val_fraction = val_fraction
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.augment = augment
        self.on_bad: Literal["error", "skip"] = on_bad
        self.cache_dir = Path(cache_dir).expanduser()
        self.seed = seed
        self.in_memory_gb = in_memory_gb
        self.root = root
        self.drop_leaks = drop_leaks
        self.faces: Faces
        self.rows: dict[str, Rows]
        self.dropped: dict[str, int] = {}

    def prepare_data(self) -> None:
        """Decode the faces, once: later calls and other processes find the cache."""
        if not hasattr(self, "rows"):
            self._load()

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - Lightning's signature
        """Load the faces and give every one its part."""
        if hasattr(self, "rows"):
            return
        self.faces = self._load()
        rows = make_splits(self.faces, protocol=self.protocol, val_fraction=self.val_fraction, seed=self.seed)
        if self.drop_leaks:
            kept = without_leaks(self.faces, rows)
            self.dropped = {split: len(rows[split]) - len(kept[split]) for split in ("train", "val")}
            rows = kept
        self.rows = rows
        images = self.faces.images
        if images.nbytes <= self.in_memory_gb * 1e9:
            images = np.array(images)
            # Whoever cuts the cache short under this process would else end it where a figure is drawn.
            self.faces = replace(self.faces, images=images)
        else:
            log.info(
                "%.1f GB of faces stay on the disk (data.in_memory_gb=%g)",
                images.nbytes / 1e9,
                self.in_memory_gb,
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable.*")  # nor is it written to
            self._images = torch.from_numpy(images).unsqueeze(1)
        self._labels = torch.from_numpy(np.array(self.faces.labels))

    def _load(self) -> Faces:
        return load_faces(self.source, cache_dir=self.cache_dir, on_bad=self.on_bad, say=log.info)

    def split_rows(self, split: str) -> Rows:
        """List the rows of train, val, test or all."""
        return np.arange(len(self.faces)) if split == "all" else self.rows[split]

    def images_of(self, ids: NDArray[np.str_]) -> NDArray[np.uint8]:
        """Look faces up by their ids: ``(N, S, S)`` uint8."""
        row_of = {face_id: row for row, face_id in enumerate(self.faces.ids.tolist())}
        return self.faces.images[[row_of[face_id] for face_id in ids.tolist()]]

    def class_counts(self, split: str) -> list[int]:
        """Count the faces of each class in a split."""
        labels = self.faces.labels[self.split_rows(split)]
        counts: list[int] = np.bincount(labels, minlength=len(self.classes)).tolist()
        return counts

    def pixel_statistics(self) -> tuple[float, float]:
        """Return mean and standard deviation of the training faces' grey levels, in [0, 1]."""
        rows = self.rows["train"]
        # A histogram is exact and needs no floats; by parts, because numpy counts in 64 bits a pixel.
        counts = sum(
            np.bincount(self.faces.images[rows[first : first + _COUNTED_AT_ONCE]].reshape(-1), minlength=256)
            for first in range(0, len(rows), _COUNTED_AT_ONCE)
        )
        levels = counts / np.sum(counts)
        values = np.arange(256) / 255
        mean = float((levels * values).sum())
        return mean, max(float((levels * (values - mean) ** 2).sum()) ** 0.5, 1e-3)  # blank faces have none

    def _fits(self, device: torch.device) -> bool:
        # A quarter of the free memory leaves the network its room; FER-2013 takes 83 MB.
        return self._images.nbytes < torch.cuda.mem_get_info(device)[0] / 4

    def _loader(self, rows: Rows, *, batch_size: int, shuffle: bool) -> BatchLoader:
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        if device.type == "cuda" and self._images.device != device and self._fits(device):
            self._images, self._labels = self._images.to(device), self._labels.to(device)
        return BatchLoader(
            self._images,
            self._labels,
            torch.from_numpy(rows).to(self._images.device),
            batch_size=batch_size,
            shuffle=shuffle,
            seed=self.seed,
            rank=self.trainer.global_rank if self.trainer is not None else 0,
        )

    def train_dataloader(self) -> BatchLoader:
        """Shuffled batches of train; under DDP, this process's share of an equal number."""
        rows = self.rows["train"]
        if self.trainer is not None and self.trainer.world_size > 1:
            equal = len(rows) - len(rows) % self.trainer.world_size
            rows = rows[self.trainer.global_rank : equal : self.trainer.world_size]
        return self._loader(rows, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Batches of val in order; an empty list where there is no val split."""
        if not len(self.rows["val"]):
            return []
        return self.eval_loader("val")

    def eval_loader(self, split: str) -> BatchLoader:
        """Batches of any split, in order, once."""
        return self._loader(self.split_rows(split), batch_size=self.eval_batch_size, shuffle=False)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch, unless it was cut out of faces that are on the device already."""
        if isinstance(batch, Batch) and batch.images.device == device:
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002 - Lightning's
        """Augment a training batch on its device."""
        if not self.augment.enabled or self.trainer is None or not self.trainer.training:
            return batch
        # Not the batch's own seed, from which dropout draws.
        generator = torch.Generator(batch.images.device).manual_seed(batch_seed(batch.seed))
        side = self.augment.side(self.trainer.current_epoch, self.trainer.max_epochs or 1)
        return batch._replace(images=self.augment(batch.images, generator, side=side))
