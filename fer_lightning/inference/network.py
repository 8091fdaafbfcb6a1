"""Trained networks to predict with: the one in the package, run folders, checkpoints, safetensors."""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from fer_lightning.config.limits import limits_warning
from fer_lightning.evaluation.calibration import Calibration, calibration_in
from fer_lightning.inference.described_weights import read_described
from fer_lightning.inference.onnx_network import OnnxNetwork
from fer_lightning.training.checkpoint import (
    SYNTHETIC_WARNING,
    CheckpointMetadata,
    find_checkpoint,
    load_classifier,
)
from fer_lightning.training.classifier import FERClassifier

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "weights" / "resnet15.safetensors"


class Network(NamedTuple):
    """A trained network, ready to predict.

    Attributes:
        path: The file that it was read from.
        classifier: In evaluation mode, on the CPU, in float32.
        metadata: Its description. Files of safetensors do not hold which images trained the network.
        calibration: Temperature and threshold; those of a network that was not calibrated change nothing.
    """

    path: Path
    classifier: FERClassifier
    metadata: CheckpointMetadata
    calibration: Calibration


def load_network(path: str | Path | None = None, *, trust: Collection[str] = ()) -> Network:
    """Load a network; warn if it was trained on synthetic faces, or on a part of the images.

    Args:
        path: A run folder, a checkpoint or a file of safetensors; None is the network that the package holds.
        trust: Packages whose networks the file may name, besides this project's.

    Raises:
        FERError: If a file is missing, damaged or hostile.
    """
    found = SHIPPED if path is None else find_checkpoint(path)
    if found.suffix == ".safetensors":
        classifier, metadata, calibration = read_described(found, trust=trust)
    else:
        classifier, metadata = load_classifier(found, trust=trust)
        calibration = calibration_in(found, metadata) or Calibration()
    _warn(found, metadata)
    return Network(found, classifier, metadata, calibration)


def load_any_network(path: str | Path | None = None, *, trust: Collection[str] = ()) -> Network | OnnxNetwork:
    """Load a network as ``load_network`` does, or an ONNX file of ``export``."""
    found = SHIPPED if path is None else find_checkpoint(path)
    if found.suffix != ".onnx":
        return load_network(found, trust=trust)
    network = OnnxNetwork(found)
    _warn(found, network.metadata)
    return network


def _warn(path: Path, metadata: CheckpointMetadata) -> None:
    if metadata.is_synthetic:
        log.warning("%s: %s", path, SYNTHETIC_WARNING)
    if metadata.limits:
        log.warning("%s: %s", path, limits_warning(metadata.limits))
