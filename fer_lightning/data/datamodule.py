"""The Lightning data module: the whole data set as one uint8 tensor."""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray

from fer_lightning.config.data_checks import check_classes
from fer_lightning.data.audit.near_duplicates import NearDuplicates, load_near_duplicates
from fer_lightning.data.augment import Augment, to_augment
from fer_lightning.data.batch_transforms import BatchTransform, check_transforms, transform_batch
from fer_lightning.data.cache import DEFAULT_CACHE_DIR, Nearness, load_faces
from fer_lightning.data.cache_files import audit_folder
from fer_lightning.data.faces import Faces, Source
from fer_lightning.data.loader import Batch, BatchLoader, batch_seed
from fer_lightning.data.readers.fer2013 import open_fer2013
from fer_lightning.data.settings import check_settings
from fer_lightning.data.soft_targets import Teacher, read_teacher
from fer_lightning.data.source import (
    IMAGE_DEFAULTS,
    describe_reader,
    image_settings,
    must_be_located,
    open_source,
)
from fer_lightning.data.splits import Protocol, Rows, check_not_empty, make_splits, without_leaks
from fer_lightning.data.synthetic.source import SyntheticFaces

log = logging.getLogger(__name__)

PixelStatistic = float | tuple[float, ...]

_NUM_COUNTED = 256  # images whose grey levels are counted at a time
# Plain settings that describe() repeats: which images are in which split, and how they are read.
_DESCRIBED = (
    *("num_classes", "image_size", "channels", "protocol", "val_fraction", "near_duplicates", "drop_leaks"),
    *("batch_size", "eval_batch_size", "on_bad", "in_memory_gb", "seed"),
)


