"""Loading checkpoints: they describe themselves, are safe to load and sufficient to rebuild the classifier.

A checkpoint is Lightning's own with the entry ``fer_lightning``, see ``checkpoint_metadata``. The
normalisation of pixels is part of the weights.
"""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fer_lightning.config.compare import flatten
from fer_lightning.config.instantiate import instantiate
from fer_lightning.core.errors import FERError
from fer_lightning.core.files import check_not_special
from fer_lightning.data.labels import canonical_name
from fer_lightning.models.build import build_backbone
from fer_lightning.training.checkpoint_io import save_atomically
from fer_lightning.training.checkpoint_metadata import KEY, CheckpointMetadata
from fer_lightning.training.checkpoint_reader import brief, read_checkpoint
from fer_lightning.training.classifier import FERClassifier
from fer_lightning.training.ema import inference_state_dict

__all__ = ["KEY", "CheckpointMetadata", "read_checkpoint"]

# Limits of a network that the config of a checkpoint describes.
MAX_SETTING = 65_536
MAX_IMAGE_SIZE = 2_048  # pixels
MAX_LAYERS = 256  # each takes time to build, however small it is

# What a folder is searched for: a run's, or that of an export.
IN_FOLDERS = ("best.ckpt", "model.safetensors", "model.onnx")

_CLASSIFIER = "fer_lightning.training.classifier.FERClassifier"

SYNTHETIC_WARNING = "trained on synthetic faces; predictions on photographs are meaningless"


def find_checkpoint(path: str | Path) -> Path:
    """Turn the path of a checkpoint, a run folder or the folder of an export into that of a file.

    Raises:
        FERError: If there is none.
    """
    path = Path(path).expanduser()
    check_not_special(path)
    if path.is_dir():
        if name := holds_checkpoint(path):
            return path / name
        raise FERError(f"{path}: no best.ckpt in this folder; expected a run folder or a checkpoint")
    if not path.exists():
        raise FERError(f"{path}: no such file; expected a checkpoint or a run folder")
    return path


def holds_checkpoint(folder: Path) -> str | None:
    """Return the name of the checkpoint in a run folder or the folder of an export; None if there is none."""
    return next((name for name in IN_FOLDERS if (folder / name).is_file()), None)


def load_classifier(
    path: Path, *, trust: Collection[str] = (), backbone: nn.Module | None = None
) -> tuple[FERClassifier, CheckpointMetadata]:
    """Rebuild a trained classifier from its checkpoint alone, on the CPU in float32.

    Args:
        path: A checkpoint of train.py, or of any Trainer that trained a ``FERClassifier``.
        trust: Packages whose networks the checkpoint's config may name, besides this project's.
        backbone: The network, for a checkpoint whose config does not describe it.

    Raises:
        FERError: If the file is missing, damaged, hostile, not of this project, or its weights do not fit its
            config.
    """
    content, metadata = read_checkpoint(path)
    weights = inference_state_dict(content["state_dict"])
    return rebuild_classifier(path, metadata, weights, trust=trust, backbone=backbone), metadata


def rebuild_classifier(
    path: Path,
    metadata: CheckpointMetadata,
    weights: Mapping[str, Any],
    *,
    trust: Collection[str] = (),
    backbone: nn.Module | None = None,
) -> FERClassifier:
    """Build a classifier of what a file describes, with the weights that it holds, on the CPU in float32.

    Args:
        path: The file, for messages.
        metadata: Its description; only networks of this project and of trusted packages are built.
        weights: State of the classifier for inference; numbers of any precision.
        trust: Packages whose networks the description may name, besides this project's.
        backbone: The network, where the description has none.

    Raises:
        FERError: If the description names a network that is not trusted or unreasonably large, or the weights
            do not fit it.
    """
    settings = metadata.config.get("classifier")
    if not isinstance(settings, Mapping | None):
        raise FERError(f"{path}: its config's classifier is {type(settings).__name__}, expected settings")
    weights = {
        name: value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in weights.items()
    }
    try:
        network = backbone or _build_without_weights(metadata, weights, trust)
        module = _with_weights(network, weights, metadata, trust)
        if any(buffer.is_meta for buffer in module.buffers()):  # one that no checkpoint stores
            network = build_backbone(_without_pretrained(metadata.config["model"]), trust=trust)
            module = _with_weights(network, weights, metadata, trust)
    except FERError as error:
        raise FERError(f"{path}: {error}") from error
    except (RuntimeError, TypeError, AttributeError) as error:
        raise FERError(f"{path}: its weights do not fit its config ({brief(error, 200)})") from error
    if metadata.channels_last:
        module.backbone.to(memory_format=torch.channels_last)
    return module.eval()


def store_calibration(path: Path, temperature: float, threshold: float | None) -> None:
    """Write the calibration of a checkpoint's weights into it; everything else stays as it is.

    Args:
        path: A checkpoint of this project.
        temperature: By which its logits are divided, above 0.
        threshold: Smallest calibrated probability of an answer that counts as sure; None if there is none.

    Raises:
        OSError: If the disk is full; the file is then unchanged.
    """
    content, _ = read_checkpoint(path)
    content[KEY] |= {"temperature": temperature, "threshold": threshold}
    save_atomically(content, path)


