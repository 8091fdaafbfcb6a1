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
from fer_lightning.evaluation.calibration import Calibration
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
    description = read_json_object(path.with_suffix(".json"))
    if description is None:
        raise FERError(f"{path.with_suffix('.json')}: no such file; expected the description of {path.name}")
    content = _read(path)
    try:
        if description["schema"] != SCHEMA:
            raise FERError(f"{path}: schema {str(description['schema'])[:40]}, expected {SCHEMA}")
        if hashlib.sha256(content).hexdigest() != description["sha256"]:
            raise FERError(
                f"{path}: damaged, or of another description: its sha256 is not the one in the JSON"
            )
        metadata = _metadata(description["checkpoint"])
        calibrated = description["calibration"]
        calibration = Calibration.checked(calibrated["temperature"], calibrated["threshold"])
    except FERError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FERError(f"{path.with_suffix('.json')}: incomplete ({brief(error, 100)})") from error
    try:
        weights = load(content)
    except SafetensorError as error:
        raise FERError(f"{path}: damaged, or no safetensors ({brief(error, 100)})") from error
    return rebuild_classifier(path, metadata, weights, trust=trust), metadata, calibration


def _read(path: Path) -> bytes:
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


def describe_metadata(metadata: CheckpointMetadata) -> dict[str, Any]:
    """Describe what a network needs to be built, without paths and other settings of the run."""
    kept = ("model", "classifier", "seed")
    config = {key: metadata.config[key] for key in kept if key in metadata.config}
    data, trainer = metadata.config.get("data") or {}, metadata.config.get("trainer") or {}
    config["data"] = {key: data[key] for key in ("name", "protocol", "batch_size") if key in data}
    names = ("accelerator", "precision", "deterministic", "limit_predict_batches")
    config["trainer"] = {key: trainer[key] for key in names if key in trainer}
    plain = metadata.to_plain()
    left_out = ("trained_on", "selected_on", "schema", "temperature", "threshold")
    return {key: value for key, value in plain.items() if key not in left_out} | {"config": config}


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