class FERDataModule(LightningDataModule):
    """Images from any source, split by a protocol, in memory as uint8.

    ``FERDataModule(root="archive.zip")`` reads FER-2013, ``FERDataModule(root="folder", source=ImageFolder)``
    any images in class folders. There are no worker processes to configure (``num_workers``, ``pin_memory``):
    the data set is one tensor, and a batch is an index into it.

    Args:
        name: The name of the data set in all files; ``auto`` is FER-2013, or the synthetic faces if it is not
            found. The name of FER-2013 gives way to that of a source that is another data set.
        root: The place of the source. FER-2013 without a root is looked for where ``locate`` says, when the
            data are loaded.
        download: Whether FER-2013 without a root may be downloaded.
        source: A reader, which is called with ``root``, ``classes``, ``image_size`` and ``channels``, or a
            source that was built before.
        classes: Class names; labels are positions in this list. A source that was built before has its own,
            as it has its own ``image_size`` and ``channels``.
        num_classes: The length of ``classes``, which other configs refer to; None does not check it.
        image_size: Side of an image, in pixels.
        channels: 1 for grey images, 3 for colour.
        protocol: The split protocol, see ``splits.make_splits``.
        val_fraction: The part of train to validate on, see ``splits.make_splits``.
        near_duplicates: Whether splits that are dealt out, by ``val_fraction`` or by a source, keep
            near-duplicates ``together`` or ``ignore`` them; pixel-identical images and the groups of a source
            always stay together.
        drop_leaks: Whether to train without the images that have a duplicate in val or test, and to validate
            without those that have one in test; after ``setup``, ``dropped`` holds the number of images
            removed from each split.
        batch_size: Images per training batch.
        eval_batch_size: Images per batch without gradients.
        augment: The augmentation of training batches, on the device: an ``Augment`` or its settings by name;
            None for none.
        batch_transforms: Transforms of training batches after ``augment``, on the device, each called as
            MixUp of ``torchvision.transforms.v2``, see ``batch_transforms.transform_batch``.
        batch_transforms_until: The part of the epochs, in [0, 1], in which ``batch_transforms`` apply: 0.9
            trains the last tenth without them.
        soft_targets: A file of predictions of train, ``predictions_train.npz`` of ``eval.py``, whose
            probabilities are mixed into the targets of training; None trains on the data's own.
        soft_targets_weight: Their share of the target, in [0, 1]; the rest is the label's.
        soft_targets_temperature: Above 1 makes them less certain, see ``soft_targets.Teacher.mixed_with``.
        on_bad: Whether images that cannot be decoded raise an error or are skipped.
        cache_dir: The folder of the data cache; may start with ``~``. None for ``~/.cache/fer_lightning``.
        in_memory_gb: Size of the largest data set to copy into memory, in GB (1e9 bytes); a larger one is
            mapped from the disk.
        seed: The seed of order, batches and ``val_fraction``.
        predict_split: The split of ``predict_dataloader``: train, val, test or all.
    """

    faces: Faces
    rows: dict[str, Rows]
    notes: tuple[str, ...] = ()
    teacher: Teacher | None = None  # of soft_targets, once it is read
    _near: NearDuplicates | None = None
    _source: Source | None = None
    _fell_back = False

    def __init__(
        self,
        *,
        name: str = "fer2013",
        root: str | Path | None = None,
        download: bool = True,
        source: Callable[..., Source] | Source = open_fer2013,
        classes: Sequence[str] = IMAGE_DEFAULTS["classes"],
        num_classes: int | None = None,
        image_size: int = IMAGE_DEFAULTS["image_size"],
        channels: int = IMAGE_DEFAULTS["channels"],
        protocol: Protocol = "official",
        val_fraction: float = 0.0,
        near_duplicates: Nearness = "together",
        drop_leaks: bool = False,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        augment: Augment | Mapping[str, Any] | None = None,
        batch_transforms: Sequence[BatchTransform] = (),
        batch_transforms_until: float = 1.0,
        soft_targets: str | Path | None = None,
        soft_targets_weight: float = 0.7,
        soft_targets_temperature: float = 1.0,
        on_bad: Literal["error", "skip"] = "error",
        cache_dir: str | Path | None = "~/.cache/fer_lightning",
        in_memory_gb: float = 4.0,
        seed: int = 0,
        predict_split: str = "test",
    ) -> None:
        super().__init__()
        check_classes(classes)
        images = image_settings(source, classes=classes, image_size=image_size, channels=channels)
        self.name = name
        self.root = None if root is None else str(root)
        self.download = download
        self.classes: tuple[str, ...] = images["classes"]
        self.num_classes = len(self.classes) if num_classes is None else num_classes
        self.image_size: int = images["image_size"]
        self.channels: int = images["channels"]
        self.protocol: Protocol = protocol
        self.val_fraction = val_fraction
        self.near_duplicates: Nearness = near_duplicates
        self.drop_leaks = drop_leaks
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.augment = to_augment(augment)
        self.batch_transforms = check_transforms(batch_transforms)
        self.batch_transforms_until = batch_transforms_until
        self.soft_targets = soft_targets
        self.soft_targets_weight = soft_targets_weight
        self.soft_targets_temperature = soft_targets_temperature
        self.on_bad: Literal["error", "skip"] = on_bad
        self.in_memory_gb = in_memory_gb
        self.seed = seed
        self.predict_split = predict_split
        check_settings(self)
        self.cache_dir = Path(DEFAULT_CACHE_DIR if cache_dir is None else cache_dir).expanduser()
        self.dropped: dict[str, int] = {}
        self._reader = source
        if not must_be_located(source, name, self.root):
            self._open()

    @property
    def source(self) -> Source:
        """The open source; FER-2013 without a root is located first, which may download it."""
        if self._source is None:
            self._open()
        assert self._source is not None
        return self._source

    def _open(self) -> None:
        """Open the source, and take the name of a data set that turns out not to be FER-2013."""
        images = {"classes": self.classes, "image_size": self.image_size, "channels": self.channels}
        self.root, self._source = open_source(
            self._reader, str(self.name), self.root, download=self.download, settings=images, log=log.warning
        )
        self._fell_back = self.name == "auto" and self._source.name == "synthetic"
        if self.name == "auto" or (self.name == "fer2013" and self._source.name != "fer2013"):
            self.name = self._source.name

    def describe(self) -> dict[str, Any]:
        """Return the config node that reads the same data set, with plain values for a checkpoint."""
        kind = type(self)
        root = self.root or getattr(self._source, "path", None)
        return {
            "_target_": f"{kind.__module__}.{kind.__qualname__}",
            "name": str(self.name),
            "root": None if root is None else str(Path(root).absolute()),
            "source": describe_reader(SyntheticFaces if self._fell_back else self._reader),
            "classes": [*self.classes],
            **{name: getattr(self, name) for name in _DESCRIBED},
            "cache_dir": str(self.cache_dir),
        }

    def prepare_data(self) -> None:
        """Decode the images into the cache, which later calls and other processes read."""
        if not hasattr(self, "rows"):
            self._split(self._load())

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - Lightning's signature
        """Load the images and split them."""
        if hasattr(self, "rows"):
            return
        self.faces = self._load()
        rows, note = self._split(self.faces)
        self.notes = tuple(dict.fromkeys(each for each in (*self.faces.notes, note) if each))
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
            size, limit = images.nbytes / 1e9, self.in_memory_gb
            log.info("%.1f GB of images are mapped from the disk (data.in_memory_gb=%g)", size, limit)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable.*")  # it is never written to
            pixels = torch.from_numpy(images)
        self._images = pixels.unsqueeze(1) if self.channels == 1 else pixels.permute(0, 3, 1, 2)
        self._labels = torch.from_numpy(np.array(self.faces.labels))
        targets = self.faces.targets
        self._targets = None if targets is None else torch.from_numpy(np.array(targets))

    def _load(self) -> Faces:
        return load_faces(
            self.source,
            cache_dir=self.cache_dir,
            on_bad=self.on_bad,
            near_duplicates=self.near_duplicates,
            log=log.info,
        )

    def _split(self, faces: Faces) -> tuple[dict[str, Rows], str]:
        needs_near = self.val_fraction > 0 and self.near_duplicates == "together"
        return make_splits(
            faces,
            protocol=self.protocol,
            val_fraction=self.val_fraction,
            seed=self.seed,
            near=self.find_near_duplicates(faces) if needs_near else None,
        )

    def find_near_duplicates(self, faces: Faces | None = None) -> NearDuplicates:
        """Find the near-duplicates among all images, or read them from the cache."""
        faces = faces or self.faces
        if self._near is None:
            self._near = load_near_duplicates(
                faces.images, faces.hashes, cache_dir=audit_folder(self.cache_dir), log=log.info
            )
        return self._near

    def split_rows(self, split: str) -> Rows:
        """Return the rows of train, val, test or all."""
        return np.arange(len(self.faces)) if split == "all" else self.rows[split]

    def images_of(self, ids: NDArray[np.str_]) -> NDArray[np.uint8]:
        """Look up images by their ids: ``(N, S, S)`` uint8 grey levels or ``(N, S, S, 3)`` uint8 colours."""
        row_of = {image_id: row for row, image_id in enumerate(self.faces.ids.tolist())}
        return self.faces.images[[row_of[image_id] for image_id in ids.tolist()]]

    def take_labels(self, labels: NDArray[np.int64], classes: Sequence[str]) -> None:
        """Replace the labels and the class list, for an evaluation in those of a network; after ``setup``."""
        self.classes = tuple(classes)
        self.num_classes = len(self.classes)
        self.faces = replace(self.faces, labels=labels, classes=self.classes, targets=None)
        self._labels, self._targets = torch.from_numpy(labels), None

    def class_counts(self, split: str) -> list[int]:
        """Count the images of each class in a split."""
        labels = self.faces.labels[self.split_rows(split)]
        counts: list[int] = np.bincount(labels, minlength=len(self.classes)).tolist()
        return counts

    def pixel_statistics(self) -> tuple[PixelStatistic, PixelStatistic]:
        """Return mean and standard deviation of the pixels of the training images, in [0, 1].

        Returns:
            Two numbers for grey images, two tuples of three numbers for colour.
        """
        if self.channels == 1:
            return self._channel_statistics(...)
        reds, greens, blues = (self._channel_statistics((..., channel)) for channel in range(3))
        means, deviations = zip(reds, greens, blues, strict=True)
        return means, deviations

    def _channel_statistics(self, channel: Any) -> tuple[float, float]:
        """Return mean and standard deviation of one channel, which is an index into ``(N, S, S[, 3])``."""
        rows = self.rows["train"]
        # A histogram is exact; it is computed by parts, because NumPy converts pixels to 64 bits.
        counts = sum(
            np.bincount(
                self.faces.images[rows[first : first + _NUM_COUNTED]][channel].reshape(-1), minlength=256
            )
            for first in range(0, len(rows), _NUM_COUNTED)
        )
        levels = counts / np.sum(counts)
        values = np.arange(256) / 255
        mean = float((levels * values).sum())
        return mean, max(
            float((levels * (values - mean) ** 2).sum()) ** 0.5, 1e-3
        )  # blank images have no deviation

    def read_teacher(self) -> Teacher | None:
        """Read the file of ``soft_targets``, before training; None without one."""
        if self.teacher is None and self.soft_targets is not None:
            self.teacher = read_teacher(Path(self.soft_targets).expanduser(), self.classes)
        return self.teacher

    def _train_targets(self) -> torch.Tensor | None:
        """Return ``(N, C)`` float32 targets, mixed with those of the teacher for the images of train."""
        teacher = self.read_teacher()
        if teacher is None:
            return self._targets
        weight, temperature = self.soft_targets_weight, self.soft_targets_temperature
        rows = self.rows["train"]
        mixed = teacher.mixed_with(self.faces, rows, weight=weight, temperature=temperature)
        return torch.from_numpy(mixed)

    def _fits(self, device: torch.device) -> bool:
        # A quarter of the free memory leaves room for the network.
        return self._images.nbytes < torch.cuda.mem_get_info(device)[0] / 4

    def _loader(
        self, rows: Rows, targets: torch.Tensor | None, *, divide: bool, **settings: Any
    ) -> BatchLoader:
        trainer = self.trainer
        device = trainer.strategy.root_device if trainer is not None else torch.device("cpu")
        if device.type == "cuda" and self._images.device != device and self._fits(device):
            self._images, self._labels = self._images.to(device), self._labels.to(device)
        return BatchLoader(
            self._images,
            self._labels,
            torch.from_numpy(rows).to(self._images.device),
            seed=self.seed,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=trainer.world_size if divide and trainer is not None else 1,
            targets=None if targets is None else targets.to(self._images.device),
            **settings,
        )

    def train_dataloader(self) -> BatchLoader:
        """Return shuffled batches of train; under DDP, this process's part of each."""
        check_not_empty(self.rows, ["train"], self.protocol)
        repeats = getattr(self.trainer, "overfit_batches", 0) > 0  # the same batches in each epoch
        rows, settings = self.rows["train"], {"batch_size": self.batch_size, "shuffle": not repeats}
        return self._loader(rows, self._train_targets(), divide=True, **settings)

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return batches of val in order, under DDP a part of each; an empty list without a val split."""
        return self.eval_loader("val", divide=True) if len(self.rows["val"]) else []

    def test_dataloader(self) -> BatchLoader:
        """Return batches of test in order; under DDP, this process's part of each."""
        return self.eval_loader("test", divide=True)

    def predict_dataloader(self) -> BatchLoader:
        """Return batches of ``predict_split`` in order."""
        return self.eval_loader(self.predict_split)

    def eval_loader(self, split: str, *, divide: bool = False) -> BatchLoader:
        """Return batches of any split, in order; ``divide`` leaves their other parts to other processes."""
        settings = {"batch_size": self.eval_batch_size, "shuffle": False}
        return self._loader(self.split_rows(split), self._targets, divide=divide, **settings)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch to the device, unless it is there already."""
        if isinstance(batch, Batch) and batch.images.device == device:
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002 - Lightning's
        """Augment and transform a training batch on its device."""
        if self.trainer is None or not self.trainer.training:
            return batch
        epoch, num_epochs = self.trainer.current_epoch, self.trainer.max_epochs or 1
        if self.augment.enabled:
            # Not the seed of the batch itself, from which dropout draws.
            generator = torch.Generator(batch.images.device).manual_seed(batch_seed(batch.seed))
            side = self.augment.side(epoch, num_epochs)
            batch = batch._replace(images=self.augment(batch.images, generator, side=side))
        endless = num_epochs < 1  # Lightning's -1: trainer.max_steps ends the training
        applied = endless or epoch < self.batch_transforms_until * num_epochs
        transforms = self.batch_transforms if applied else ()
        drawn, num_classes = getattr(self.source, "draws_labels", False), len(self.classes)
        if transforms or drawn:
            batch = transform_batch(transforms, batch, num_classes=num_classes, draw_labels=drawn)
        return batch
