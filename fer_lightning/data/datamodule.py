"""The Lightning data module: the whole data set as one uint8 tensor."""

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.data.augment import Augment
from fer_lightning.data.cache import load_faces
from fer_lightning.data.faces import Faces, Source
from fer_lightning.data.loader import Batch, BatchLoader, batch_seed
from fer_lightning.data.splits import Protocol, Rows, make_splits, without_leaks

log = logging.getLogger(__name__)

_NUM_COUNTED = 256  # images whose grey levels are counted at a time


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_settings(**settings: Any) -> None:
    """Refuse settings of the data module that are out of range or do not go together."""
    for key in ("image_size", "num_classes", "batch_size", "eval_batch_size"):
        if not _is_count(settings[key]):
            raise FERError(f"data.{key}={settings[key]}: expected a whole number of at least 1")
    seed = settings["seed"]
    if seed != 0 and not _is_count(seed):
        raise FERError(f"seed={seed}: expected a whole number of at least 0")
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
    """Images from any source, split by a protocol, in memory as uint8.

    Args:
        name: The name of the data set in all files.
        source: Opens the source, given ``root``, ``classes`` and ``image_size``.
        classes: Class names; labels are positions in this list.
        num_classes: The length of ``classes``, which other configs refer to.
        image_size: Side of an image, in pixels.
        protocol: The split protocol, see ``splits.make_splits``.
        val_fraction: The part of train to validate on, see ``splits.make_splits``.
        batch_size: Images per training batch.
        eval_batch_size: Images per batch without gradients.
        augment: The augmentation of training batches, on the device.
        on_bad: Whether images that cannot be decoded raise an error or are skipped.
        cache_dir: The folder of the data cache; may start with ``~``.
        seed: The seed of order, batches and ``val_fraction``.
        in_memory_gb: Size of the largest data set to copy into memory, in GB (1e9 bytes); a larger one is
            mapped from the disk.
        root: The place of the source; None for the synthetic faces.
        drop_leaks: Whether to train without the images that have a duplicate in val or test, and to validate
            without those that have one in test; after ``setup``, ``dropped`` holds the number of images
            removed from each split.
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
            seed=seed,
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
        """Decode the images into the cache, which later calls and other processes read."""
        if not hasattr(self, "rows"):
            self._load()

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - Lightning's signature
        """Load the images and split them."""
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
            # Also for other readers of `faces`: truncating a mapped file under this process would end it.
            self.faces = replace(self.faces, images=images)
        else:
            log.info(
                "%.1f GB of images are mapped from the disk (data.in_memory_gb=%g)",
                images.nbytes / 1e9,
                self.in_memory_gb,
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable.*")  # it is never written to
            self._images = torch.from_numpy(images).unsqueeze(1)
        self._labels = torch.from_numpy(np.array(self.faces.labels))

    def _load(self) -> Faces:
        return load_faces(self.source, cache_dir=self.cache_dir, on_bad=self.on_bad, log=log.info)

    def split_rows(self, split: str) -> Rows:
        """Return the rows of train, val, test or all."""
        return np.arange(len(self.faces)) if split == "all" else self.rows[split]

    def images_of(self, ids: NDArray[np.str_]) -> NDArray[np.uint8]:
        """Look up images by their ids: ``(N, S, S)`` uint8."""
        row_of = {image_id: row for row, image_id in enumerate(self.faces.ids.tolist())}
        return self.faces.images[[row_of[image_id] for image_id in ids.tolist()]]

    def class_counts(self, split: str) -> list[int]:
        """Count the images of each class in a split."""
        labels = self.faces.labels[self.split_rows(split)]
        counts: list[int] = np.bincount(labels, minlength=len(self.classes)).tolist()
        return counts

    def pixel_statistics(self) -> tuple[float, float]:
        """Return mean and standard deviation of the grey levels of the training images, in [0, 1]."""
        rows = self.rows["train"]
        # A histogram is exact; it is computed by parts, because NumPy converts pixels to 64 bits.
        counts = sum(
            np.bincount(self.faces.images[rows[first : first + _NUM_COUNTED]].reshape(-1), minlength=256)
            for first in range(0, len(rows), _NUM_COUNTED)
        )
        levels = counts / np.sum(counts)
        values = np.arange(256) / 255
        mean = float((levels * values).sum())
        return mean, max(
            float((levels * (values - mean) ** 2).sum()) ** 0.5, 1e-3
        )  # blank images have no deviation

    def _fits(self, device: torch.device) -> bool:
        # A quarter of the free memory leaves room for the network.
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
        """Return shuffled batches of train; under DDP, an equal share for each process."""
        rows = self.rows["train"]
        if self.trainer is not None and self.trainer.world_size > 1:
            equal = len(rows) - len(rows) % self.trainer.world_size
            rows = rows[self.trainer.global_rank : equal : self.trainer.world_size]
        return self._loader(rows, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return batches of val in order, or an empty list if there is no val split."""
        if not len(self.rows["val"]):
            return []
        return self.eval_loader("val")

    def eval_loader(self, split: str) -> BatchLoader:
        """Return batches of any split, in order."""
        return self._loader(self.split_rows(split), batch_size=self.eval_batch_size, shuffle=False)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch to the device, unless it is there already."""
        if isinstance(batch, Batch) and batch.images.device == device:
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002 - Lightning's
        """Augment a training batch on its device."""
        if not self.augment.enabled or self.trainer is None or not self.trainer.training:
            return batch
        # Not the seed of the batch itself, from which dropout draws.
        generator = torch.Generator(batch.images.device).manual_seed(batch_seed(batch.seed))
        side = self.augment.side(self.trainer.current_epoch, self.trainer.max_epochs or 1)
        return batch._replace(images=self.augment(batch.images, generator, side=side))
