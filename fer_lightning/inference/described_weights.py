"""Networks as a file of safetensors with a JSON description: no code, no pickle."""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import check_not_special, read_json_object
from fer_lightning.evaluation.calibration import MAX_TEMPERATURE, Calibration
from fer_lightning.training.checkpoint import CheckpointMetadata, rebuild_classifier
from fer_lightning.training.checkpoint_reader import brief
from fer_lightning.training.classifier import FERClassifier

SCHEMA = 1
MAX_BYTES = 2**31  # of a file of weights


def read_described(
    path: Path, *, trust: Collection[str] = ()
) -> tuple[FERClassifier, CheckpointMetadata, Calibration]:
    """Read ``NAME.safetensors`` and ``NAME.json``; build the network as checkpoints are built.

    Args:
        path: The file of weights.
        trust: Packages whose networks the description may name, besides this project's.

    Returns:
        The classifier, in evaluation mode, on the CPU, in float32; its description, without the hashes of
        the images that trained it, which such files do not hold; its calibration.

    Raises:
        FERError: If a file is missing, damaged or hostile, or the two do not belong together.
    """
    description = read_description(path)
    content = read_limited(path)
    if hashlib.sha256(content).hexdigest() != description.get("sha256"):
        raise FERError(f"{path}: damaged, or of another description: its sha256 is not the one in the JSON")
    metadata, calibration = parse_description(description, path)
    try:
        weights = load(content)
    except SafetensorError as error:
        raise FERError(f"{path}: damaged, or no safetensors ({brief(error, 100)})") from error
    return rebuild_classifier(path, metadata, weights, trust=trust), metadata, calibration


def read_description(path: Path) -> dict[str, Any]:
    """Read what describes a file of weights: ``NAME.json``, or ``config.json`` of a folder for the Hub.

    Raises:
        FERError: If there is none, or it cannot be read.
    """
    for place in (path.with_suffix(".json"), path.with_name("config.json")):
        if (description := read_json_object(place)) is not None:
            return description
    raise FERError(f"{path.with_suffix('.json')}: no such file; expected the description of {path.name}")


def parse_description(description: Mapping[str, Any], path: Path) -> tuple[CheckpointMetadata, Calibration]:
    """Check what a file says of its network.

    Args:
        description: Plain values, untrusted.
        path: Of the weights, for messages.

    Returns:
        The metadata, without the hashes of the images that trained the network; the calibration.

    Raises:
        FERError: If it is of another schema, incomplete, or has a value out of range.
    """
    try:
        if description["schema"] != SCHEMA:
            raise FERError(f"{path}: schema {str(description['schema'])[:40]}, expected {SCHEMA}")
        return _metadata(description["checkpoint"]), _calibration(description["calibration"])
    except FERError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise FERError(f"{path}: its description is incomplete ({brief(error, 100)})") from error


def read_limited(path: Path) -> bytes:
    """Read a file of weights of at most ``MAX_BYTES``."""
    check_not_special(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FERError(f"{path}: more than {MAX_BYTES:,} bytes")
        return path.read_bytes()
    except FERError:
        raise
    except OSError as error:
        raise FERError(f"{path}: {error.strerror or error}") from error


def _metadata(described: Mapping[str, Any]) -> CheckpointMetadata:
    """Restore the metadata of a checkpoint, without the hashes of images."""
    hashes = torch.empty(0, dtype=torch.int64)
    return CheckpointMetadata.from_plain({**described, "trained_on": hashes, "selected_on": hashes})


def _calibration(described: Mapping[str, Any]) -> Calibration:
    temperature, threshold = described["temperature"], described["threshold"]
    if not isinstance(temperature, float) or not 1 / MAX_TEMPERATURE <= temperature <= MAX_TEMPERATURE:
        raise ValueError(f"temperature={temperature}: expected a number up to {MAX_TEMPERATURE}")
    if threshold is not None and not (isinstance(threshold, float) and 0 <= threshold <= 1):
        raise ValueError(f"threshold={threshold}: expected a number in [0, 1]")
    return Calibration(temperature, threshold)


# Settings that decide which images are in which split, and how a network is evaluated.
_DATA = (
    *("_target_", "name", "classes", "num_classes", "image_size", "channels", "protocol", "val_fraction"),
    *("near_duplicates", "drop_leaks", "batch_size", "eval_batch_size", "on_bad", "seed"),
)
_TRAINER = (
    *("accelerator", "precision", "deterministic", "limit_train_batches", "limit_val_batches"),
    *("limit_test_batches", "limit_predict_batches", "overfit_batches"),
)


def _is_place(key: str, value: object) -> bool:
    """Return whether a setting of a reader is a path."""
    return key in ("root", "labels") or (key == "group" and isinstance(value, Mapping))


def describe_images(metadata: CheckpointMetadata) -> dict[str, Any] | None:
    """Describe which images trained and selected a network: their numbers, and a hash over their hashes.

    Returns:
        None if the metadata have no hashes. Files of weights do not hold the hashes themselves.
    """
    if not len(metadata.trained_on):
        return None
    seen = [np.unique(hashes) for hashes in (metadata.trained_on, metadata.selected_on)]
    joined = b"".join(hashes.astype("<u8").tobytes() for hashes in seen)
    return {
        "trained_on": len(seen[0]),
        "selected_on": len(seen[1]),
        "sha256": hashlib.sha256(joined).hexdigest(),
    }


def describe_metadata(metadata: CheckpointMetadata) -> dict[str, Any]:
    """Describe what a network needs to be built and evaluated, without paths."""
    kept = ("model", "classifier", "seed")
    config = {key: metadata.config[key] for key in kept if key in metadata.config}
    data, trainer = metadata.config.get("data") or {}, metadata.config.get("trainer") or {}
    config["data"] = {key: data[key] for key in _DATA if key in data}
    if isinstance(source := data.get("source"), Mapping):
        config["data"]["source"] = {key: value for key, value in source.items() if not _is_place(key, value)}
    config["trainer"] = {key: trainer[key] for key in _TRAINER if key in trainer}
    plain = metadata.to_plain()
    hashes = ("trained_on", "selected_on", "schema")
    return {key: value for key, value in plain.items() if key not in hashes} | {"config": config}


def describe_run(record: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what ``run.json`` says of the training, without paths."""
    kept = ("model", "dataset", "seed", "started", "precision", "machine", "git", "versions", "monitor")
    described = {key: record[key] for key in kept if key in record}
    described["overrides"] = [text for text in record.get("overrides", []) if "/" not in text]
    described["config_hash"] = record.get("config_hash")
    return described


def half_precision(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Round weights to float16; whole numbers and the mean and deviation of pixels stay as they are.

    Raises:
        FERError: If a weight is too large for float16.
    """
    rounded = {
        name: value.half() if value.is_floating_point() and value.ndim else value
        for name, value in weights.items()
    }
    for name, value in rounded.items():
        if not np.isfinite(value.float().numpy()).all():
            raise FERError(f"{name}: holds numbers beyond float16, whose largest is 65,504")
    return {name: value.contiguous() for name, value in rounded.items()}