def _with_weights(
    backbone: nn.Module, weights: Mapping[str, Any], metadata: CheckpointMetadata, trust: Collection[str]
) -> FERClassifier:
    """Make a classifier, of the class that the config names, of a network and the weights of a checkpoint."""
    settings = metadata.config.get("classifier") or {}
    if settings.get("_target_", _CLASSIFIER) == _CLASSIFIER:
        module = FERClassifier(
            backbone=backbone, classes=metadata.classes, flip_test=settings.get("flip_test", False)
        )
    else:
        settings = {**settings, "ema_decay": 0.0}  # its averaged weights are the weights now
        given = {"backbone": backbone, "classes": metadata.classes}
        module = instantiate(settings, name="classifier", kind=_CLASSIFIER, trust=trust, **given)
        if not isinstance(module, FERClassifier):
            raise FERError(f"classifier: {settings['_target_']}: expected a FERClassifier")
    module.load_state_dict(weights, assign=True)
    return module


def _build_without_weights(
    metadata: CheckpointMetadata, weights: Mapping[str, Any], trust: Collection[str]
) -> nn.Module:
    """Build the network of a checkpoint's config on the meta device, which takes no memory.

    Raises:
        FERError: If the config names no network, a setting is out of all proportion, or the network would
            take more memory than the checkpoint's weights.
    """
    node = metadata.config.get("model")
    if not isinstance(node, dict) or "_target_" not in node:
        raise FERError(
            "its config names no model, since its network was built in Python; load it with "
            "FERClassifier.load_from_checkpoint(path, backbone=...)"
        )
    model = _without_pretrained(node)
    for key, value in flatten(model).items():
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int | float) and not abs(number) <= MAX_SETTING:
                raise FERError(f"its config has model.{key}={number}, expected at most {MAX_SETTING:,}")
        if isinstance(value, list | tuple) and len(value) > MAX_LAYERS:
            raise FERError(f"its config has {len(value):,} of model.{key}, expected at most {MAX_LAYERS}")
    for key, most in (("image_size", MAX_IMAGE_SIZE), ("num_layers", MAX_LAYERS)):
        if isinstance(number := model.get(key), int) and number > most:
            raise FERError(f"its config has model.{key}={number}, expected at most {most:,}")
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*meta parameter.*")  # initial weights are not stored
        network = build_backbone(model, trust=trust)
    wanted = sum(parameter.numel() for parameter in network.parameters())
    stored = sum(value.numel() for value in weights.values() if isinstance(value, Tensor))
    if wanted > stored:
        raise FERError(
            f"its weights do not fit its config: a network of {wanted:,} numbers, where {stored:,} are stored"
        )
    if len(metadata.classes) != model.get("num_classes"):
        raise FERError(
            f"it names {len(metadata.classes)} classes, and its config has "
            f"model.num_classes={model.get('num_classes')}"
        )
    return network


def _without_pretrained(node: Mapping[str, Any]) -> dict[str, Any]:
    """Switch off the download of weights at any depth; the checkpoint holds them."""
    return {
        key: _without_pretrained(value)
        if isinstance(value, Mapping)
        else (False if key == "pretrained" else value)
        for key, value in node.items()
    }


def init_backbone(
    backbone: nn.Module, path: Path, classes: tuple[str, ...], log: Callable[[str], None]
) -> CheckpointMetadata:
    """Start a backbone from a checkpoint's weights; of the head, the rows of the classes that both have.

    Args:
        backbone: Changed in place.
        path: A checkpoint.
        classes: Class names of the new network, matched with those of the checkpoint by ``canonical_name``.
        log: Takes a sentence for people.

    Returns:
        The metadata: images that the checkpoint has seen, the new network has seen.

    Raises:
        FERError: If the checkpoint is of another architecture.
    """
    content, metadata = read_checkpoint(path)
    prefix = "backbone."
    weights: dict[str, Tensor] = {
        key.removeprefix(prefix): value
        for key, value in inference_state_dict(content["state_dict"]).items()
        if key.startswith(prefix)
    }
    said = f"started from {path}"
    if metadata.classes != classes:
        kept = _reorder_head(weights, backbone.state_dict(), metadata.classes, classes)
        new = [name for name in classes if name not in kept]
        said += f"; its head for {', '.join(kept)} is kept" if kept else ""
        said += f"; new head for {', '.join(new)}" if new else ""
    try:
        left_out, unknown = backbone.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise FERError(
            f"init_from={path}: another architecture than model= names ({brief(error, 200)})"
        ) from error
    left_out = [key for key in left_out if metadata.classes == classes or not key.startswith("head.")]
    if left_out or unknown:
        raise FERError(
            f"init_from={path}: another architecture than model= names "
            f"(missing {left_out[:3]}, unexpected {unknown[:3]})"
        )
    log(said)
    return metadata


def _reorder_head(
    weights: dict[str, Tensor],
    initial: Mapping[str, Tensor],
    before: Sequence[str],
    classes: Sequence[str],
) -> list[str]:
    """Put the head's rows of the classes that both networks have into the new order, in place.

    Args:
        weights: Of the checkpoint's backbone. Rows of other classes, and a head of another kind, are dropped.
        initial: Of the new backbone, whose rows the other classes keep.
        before: The classes of the checkpoint.
        classes: The classes of the new network.

    Returns:
        The classes whose rows were kept.
    """
    old_head = {key: weights.pop(key) for key in list(weights) if key.startswith("head.")}
    one_row_per_class = all(
        key in initial
        and old.ndim > 0
        and len(old) == len(before)
        and initial[key].shape == (len(classes), *old.shape[1:])
        for key, old in old_head.items()
    )
    if not one_row_per_class:
        return []
    places = {canonical_name(name): row for row, name in enumerate(before)}
    rows = {new: places.get(canonical_name(name)) for new, name in enumerate(classes)}
    shared = {new: old for new, old in rows.items() if old is not None}
    for key, old in old_head.items():
        weights[key] = initial[key].clone()
        weights[key][list(shared)] = old[list(shared.values())].to(weights[key].dtype)
    return [classes[new] for new in shared]
