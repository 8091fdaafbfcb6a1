"""ONNX files that ``export`` wrote, read as untrusted input and run by ONNX Runtime."""

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.evaluation.calibration import Calibration, with_temperature
from fer_lightning.inference.described_weights import parse_description, read_limited
from fer_lightning.training.checkpoint import CheckpointMetadata
from fer_lightning.training.checkpoint_reader import brief

INPUT, OUTPUT = "images", "probs"
LAYOUT = "images uint8 (N, C, H, W), C 1 (grey) or 3 (RGB), any H and W; probs float32 (N, classes)"
KEY = "fer_lightning"  # of the description in the metadata
MAX_DESCRIPTION = 1_000_000  # characters; ours have some thousand


class OnnxNetwork:
    """An ONNX file of this project, ready to predict on the CPU.

    Args:
        path: The file.
        num_threads: Of ONNX Runtime; 0 lets it choose.

    Raises:
        FERError: If ONNX Runtime is missing, or the file is missing, damaged, or not of this project.

    Attributes:
        description: What the file says of itself, plain values.
        metadata: The checkpoint from which it was made, without hashes of images.
        calibration: Temperature and threshold that are part of it.
    """

    def __init__(self, path: Path, *, num_threads: int = 0) -> None:
        self.path = path
        self._session = _open_session(path, num_threads)
        self.description = _read_properties(path, self._session.get_modelmeta().custom_metadata_map)
        self.metadata: CheckpointMetadata
        self.calibration: Calibration
        self.metadata, self.calibration = parse_description(self.description, path)
        found = [
            (each.name, each.type) for each in (*self._session.get_inputs(), *self._session.get_outputs())
        ]
        if found != [(INPUT, "tensor(uint8)"), (OUTPUT, "tensor(float)")]:
            raise FERError(
                f"{path}: takes and gives {', '.join(map(str, found))[:100]}; expected images "
                "(uint8) and probs (float)"
            )

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map ``(N, 1 or 3, H, W)`` uint8 faces to ``(N, num_classes)`` calibrated probabilities."""
        try:
            (probs,) = self._session.run([OUTPUT], {INPUT: images})
        except Exception as error:  # ONNX Runtime's own kinds
            raise FERError(f"{self.path}: ONNX Runtime fails ({brief(error, 200)})") from error
        if probs.shape != (len(images), len(self.metadata.classes)):
            raise FERError(
                f"{self.path}: answers of shape {probs.shape} for {len(images)} images and "
                f"{len(self.metadata.classes)} classes"
            )
        answers: NDArray[np.float32] = probs
        return answers

    def uncalibrated(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities before calibration, which are the calibrated ones to the power of T."""
        probs, temperature = self(images), self.calibration.temperature
        return probs if temperature == 1 else with_temperature(probs, 1 / temperature)


def _open_session(path: Path, num_threads: int) -> Any:
    try:
        ort = import_module("onnxruntime")
    except ImportError as error:
        raise FERError(f"{path}: ONNX Runtime is not installed; pip install onnxruntime") from error
    content = read_limited(path)
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 4  # its errors are raised
    try:
        # From bytes: a model cannot name other files of this machine as the place of its weights.
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own kinds
        raise FERError(f"{path}: damaged, or no ONNX file ({brief(error, 100)})") from error


def _read_properties(path: Path, properties: Mapping[str, str]) -> dict[str, Any]:
    text = properties.get(KEY)
    if text is None:
        raise FERError(f"{path}: no description in it; expected an ONNX file that fer-lightning export wrote")
    if len(text) > MAX_DESCRIPTION:
        raise FERError(
            f"{path}: a description of {len(text):,} characters, expected at most {MAX_DESCRIPTION:,}"
        )
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FERError(f"{path}: its description is no JSON ({brief(error, 100)})") from error
    if not isinstance(description, dict):
        raise FERError(f"{path}: its description is a {type(description).__name__}, expected a JSON object")
    return description
