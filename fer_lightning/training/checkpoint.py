"""Self-describing checkpoints: safe to load, atomic to save, enough to rebuild the classifier alone.

A checkpoint is Lightning's own, plus ``fer_lightning``: the resolved config as plain containers, the class
list, the data's fingerprint and what the network has seen of it. Normalisation stands in the weights.
"""

import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from numpy.typing import NDArray
from torch import Tensor, nn

from fer_lightning.config.resolve import flatten, instantiate
from fer_lightning.core.errors import FERError
from fer_lightning.core.files import replacing
from fer_lightning.training.classifier import FERClassifier, inference_state_dict

SCHEMA = 1
KEY = "fer_lightning"

_KINDS = {
    "config": dict,
    "classes": list,
    "fingerprint": str,
    "selected_by": str,
    "epoch": int,
    "precision": str,
    "channels_last": bool,
}
MAX_ELEMENTS = 1_000_000  # ours hold a few thousand
MAX_DEPTH = 50  # ours nest nine deep
# Of a network that a stranger's config describes.
MAX_SETTING = 65_536
MAX_IMAGE_SIZE = 2_048  # pixels
MAX_LAYERS = 256  # each takes its time to build, however small it is

# What zipfile and torch raise where a file is damaged.
_UNREADABLE = (
    RuntimeError,
    EOFError,
    ValueError,
    KeyError,
    AttributeError,
    TypeError,
    IndexError,
    AssertionError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    ImportError,
    UnicodeError,
    struct.error,
    zipfile.BadZipFile,
)
SYNTHETIC_WARNING = "trained on drawn faces: what it says of photographs means nothing"


