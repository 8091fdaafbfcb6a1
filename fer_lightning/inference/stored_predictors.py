"""Predictors for eval.py from files of any kind: checkpoints, safetensors, ONNX."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from fer_lightning.config.folders import CONF
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.splits import make_splits, without_leaks
from fer_lightning.evaluation.calibration import Calibration
from fer_lightning.evaluation.checkpoint_predictor import CheckpointPredictor, folder_name
from fer_lightning.evaluation.evaluate import check_has_images, to_predictions
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.inference.described_weights import describe_images, read_described, read_description
from fer_lightning.inference.onnx_network import OnnxNetwork
from fer_lightning.training.checkpoint import SYNTHETIC_WARNING, CheckpointMetadata

log = logging.getLogger(__name__)

NOT_HELD = "this kind of file does not hold which images trained the network"


class OnnxPredictor(NamedTuple):
    """An ONNX file and where its network comes from.

    Attributes:
        path: The file.
        network: On the CPU.
        metadata: From the file.
        calibration: From the file; None if the network was not calibrated.
    """

    path: Path
    network: OnnxNetwork
    metadata: CheckpointMetadata
    calibration: Calibration | None = None

    @property
    def name(self) -> str:
        """The name of its folder, or of a file that is alone."""
        return folder_name(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def facts(self) -> dict[str, Any]:
        """Describe it for ``run.json``."""
        described = self.network.description
        return {
            "model": str(self.metadata.config["model"]["_target_"]).rpartition(".")[2].lower(),
            "checkpoint": str(self.path),
            "precision": "int8" if described.get("precision") == "int8" else "32-true",
            "num_parameters": count if isinstance(count := described.get("num_parameters"), int) else None,
            "selected_by": self.metadata.selected_by,
            "best_epoch": self.metadata.epoch,
            "best_score": self.metadata.score,
        }

    def predict(self, data: FERDataModule, split: str, rows: NDArray[np.int64]) -> Predictions:
        """Predict some images of a split, with the probabilities before calibration, as a checkpoint does.

        Args:
            data: After ``setup``.
            split: ``train``, ``val``, ``test`` or ``all``.
            rows: ``(N,)`` int64 rows of the split to return.
        """
        if self.metadata.is_synthetic:
            log.warning("%s: %s", self.path, SYNTHETIC_WARNING)
        check_has_images(data, split)
        loader = data.eval_loader(split)
        trainer = self.metadata.config["trainer"]
        limit = trainer.get("limit_test_batches", trainer["limit_predict_batches"])
        if len(rows) < len(data.split_rows(split)):
            limit = 1.0  # a smoke run's limit would cut the sample
        num_batches = min(limit, len(loader)) if isinstance(limit, int) else int(limit * len(loader))
        found = [
            (batch.rows.numpy(), self.network.uncalibrated(np.ascontiguousarray(batch.images.numpy())))
            for batch in islice(loader, num_batches)
        ]
        predicted, probs = (np.concatenate(parts) for parts in zip(*found, strict=True))
        everything = to_predictions(probs, predicted, self.metadata, data, split, precision="ONNX Runtime")
        return everything.subset(np.isin(everything.ids, data.faces.ids[rows]))


def load_predictor(
    path: Path, *, trust: Collection[str] = (), num_threads: int = 0
) -> CheckpointPredictor | OnnxPredictor:
    """Load a predictor by the ending of its file.

    Args:
        path: A checkpoint, ``.safetensors`` or ``.onnx``.
        trust: Packages whose networks a file may name, besides this project's.
        num_threads: Of ONNX Runtime; 0 lets it choose.

    Raises:
        FERError: If the file is missing, damaged or hostile.
    """
    if path.suffix == ".onnx":
        network = OnnxNetwork(path, num_threads=num_threads)
        calibration = _given(network.calibration)
        return OnnxPredictor(path, network, with_data_settings(network.metadata), calibration)
    if path.suffix == ".safetensors":
        classifier, metadata, calibration = read_described(path, trust=trust)
        metadata = replace(with_data_settings(metadata), precision="32-true")  # as `predict` uses its weights
        return CheckpointPredictor(path, classifier, metadata, _given(calibration))
    return CheckpointPredictor.load(path, trust=trust)


def _given(calibration: Calibration) -> Calibration | None:
    """Return the calibration of a file; None if it changes nothing."""
    return None if calibration == Calibration() else calibration


def with_data_settings(metadata: CheckpointMetadata) -> CheckpointMetadata:
    """Fill in the settings of the data that a file does not hold: those of its data set's own option."""
    stored = metadata.config.get("data")
    if not isinstance(stored, Mapping) or stored.get("name") not in _data_options():
        return metadata
    node = _option(str(stored["name"]))
    model = metadata.config.get("model")
    if isinstance(model, Mapping):
        node |= {"image_size": model.get("image_size"), "channels": model.get("in_channels", 1)}
    node |= {"classes": list(metadata.classes), "num_classes": len(metadata.classes)}
    node |= {"seed": metadata.config.get("seed", 0)}
    return replace(metadata, config={**metadata.config, "data": {**node, **stored}})


