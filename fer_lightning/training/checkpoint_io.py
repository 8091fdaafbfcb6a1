"""Writing checkpoints: a failed save keeps the previous file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from fer_lightning.core.files import replacing


def save_atomically(content: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint under a temporary name and rename it, so that a failed save keeps the previous one.

    Lightning's own saving goes through the temporary directory and truncates the old file first; a full disk
    then destroys both.

    Raises:
        OSError: With the name of the file; the previous one is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        try:
            torch.save(dict(content), file)
        except RuntimeError as error:  # of torch, at the end of a file that the disk had no room for
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint plugin with ``save_atomically``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save to a local path."""
        assert storage_options is None
        save_atomically(checkpoint, Path(path))