def save_atomically(content: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint beside its place and rename it, so that a failed save leaves the former one good.

    Lightning's own saving goes through the temporary directory and truncates the old file first; a full disk
    then destroys both.

    Raises:
        OSError: With the name of the file; the former one is as it was.
    """
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


@dataclass(frozen=True)
class CheckpointMetadata:
    """Where a checkpoint comes from: what stands in it beside Lightning's own state.

    Attributes:
        config: The run's resolved config, plain containers.
        classes: Class names in the order of the outputs.
        fingerprint: Of the data set.
        trained_on: ``(N,)`` uint64 hashes of the training faces.
        selected_on: ``(M,)`` uint64 hashes of the faces that selected the checkpoint; empty for ``last``.
        selected_by: The monitored metric, or ``last``.
        epoch: 0-based epoch of the weights.
        score: The monitored metric then; None without one.
        precision: Lightning's name for it.
        channels_last: The memory format of convolutions.
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
        """Pack as what ``torch.load(weights_only=True)`` accepts."""
        return asdict(self) | {
            "schema": SCHEMA,
            "classes": list(self.classes),
            "trained_on": torch.from_numpy(self.trained_on.view(np.int64)),
            "selected_on": torch.from_numpy(self.selected_on.view(np.int64)),
        }

    @property
    def is_synthetic(self) -> bool:
        """Whether the faces it was trained on were drawn."""
        data = self.config.get("data")
        return isinstance(data, Mapping) and data.get("name") == "synthetic"

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "CheckpointMetadata":
        """Unpack what ``to_plain`` packed."""
        fields = {name: value for name, value in plain.items() if name != "schema"}
        for name, kind in _KINDS.items():
            if type(fields[name]) is not kind:
                raise TypeError(f"{name} is {type(fields[name]).__name__}, expected {kind.__name__}")
        if not isinstance(fields["score"], float | None):
            raise TypeError(f"score is {type(fields['score']).__name__}, expected float")
        if not all(isinstance(name, str) and name.isprintable() for name in fields["classes"]):
            raise TypeError("classes are no names")
        _check_plain(fields["config"])
        for name in ("trained_on", "selected_on"):
            if plain[name].dtype != torch.int64 or plain[name].ndim != 1:
                raise TypeError(f"{name} is {plain[name].ndim}-d {plain[name].dtype}, expected 1-d int64")
            fields[name] = plain[name].numpy().view(np.uint64)
        return cls(**fields | {"classes": tuple(plain["classes"])})


def _check_plain(node: Any) -> None:
    """Refuse a config that is not of dicts with words as keys, lists and scalars.

    Raises:
        TypeError: If it is not.
    """
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


def _check_archive(path: Path) -> None:
    """Refuse a file whose parts would take more memory than the file has bytes.

    ``torch.save`` stores everything as it is; an entry that is packed can be a thousand times as large, and
    torch would unpack it before it looks at it. Its formats of before 1.6, which nobody here wrote, tell no
    sizes.

    Raises:
        FERError: If it is not such an archive.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise FERError(
                f"{path}: refused: it is no checkpoint, or holds more than weights and plain values"
            )
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or (
        sum(entry.file_size for entry in entries) > path.stat().st_size
    ):
        raise FERError(
            f"{path}: refused: its parts are packed, or larger than the file; torch.save packs nothing"
        )


def _check_sizes(content: Any, path: Path) -> None:
    """Refuse what is small on the disk and endless in memory: tensors that repeat one number, nested lists.

    Raises:
        FERError: If a tensor is larger than what is stored of it, or there are too many values.
    """
    waiting, seen = [(content, 0)], 0
    while waiting:
        node, depth = waiting.pop()
        seen += 1
        if isinstance(node, Tensor):
            if node.layout != torch.strided or node.nbytes > node.untyped_storage().nbytes():
                raise FERError(
                    f"{path}: refused: it declares a tensor of {node.numel():,} numbers and stores fewer"
                )
            continue
        parts = node.values() if isinstance(node, Mapping) else node
        if isinstance(parts, Iterable) and not isinstance(parts, str | bytes):
            waiting += [(part, depth + 1) for part in parts]
        # Parts that are shared count each time: a few lists within each other can mean billions of values.
        if seen + len(waiting) > MAX_ELEMENTS or depth > MAX_DEPTH:
            raise FERError(
                f"{path}: refused: it holds more, or more deeply nested, than a checkpoint of ours"
            )


def find_checkpoint(path: str | Path) -> Path:
    """Turn a checkpoint's or a run folder's path into a checkpoint's.

    Raises:
        FERError: If there is none.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        if not (path / "best.ckpt").is_file():
            raise FERError(f"{path}: no best.ckpt in this folder; expected a run folder or a checkpoint")
        return path / "best.ckpt"
    if not path.exists():
        raise FERError(f"{path}: no such file; expected a checkpoint or a run folder")
    return path


def read_checkpoint(path: Path) -> tuple[dict[str, Any], CheckpointMetadata]:
    """Load a checkpoint, executing nothing that stands in it.

    Returns:
        Lightning's state, on the CPU, and where it comes from.

    Raises:
        FERError: If the file is missing, damaged, hostile, or not of this project.
    """
    try:
        _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that torch did not write; they are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise FERError(f"{path}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise FERError(
            f"{path}: refused: it is no checkpoint, or holds more than weights and plain values"
        ) from error
    except FERError:
        raise
    except _UNREADABLE as error:
        raise FERError(f"{path}: damaged, or not a checkpoint ({_brief(error, 40)})") from error
    _check_sizes(content, path)
    described = content.get(KEY) if isinstance(content, dict) else None
    if not isinstance(described, dict) or not isinstance(content.get("state_dict"), dict):
        raise FERError(f"{path}: not a checkpoint of fer_lightning (it has no entry {KEY!r})")
    if not all(isinstance(key, str) for key in content["state_dict"]):
        raise FERError(f"{path}: its weights have no names")
    schema = described.get("schema")
    if not isinstance(schema, int) or schema != SCHEMA:
        raise FERError(f"{path}: checkpoint schema {str(schema)[:40]}, expected {SCHEMA}")
    try:
        return content, CheckpointMetadata.from_plain(described)
    except (TypeError, KeyError, AttributeError, ValueError, RuntimeError) as error:
        raise FERError(f"{path}: its description is incomplete ({_brief(error, 100)})") from error


def build_backbone(model: Mapping[str, Any], *, channels_last: bool) -> nn.Module:
    """Build the network of a config node, in its memory format."""
    backbone = instantiate(model, kind="fer_lightning.models.")
    if not isinstance(backbone, nn.Module):
        raise FERError(f"model: {model['_target_']}: expected a class that builds a network")
    return backbone.to(memory_format=torch.channels_last) if channels_last else backbone


def _brief(error: Exception, length: int) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else f"{text[:length]}..."


def load_classifier(path: Path) -> tuple[FERClassifier, CheckpointMetadata]:
    """Rebuild a trained classifier from its checkpoint alone.

    Raises:
        FERError: As ``read_checkpoint``, or if weights and config disagree.
    """
    content, origin = read_checkpoint(path)
    node = origin.config.get("model")
    if not isinstance(node, dict) or "_target_" not in node:
        raise FERError(f"{path}: its config names no model")
    settings = origin.config.get("classifier")
    if not isinstance(settings, Mapping | None):
        raise FERError(f"{path}: its config's classifier is {type(settings).__name__}, expected settings")
    model = _without_pretrained(node)
    weights = inference_state_dict(content["state_dict"])
    try:
        _check_network(model, weights)
        module = FERClassifier(
            backbone=build_backbone(model, channels_last=origin.channels_last),
            classes=origin.classes,
            mean=0.0,
            std=1.0,
            flip_test=(settings or {}).get("flip_test", False),
        )
    except FERError as error:
        raise FERError(f"{path}: {error}") from error
    if len(origin.classes) != model.get("num_classes"):
        raise FERError(
            f"{path}: it names {len(origin.classes)} classes, and its config has "
            f"model.num_classes={model.get('num_classes')}"
        )
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise FERError(f"{path}: its weights do not fit its config ({_brief(error, 200)})") from error
    return module.eval(), origin


def _without_pretrained(node: Mapping[str, Any]) -> dict[str, Any]:
    """Fetch no weights, at any depth: they stand in the checkpoint."""
    return {
        key: _without_pretrained(value)
        if isinstance(value, Mapping)
        else (False if key == "pretrained" else value)
        for key, value in node.items()
    }


def _check_network(model: dict[str, Any], weights: Mapping[str, Any]) -> None:
    """Refuse a config whose network would take more memory than the checkpoint's weights.

    Raises:
        FERError: If a setting is out of all proportion, or the network's shapes are not those of the weights.
    """
    for key, value in flatten(model).items():
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int | float) and not abs(number) <= MAX_SETTING:
                raise FERError(f"its config has model.{key}={number}, expected at most {MAX_SETTING:,}")
        if isinstance(value, list | tuple) and len(value) > MAX_LAYERS:
            raise FERError(f"its config has {len(value):,} of model.{key}, expected at most {MAX_LAYERS}")
    for key, most in (("image_size", MAX_IMAGE_SIZE), ("num_layers", MAX_LAYERS)):
        if isinstance(number := model.get(key), int) and number > most:
            raise FERError(f"its config has model.{key}={number}, expected at most {most:,}")
    with torch.device("meta"):  # shapes alone
        network = build_backbone(model, channels_last=False)
    wanted = sum(parameter.numel() for parameter in network.parameters())
    stored = sum(value.numel() for value in weights.values() if isinstance(value, Tensor))
    if wanted > stored:
        raise FERError(
            f"its weights do not fit its config: a network of {wanted:,} numbers, where {stored:,} are stored"
        )


