"""What a checkpoint says of itself."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from numpy.typing import NDArray
from torch import nn

from fer_lightning.config.limits import limits_of
from fer_lightning.models import Backbone

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
        temperature: By which the logits are divided for calibrated probabilities; None if the weights were
            not calibrated.
        threshold: Smallest calibrated probability of an answer that counts as sure; None if there is none.
        soft_targets: SHA-256 of the file of a teacher's predictions that it was trained on; None without.
        unknown_before: Why the images that the initial weights have seen are not known; None if they are.
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
    temperature: float | None = None
    threshold: float | None = None
    soft_targets: str | None = None
    unknown_before: str | None = None

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

    @property
    def limits(self) -> list[str]:
        """The settings that left images out of its training and evaluation, see ``limits_of``."""
        data, num_images = self.config.get("data"), len(self.trained_on)  # at least as many were trained on
        size = data.get("batch_size") if isinstance(data, Mapping) else None
        batches = {"train": -(-num_images // size)} if isinstance(size, int) and size > 0 else None
        return limits_of(self.config.get("trainer") or {}, batches)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "CheckpointMetadata":
        """Restore what ``to_plain`` returned."""
        fields = {name: value for name, value in plain.items() if name != "schema"}
        for name, kind in _TYPES.items():
            if type(fields[name]) is not kind:
                raise TypeError(f"{name} is {type(fields[name]).__name__}, expected {kind.__name__}")
        for name in ("score", "temperature", "threshold"):
            if not isinstance(fields.get(name), float | None):
                raise TypeError(f"{name} is {type(fields[name]).__name__}, expected float")
        for name in ("soft_targets", "unknown_before"):
            if not isinstance(fields.get(name), str | None):
                raise TypeError(f"{name} is {type(fields[name]).__name__}, expected str")
        if not all(isinstance(name, str) and name.isprintable() for name in fields["classes"]):
            raise TypeError("classes: expected printable names")
        _check_plain(fields["config"])
        for name in ("trained_on", "selected_on"):
            if plain[name].dtype != torch.int64 or plain[name].ndim != 1:
                raise TypeError(f"{name} is {plain[name].ndim}-d {plain[name].dtype}, expected 1-d int64")
            fields[name] = plain[name].numpy().view(np.uint64)
        return cls(**fields | {"classes": tuple(plain["classes"])})


def _check_plain(node: Any) -> None:
    """Refuse a config that is not made of dicts with keys of text or whole numbers, lists and scalars."""
    if isinstance(node, dict):
        for key, value in node.items():
            if not isinstance(key, str | int):
                raise TypeError(f"config has the key {key!r}, expected a name")
            _check_plain(value)
    elif isinstance(node, list | tuple):
        for value in node:
            _check_plain(value)
    elif not isinstance(node, str | int | float | None):
        raise TypeError(f"config holds a {type(node).__name__}")


def seen_by(before: CheckpointMetadata, data: Mapping[str, Any]) -> tuple[NDArray[np.uint64], str | None]:
    """Return which images the weights of a checkpoint have seen, for a network that starts from them.

    Args:
        before: Of the checkpoint.
        data: The data node of the new network. Pixels of another size have other hashes.

    Returns:
        ``(N,)`` uint64 hashes, and why some images are not known; None if all are.
    """
    seen = np.concatenate([before.trained_on, before.selected_on])
    node: Mapping[str, Any] = before.config.get("data") or {}
    old, new = ([each.get("image_size"), each.get("channels", 1)] for each in (node, data))
    if before.unknown_before is not None:
        return seen, before.unknown_before
    if not len(seen):
        return seen, "the images that trained its initial weights are not known"
    if old != new:
        return seen, (
            f"its initial weights were trained on images of {old[0]} pixels and {old[1]} channels, which "
            "cannot be found among those of another size"
        )
    return seen, None


def _config_of_parts(trainer: Trainer, backbone: nn.Module, classifier: Mapping[str, Any]) -> dict[str, Any]:
    """Describe parts that were built in Python as far as they remember their settings."""
    data: Any = getattr(trainer, "datamodule", None)
    return {
        "seed": getattr(data, "seed", 0),
        "classifier": dict(classifier),
        "model": describe_backbone(backbone),
        "data": data.describe() if hasattr(data, "describe") else None,
        "trainer": {
            "_target_": "fer_lightning.training.trainer.Trainer",
            "accelerator": trainer.strategy.root_device.type,
            "precision": str(trainer.precision),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "limit_predict_batches": 1.0,
        },
    }


def describe_training(
    trainer: Trainer,
    *,
    backbone: nn.Module,
    classes: tuple[str, ...],
    config: Mapping[str, Any] | None,
    classifier: Mapping[str, Any],
    seen_before: NDArray[np.uint64],
    unknown_before: str | None = None,
) -> CheckpointMetadata:
    """Describe what is being trained on which images.

    Args:
        trainer: While it fits. Where its data module is not a ``FERDataModule``, the images are unknown.
        backbone: The network.
        classes: Class names in the order of the outputs.
        config: The run's resolved config; None for a module built in Python, which is described as far as
            its parts remember their settings.
        classifier: Settings of the classifier that prediction needs.
        seen_before: ``(N,)`` uint64 hashes of images that the initial weights were trained or selected on.
        unknown_before: As in ``CheckpointMetadata``.

    Returns:
        The metadata of a checkpoint of the current epoch, selected by the ``monitor`` of Lightning's
        ``ModelCheckpoint`` if there is one with a monitor.
    """
    data: Any = getattr(trainer, "datamodule", None)
    trained_on = selected_on = np.empty(0, np.uint64)
    fingerprint = ""
    if hasattr(data, "faces") and hasattr(data, "rows"):
        fingerprint = data.faces.fingerprint
        trained_on = data.faces.hashes[data.rows["train"]]
        selected_on = np.unique(data.faces.hashes[data.rows["val"]])
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    monitors = [each.monitor for each in callbacks if isinstance(each, ModelCheckpoint) and each.monitor]
    return CheckpointMetadata(
        config=dict(_config_of_parts(trainer, backbone, classifier) if config is None else config),
        classes=classes,
        fingerprint=fingerprint,
        trained_on=np.unique(np.concatenate([trained_on, seen_before])),
        selected_on=selected_on,
        selected_by=monitors[0] if monitors else "last",
        epoch=trainer.current_epoch,
        score=None,
        precision=str(trainer.precision),
        channels_last=is_channels_last(backbone),
        soft_targets=getattr(getattr(data, "teacher", None), "sha256", None),
        unknown_before=unknown_before,
    )


def describe_backbone(backbone: nn.Module) -> dict[str, Any] | None:
    """Return the config node of a network that remembers its settings; None for any other."""
    if not isinstance(backbone, Backbone):
        return None
    kind = type(backbone)
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **backbone.settings}


def is_channels_last(network: nn.Module) -> bool:
    """Return whether the weights of a network's convolutions are stored with the channels innermost."""
    return any(
        weights.ndim == 4
        and weights.is_contiguous(memory_format=torch.channels_last)
        and not weights.is_contiguous()
        for weights in network.parameters()
    )