def _option(name: str) -> dict[str, Any]:
    """Read an option of the group data, without what only training uses; Hydra may be running already."""
    node: Any = OmegaConf.load(CONF / "data" / f"{name}.yaml")
    if "defaults" in node:  # fer2013@_here_, then itself
        node = OmegaConf.merge(OmegaConf.load(CONF / "data" / "fer2013.yaml"), node)
    plain: Any = OmegaConf.to_container(node, resolve=False)
    unused = ("defaults", "augment", "batch_transforms", "cache_dir", "seed")
    return {key: value for key, value in plain.items() if key not in unused}


def _data_options() -> set[str]:
    return {path.stem for path in (CONF / "data").glob("*.yaml")}


def with_training_images(
    predictor: CheckpointPredictor | OnnxPredictor, data: FERDataModule
) -> tuple[CheckpointPredictor | OnnxPredictor, str]:
    """Find the images that trained a network whose file holds no hashes of them.

    They are known if the data set has the fingerprint of the one that trained it: its split is made again.

    Args:
        predictor: Of a file of any kind; a checkpoint is returned as it is.
        data: After ``setup``.

    Returns:
        The predictor, and why the images are not known; empty if they are.
    """
    if predictor.metadata.unknown_before is not None:
        return predictor, predictor.metadata.unknown_before
    if isinstance(predictor, OnnxPredictor):
        described = predictor.network.description
    elif predictor.path.suffix == ".safetensors":
        described = read_description(predictor.path)
    else:
        return predictor, ""
    metadata, faces = predictor.metadata, data.faces
    if faces.fingerprint != metadata.fingerprint:
        return predictor, f"{NOT_HELD}, and these images are not of the data set that did"
    node = metadata.config["data"]
    val_fraction = node["val_fraction"]
    together = val_fraction > 0 and node.get("near_duplicates", "together") == "together"
    rows, _ = make_splits(
        faces,
        protocol=node["protocol"],
        val_fraction=val_fraction,
        seed=node.get("seed", metadata.config.get("seed", 0)),
        near=data.find_near_duplicates() if together else None,
    )
    if node.get("drop_leaks"):
        rows = without_leaks(faces, rows)
    is_selected = metadata.selected_by != "last"
    found = replace(
        metadata,
        trained_on=np.unique(faces.hashes[rows["train"]]),
        selected_on=np.unique(faces.hashes[rows["val"] if is_selected else rows["val"][:0]]),
    )
    stored = described.get("training_images")
    if stored is not None and stored != describe_images(found):
        return predictor, f"{NOT_HELD}, and they were others than those of its split, as after init_from"
    return predictor._replace(metadata=found), ""
