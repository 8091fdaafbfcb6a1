"""What a continued run may trust: its data and checkpoints are those of its start."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer

from fer_lightning.config.compare import KEYS_IGNORED_ON_RESUME, PLACE_KEYS, differences
from fer_lightning.config.types import TrainConfig
from fer_lightning.core.errors import FERError
from fer_lightning.core.program import pasteable
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.loader import batch_bounds
from fer_lightning.training.checkpoint_metadata import CheckpointMetadata

log = logging.getLogger(__name__)


def check_same_data(metadata: CheckpointMetadata, data: FERDataModule, folder: Path) -> None:
    """Refuse to continue a run on other images, labels, splits or soft targets than it was started on.

    Args:
        metadata: Of ``last.ckpt``.
        data: After ``setup``.
        folder: The run folder.

    Raises:
        FERError: If the fingerprints differ, or the images of the train split or the soft targets do.
    """
    found = data.faces.fingerprint
    if metadata.fingerprint != found:
        raise FERError(
            f"{data.root or data.name}: images, labels or splits have changed since this run was started "
            f"(fingerprint {metadata.fingerprint[:12]}, now {found[:12]}); restore them, or start a new run "
            f"from its weights with {pasteable('init_from', folder)}"
        )
    train = np.unique(data.faces.hashes[data.rows["train"]])
    others = ~np.isin(train, metadata.trained_on)
    fewer = metadata.config.get("init_from") is None and len(train) != len(metadata.trained_on)
    if others.any() or fewer:
        raise FERError(
            f"{data.root or data.name}: the training images are not those that this run was started on, "
            "because this version chooses the val split otherwise; continue it with the version that started "
            f"it, or start a new run from its weights with {pasteable('init_from', folder)}"
        )
    if metadata.soft_targets != soft_targets_hash(data):
        before, now = metadata.soft_targets or "none", soft_targets_hash(data) or "none"
        raise FERError(
            f"data.soft_targets={data.soft_targets}: not the soft targets that this run was started on "
            f"(SHA-256 {before[:12]}, now {now[:12]}); name the file of its start, or start a new run from "
            f"its weights with {pasteable('init_from', folder)}"
        )


def soft_targets_hash(data: FERDataModule) -> str | None:
    """Return the SHA-256 of the file of soft targets; None without one."""
    teacher = data.read_teacher()
    return None if teacher is None else teacher.sha256


IMAGES_PER_STEP = "images_per_step"  # of a checkpoint: those of all processes that trained it
NUM_PROCESSES = "num_processes"


def images_per_step(trainer: Trainer, data: object) -> int | None:
    """Return how many images all processes together take a step on; None for other data modules."""
    size = getattr(data, "batch_size", None)
    return size * trainer.world_size if isinstance(size, int) else None


def describe_steps(trainer: Trainer) -> dict[str, int | None]:
    """Describe the steps of a training for ``check_same_steps``."""
    data = getattr(trainer, "datamodule", None)
    return {IMAGES_PER_STEP: images_per_step(trainer, data), NUM_PROCESSES: trainer.world_size}


def check_same_steps(
    checkpoint: Mapping[str, Any], trainer: Trainer, *, within_epoch: bool, by_step: bool
) -> None:
    """Refuse to continue with another number of processes where steps of another size make a difference.

    At the end of an epoch the rest of a training may have other steps, unless its learning rate follows them.

    Args:
        checkpoint: The content of ``last.ckpt``.
        trainer: That continues.
        within_epoch: Whether it was saved within an epoch.
        by_step: Whether the scheduler steps after every batch.

    Raises:
        FERError: If the steps differ and it matters.
    """
    data = getattr(trainer, "datamodule", None)
    before, now = checkpoint.get(IMAGES_PER_STEP), images_per_step(trainer, data)
    if data is None or before is None or now is None:
        return
    exact = within_epoch or by_step
    size = data.batch_size
    why = "was stopped within an epoch" if within_epoch else "has a learning rate that follows the steps"
    if before != now and exact:
        raise FERError(
            f"trainer: this run {why}, and took its steps on {before} images, where {trainer.world_size} x "
            f"data.batch_size={size} would take {now}; continue it in {before // size} x {size}"
        )
    if before != now:
        log.warning("WARNING: from here on a step takes %s images; before it were %s", now, before)
        return
    number = checkpoint.get(NUM_PROCESSES, trainer.world_size)
    rows = len(data.rows["train"])
    if exact and len(batch_bounds(rows, now, number)) != len(batch_bounds(rows, now, trainer.world_size)):
        raise FERError(
            f"trainer: this run {why}, and the last step of an epoch is another one in {trainer.world_size} "
            f"processes than in {number}; continue it in {number}"
        )


def check_best(metadata: CheckpointMetadata, config: TrainConfig, data: FERDataModule, path: Path) -> None:
    """Refuse a ``best.ckpt`` that another run has written.

    Args:
        metadata: Of ``best.ckpt``.
        config: The run's.
        data: After ``setup``.
        path: Of ``best.ckpt``.

    Raises:
        FERError: If its config or data are not those of this run.
    """
    # Several processes may have gone on in batches of another size.
    ignored = (*KEYS_IGNORED_ON_RESUME, *PLACE_KEYS, "data.batch_size")
    changed = differences(metadata.config, dict(config), ignored)
    same = (metadata.fingerprint, metadata.soft_targets) == (data.faces.fingerprint, soft_targets_hash(data))
    if changed or not same:
        raise FERError(
            f"{path}: not a checkpoint of this run, whose config or data differ; it was replaced: put the "
            "run's own back, or start a new run"
        )