def init_backbone(
    backbone: nn.Module, path: Path, classes: tuple[str, ...], say: Callable[[str], None]
) -> CheckpointMetadata:
    """Start a backbone from a checkpoint's weights; the head too where the classes are the same.

    Returns:
        Where the checkpoint comes from: what it has seen, these weights have seen.

    Raises:
        FERError: If the checkpoint is of another architecture.
    """
    content, origin = read_checkpoint(path)
    prefix = "backbone."
    weights: dict[str, Tensor] = {
        key.removeprefix(prefix): value
        for key, value in inference_state_dict(content["state_dict"]).items()
        if key.startswith(prefix)
    }
    same_classes = origin.classes == classes
    if not same_classes:
        weights = {key: value for key, value in weights.items() if not key.startswith("head.")}
    try:
        left_out, unknown = backbone.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise FERError(
            f"init_from={path}: another architecture than model= names ({_brief(error, 200)})"
        ) from error
    left_out = [key for key in left_out if same_classes or not key.startswith("head.")]
    if left_out or unknown:
        raise FERError(
            f"init_from={path}: another architecture than model= names "
            f"(missing {left_out[:3]}, unexpected {unknown[:3]})"
        )
    say(
        f"started from {path}"
        + ("" if same_classes else f"; new head for {len(classes)} classes in place of {len(origin.classes)}")
    )
    return origin
