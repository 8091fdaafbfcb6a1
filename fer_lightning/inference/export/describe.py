"""What an export says of its network: how it was trained, how accurate it is, how to build it again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fer_lightning.core.files import read_json_object
from fer_lightning.evaluation.checkpoint_predictor import folder_name
from fer_lightning.inference.described_weights import (
    SCHEMA,
    describe_images,
    describe_metadata,
    describe_run,
    read_description,
)
from fer_lightning.inference.network import Network
from fer_lightning.inference.onnx_network import LAYOUT


def describe_network(network: Network) -> dict[str, Any]:
    """Describe a network for its export; what is not known is None.

    Args:
        network: From ``load_network``.

    Returns:
        Plain values: ``schema``, ``name``, ``classes``, ``image``, ``num_parameters``, ``precision``,
        ``calibration``, ``training_images``, ``metrics``, ``run``, ``limited`` and ``checkpoint``.
    """
    path, classifier, metadata = network.path, network.classifier, network.metadata
    backbone = classifier.backbone if classifier.averaged is None else classifier.averaged
    known = _of_safetensors(path) if path.suffix == ".safetensors" else _of_run(path)
    model = metadata.config["model"]
    return {
        "schema": SCHEMA,
        "name": folder_name(path),
        "classes": list(metadata.classes),
        "image": {
            "size": model["image_size"],
            "channels": model.get("in_channels", 1),
            "mean": classifier.mean.flatten().tolist() if classifier.mean.ndim else classifier.mean.item(),
            "std": classifier.std.flatten().tolist() if classifier.std.ndim else classifier.std.item(),
            "layout": LAYOUT,
        },
        "num_parameters": sum(parameter.numel() for parameter in backbone.parameters()),
        "precision": "float32",
        "calibration": {**known.get("calibration", {}), **network.calibration._asdict()},
        "training_images": known.get("training_images") or describe_images(metadata),
        "metrics": known.get("metrics"),
        "run": known.get("run"),
        "limited": metadata.limits,
        "checkpoint": describe_metadata(metadata),
    }


def _of_safetensors(path: Path) -> dict[str, Any]:
    """Return what the description of a file of weights says, as ``pack_run`` or an export wrote it."""
    description = read_description(path)
    kept = ("calibration", "training_images", "metrics", "run")
    return {key: description[key] for key in kept if description.get(key) is not None}


def _of_run(path: Path) -> dict[str, Any]:
    """Return what the folder of a finished run says of its best checkpoint; nothing for any other file."""
    if path.name != "best.ckpt":
        return {}
    record, metrics = (read_json_object(path.parent / name) for name in ("run.json", "metrics.json"))
    if record is None:
        return {}
    known: dict[str, Any] = {"run": describe_run(record)}
    if metrics is not None and record.get("state") == "finished":
        known["metrics"] = {
            split: _measured(metrics[split])
            for split in ("val", "test")
            if isinstance(metrics.get(split), dict)
        }
    return known


def _measured(split: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the figures of a split of ``metrics.json`` that a card shows."""
    leak_free = split.get("leak_free") or {}
    return {
        "acc": split["acc"],
        "n": split["n"],
        "leak_free_acc": leak_free.get("acc"),
        "leak_free_n": leak_free.get("n"),
        "f1_macro": split.get("f1_macro"),
        "ece": split.get("ece"),
        "nll": split.get("nll"),
        "recall": {name: facts.get("recall") for name, facts in split.get("per_class", {}).items()},
    }
