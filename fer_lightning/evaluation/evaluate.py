"""Evaluating a classifier on splits, and writing the results."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import write_json
from fer_lightning.core.hardware import first_device
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.splits import has_duplicate_in, has_near_duplicate_in
from fer_lightning.evaluation.calibration import Calibration, describe_calibration
from fer_lightning.evaluation.embeddings import record_embeddings
from fer_lightning.evaluation.metrics import compute_metrics
from fer_lightning.evaluation.predictions import OK, Predictions
from fer_lightning.training.checkpoint import CheckpointMetadata
from fer_lightning.training.classifier import FERClassifier

SCHEMA = 1


def predict_splits(
    classifier: FERClassifier,
    metadata: CheckpointMetadata,
    data: FERDataModule,
    splits: Sequence[str],
    trainer_node: Mapping[str, Any],
) -> dict[str, Predictions]:
    """Predict every image of some splits, in order, on one device.

    Args:
        classifier: In its own memory format.
        metadata: What the classifier has seen.
        data: After ``setup``; its classes are the classifier's.
        splits: Of ``train``, ``val``, ``test`` and ``all``.
        trainer_node: The run's trainer node, for device, precision, determinism and limits.

    Returns:
        For each split one row per image (fewer if the trainer limits batches). An image counts as leaked if a
        pixel-identical duplicate of it trained the classifier, or selected it, and as near-leaked if a
        near-duplicate did. For ``val``, whose images do select it, only training counts.

    Raises:
        FERError: If a split is empty, or the network's answers are NaN.
    """
    devices = trainer_node.get("devices", 1)
    trainer = Trainer(
        accelerator=trainer_node["accelerator"],
        devices=[first_device(devices)] if isinstance(devices, list) else 1,
        precision=trainer_node["precision"],
        deterministic=trainer_node["deterministic"],
        limit_predict_batches=trainer_node.get("limit_test_batches", trainer_node["limit_predict_batches"]),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return {split: _predict_split(trainer, classifier, metadata, data, split) for split in splits}


def _predict_split(
    trainer: Trainer, classifier: FERClassifier, metadata: CheckpointMetadata, data: FERDataModule, split: str
) -> Predictions:
    check_has_images(data, split)
    with record_embeddings(classifier, len(data.split_rows(split))) as recorder:
        outputs = trainer.predict(classifier, data.eval_loader(split))
    assert outputs is not None
    rows = torch.cat([rows for rows, _ in outputs]).cpu().numpy()
    probs = torch.cat([probs for _, probs in outputs]).cpu().numpy()
    found = to_predictions(probs, rows, metadata, data, split, precision=str(trainer.precision))
    return replace(found, embeddings=recorder.collect(len(rows)))


def check_has_images(data: FERDataModule, split: str) -> None:
    """Refuse a split without images.

    Raises:
        FERError: With the splits that have some.
    """
    if not len(data.split_rows(split)):
        others = ", ".join(f"{len(rows):,} in {name}" for name, rows in data.rows.items() if len(rows))
        raise FERError(
            f"split={split}: this split is empty (data.protocol={data.protocol}); there are {others}"
        )


def to_predictions(
    probs: NDArray[np.float32],
    rows: NDArray[np.int64],
    metadata: CheckpointMetadata,
    data: FERDataModule,
    split: str,
    *,
    precision: str,
) -> Predictions:
    """Describe the answers of a network of this project; see ``predict_splits``.

    Args:
        probs: ``(N, C)`` float32 probabilities.
        rows: ``(N,)`` int64 rows in the data set.
        metadata: What the network has seen.
        data: After ``setup``.
        split: ``train``, ``val``, ``test`` or ``all``.
        precision: Of the arithmetic, for a message.

    Raises:
        FERError: If an answer is NaN.
    """
    if np.isnan(probs).any():
        raise FERError(
            f"split={split}: the network answers NaN for {int(np.isnan(probs).any(axis=1).sum()):,} of "
            f"{len(probs):,} images; its weights have diverged, or overflow in {precision}"
        )
    faces, seen = data.faces, _seen(metadata, split)
    leaked, near_leaked = has_duplicate_in(faces.hashes[rows], seen), None
    if not why_near_leaks_unknown(metadata, data, split):
        near = has_near_duplicate_in(faces.hashes[rows], seen, faces, data.find_near_duplicates())
        near_leaked = leaked | near
    return Predictions(
        ids=faces.ids[rows],
        labels=np.asarray(faces.labels[rows]),
        probs=probs,
        status=np.full(len(rows), OK),
        leaked=leaked,
        classes=data.classes,
        near_leaked=near_leaked,
    )


def _seen(metadata: CheckpointMetadata, split: str) -> NDArray[np.uint64]:
    """Return the hashes of the images that leak into a split: ``(L,)`` uint64."""
    if split == "val":
        return metadata.trained_on
    return np.concatenate([metadata.trained_on, metadata.selected_on])


# Share of val whose pixels also trained a network: 8 % in FER-2013 as published, by its duplicates.
_MAX_SHARED = 0.2


def is_trained_on_val(metadata: CheckpointMetadata, data: FERDataModule) -> bool:
    """Return whether a network was trained on val, beyond duplicates; val can then not judge it.

    Args:
        metadata: What the network has seen.
        data: After ``setup``, in the image size of the network.
    """
    hashes = data.faces.hashes[data.split_rows("val")]
    return bool(np.isin(hashes, metadata.trained_on).mean() > _MAX_SHARED) if len(hashes) else False


def why_near_leaks_unknown(metadata: CheckpointMetadata | None, data: FERDataModule, split: str) -> str:
    """Explain why the near-duplicates of what a predictor has seen are not known; empty if they are.

    A checkpoint holds only hashes of the images it was trained and selected on. Near-duplicates are compared
    by their pixels, so all of these images have to be in the data set.
    """
    if metadata is None:
        return "the training images of this predictor are not known"
    unknown = ~np.isin(_seen(metadata, split), data.faces.hashes)
    if unknown.any():
        return (
            f"the checkpoint was trained or selected on {int(unknown.sum()):,} images that are not in this "
            "data set, and near-duplicates of them cannot be found by their hashes"
        )
    return data.find_near_duplicates().left_out


def write_results(
    folder: Path,
    data: FERDataModule,
    metadata: CheckpointMetadata | None,
    predictions: Mapping[str, Predictions],
    *,
    calibration: Calibration | None = None,
    limited: Sequence[str] = (),
    unknown: str = "",
    ensemble: bool = False,
) -> dict[str, Any]:
    """Write the predictions of some splits, and ``metrics.json``.

    Args:
        folder: The run folder.
        data: After ``setup``.
        metadata: Of the classifier's checkpoint; None for a predictor that this project did not train.
        predictions: By split, before calibration.
        calibration: Of the classifier; None if it was not calibrated.
        limited: The settings that left images out, in training or here; see ``limits_of``.
        unknown: Why it is not known which images trained the network; empty if it is, or if ``metadata`` say.
        ensemble: Whether ``metadata`` is of several networks, which have no one epoch.

    Returns:
        The content of ``metrics.json``.
    """
    unknown = unknown or (metadata and metadata.unknown_before) or ""
    metrics: dict[str, Any] = {
        "schema": SCHEMA,
        "dataset": data.name,
        "synthetic": data.name == "synthetic",
        "limited": list(limited),
    }
    if metadata is not None and not ensemble:
        metrics |= {"selected_by": metadata.selected_by, "best_epoch": metadata.epoch}
    for split, predicted in predictions.items():
        if unknown:
            predicted = replace(predicted, near_leaked=None)
        predicted.save(folder / f"predictions_{split}.npz")
        metrics[split] = compute_metrics(predicted)
        if metadata is None or unknown:  # its training images are unknown
            metrics[split]["leak_free"] = None
        if metrics[split]["leak_free_near"] is None:
            reason = unknown or why_near_leaks_unknown(metadata, data, split)
            metrics[split]["leak_free_near_reason"] = reason
    metrics["calibration"] = None if calibration is None else describe_calibration(calibration, predictions)
    write_json(folder / "metrics.json", metrics)
    return metrics
