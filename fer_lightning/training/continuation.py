"""What a continued run may trust: its data and checkpoints are those of its start."""

from pathlib import Path

from fer_lightning.config.compare import KEYS_IGNORED_ON_RESUME, PLACE_KEYS, differences
from fer_lightning.config.types import TrainConfig
from fer_lightning.core.errors import FERError
from fer_lightning.core.program import pasteable
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.training.checkpoint_metadata import CheckpointMetadata


def check_same_data(metadata: CheckpointMetadata, data: FERDataModule, folder: Path) -> None:
    """Refuse to continue a run on other images, labels or splits than it was started on.

    Args:
        metadata: Of ``last.ckpt``.
        data: After ``setup``.
        folder: The run folder.

    Raises:
        FERError: If the fingerprints differ.
    """
    found = data.faces.fingerprint
    if metadata.fingerprint != found:
        raise FERError(
            f"{data.root or data.name}: images, labels or splits have changed since this run was started "
            f"(fingerprint {metadata.fingerprint[:12]}, now {found[:12]}); restore them, or start a new run "
            f"from its weights with {pasteable('init_from', folder)}"
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
    changed = differences(metadata.config, dict(config), (*KEYS_IGNORED_ON_RESUME, *PLACE_KEYS))
    if changed or metadata.fingerprint != data.faces.fingerprint:
        raise FERError(
            f"{path}: not a checkpoint of this run, whose config or data differ; it was replaced: put the "
            "run's own back, or start a new run"
        )
