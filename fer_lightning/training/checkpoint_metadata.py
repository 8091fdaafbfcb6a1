"""What a checkpoint says of itself."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

SCHEMA = 1
KEY = "fer_lightning"  # of the entry in a checkpoint

_TYPES = {
    "config": dict,
    "classes": list,
    "fingerprint": str,
    "selected_by": str,
    "epoch": int,
    "precision": str,
    "channels_last": bool,
}


@dataclass(frozen=True)
class CheckpointMetadata:
    """Where a checkpoint comes from, stored in it together with Lightning's own state.

    Attributes:
        config: The run's resolved config, plain containers.
        classes: Class names in the order of the outputs.
        fingerprint: Hash of the decoded data set.
        trained_on: ``(N,)`` uint64 hashes of the training images.
        selected_on: ``(M,)`` uint64 hashes of the images that selected the checkpoint; empty for ``last``.
        selected_by: The monitored metric, or ``last``.
        epoch: 0-based epoch of the weights.
        score: The monitored metric then; None without one.
        precision: Lightning's name of the precision.
        channels_last: Whether convolutions store the channels innermost.
    """

    config: dict[str, Any]
    classes: tuple[str, ...]
    fingerprint: str
    trained_on: NDArray[np.uint64]
    selected_on: NDArray[np.uint64]
    selected_by: str
    epoch: int
    score: float | None
    precision: str
    channels_last: bool

    def to_plain(self) -> dict[str, Any]:
        """Return plain values that ``torch.load(weights_only=True)`` accepts."""
        return asdict(self) | {
            "schema": SCHEMA,
            "classes": list(self.classes),
            "trained_on": torch.from_numpy(self.trained_on.view(np.int64)),
            "selected_on": torch.from_numpy(self.selected_on.view(np.int64)),
        }

    @property
    def is_synthetic(self) -> bool:
        """Whether it was trained on synthetic faces."""
        data = self.config.get("data")
        return isinstance(data, Mapping) and data.get("name") == "synthetic"

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "CheckpointMetadata":
        """Restore what ``to_plain`` returned."""
        fields = {name: value for name, value in plain.items() if name != "schema"}
        for name, kind in _TYPES.items():
            if type(fields[name]) is not kind:
                raise TypeError(f"{name} is {type(fields[name]).__name__}, expected {kind.__name__}")
        if not isinstance(fields["score"], float | None):
            raise TypeError(f"score is {type(fields['score']).__name__}, expected float")
        if not all(isinstance(name, str) and name.isprintable() for name in fields["classes"]):
            raise TypeError("classes: expected printable names")
        _check_plain(fields["config"])
        for name in ("trained_on", "selected_on"):
            if plain[name].dtype != torch.int64 or plain[name].ndim != 1:
                raise TypeError(f"{name} is {plain[name].ndim}-d {plain[name].dtype}, expected 1-d int64")
            fields[name] = plain[name].numpy().view(np.uint64)
        return cls(**fields | {"classes": tuple(plain["classes"])})


def _check_plain(node: Any) -> None:
    """Refuse a config that does not consist of dicts with text keys, lists and scalars."""
    if isinstance(node, dict):
        for key, value in node.items():
            if not isinstance(key, str):
                raise TypeError(f"config has the key {key!r}, expected a name")
            _check_plain(value)
    elif isinstance(node, list | tuple):
        for value in node:
            _check_plain(value)
    elif not isinstance(node, str | int | float | None):
        raise TypeError(f"config holds a {type(node).__name__}")
