"""Turn a finished run on FER-2013 into the files of a network: weights, description and model card."""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors.torch import save

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import read_json_object, replacing, write_atomically, write_json
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.evaluation.calibration import calibrate, describe_calibration
from fer_lightning.evaluation.evaluate import predict_splits
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.inference.described_weights import (
    SCHEMA,
    describe_images,
    describe_metadata,
    describe_run,
    half_precision,
)
from fer_lightning.inference.model_card import write_card
from fer_lightning.training.checkpoint import find_checkpoint, load_classifier, rebuild_classifier


def pack_run(run: Path, data: FERDataModule, target: Path) -> dict[str, Any]:
    """Write ``TARGET.safetensors``, ``TARGET.json`` and ``TARGET.md``.

    The accuracies are those of the rounded weights, in float32.

    Args:
        run: Folder of a finished run.
        data: The data set of the run, after ``setup``, with a val split.
        target: The files, without their endings.

    Returns:
        The description.

    Raises:
        FERError: If the run is not finished, or was trained on other data.
    """
    classifier, metadata = load_classifier(find_checkpoint(run))
    record, metrics = read_json_object(run / "run.json"), read_json_object(run / "metrics.json")
    if record is None or metrics is None or record.get("state") != "finished":
        raise FERError(f"{run}: not a finished run")
    if data.faces.fingerprint != metadata.fingerprint:
        raise FERError(f"{run}: trained on other data than these ({data.faces.fingerprint[:12]})")
    weights = half_precision(classifier.state_dict())
    content = save(weights)
    described = describe_metadata(metadata)
    network = rebuild_classifier(run, metadata, weights)
    trainer = described["config"]["trainer"] | {"accelerator": "cpu", "precision": "32-true"}
    answers = predict_splits(network, metadata, data, ["val", "test"], trainer)
    calibration = calibrate(answers["val"])
    if calibration is None:
        raise FERError(f"{run}: {len(answers['val'])} val images are too few for a calibration")
    description = {
        "schema": SCHEMA,
        "name": target.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "classes": list(metadata.classes),
        "image": {
            "size": described["config"]["model"]["image_size"],
            "channels": described["config"]["model"].get("in_channels", 1),
            "mean": classifier.mean.tolist(),
            "std": classifier.std.tolist(),
        },
        "num_parameters": sum(parameter.numel() for parameter in classifier.backbone.parameters()),
        "calibration": describe_calibration(calibration, answers),
        "metrics": {split: _accuracies(answers[split]) for split in ("val", "test")},
        "metrics_of_run": {
            split: {"acc": metrics[split]["acc"], "leak_free_acc": metrics[split]["leak_free"]["acc"]}
            for split in ("val", "test")
        },
        "run": describe_run(record),
        "training_images": describe_images(metadata),
        "checkpoint": described,
    }
    with replacing(target.with_suffix(".safetensors")) as file:
        file.write(content)
    write_json(target.with_suffix(".json"), json.loads(json.dumps(description)))
    write_atomically(target.with_suffix(".md"), write_card(description))
    return description


def _accuracies(answers: Predictions) -> dict[str, Any]:
    right = answers.probs.argmax(axis=1) == answers.labels
    recalls = {
        name: float(right[answers.labels == label].mean()) for label, name in enumerate(answers.classes)
    }
    return {
        "acc": float(right.mean()),
        "n": len(right),
        "leak_free_acc": float(right[~answers.leaked].mean()),
        "leak_free_n": int((~answers.leaked).sum()),
        "recall": recalls,
    }
