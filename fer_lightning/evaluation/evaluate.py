"""A classifier meets a split: predictions, and the files made of them. Training and eval.py share it."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import write_json
from fer_lightning.core.hardware import first_device
from fer_lightning.core.terminal import show
from fer_lightning.data.audit.facts import load_audit
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.splits import has_duplicate_in
from fer_lightning.evaluation.metrics import evaluate
from fer_lightning.evaluation.predictions import OK, Predictions
from fer_lightning.report.drawing import draw_all, draw_audit
from fer_lightning.report.tables import confusion_table, headline, per_class_table
from fer_lightning.training.checkpoint import CheckpointMetadata
from fer_lightning.training.classifier import FERClassifier

SCHEMA = 1

log = logging.getLogger(__name__)


def write_audit(folder: Path, data: FERDataModule) -> None:
    """Write ``audit.json``, made once for each data set, and say its warnings loudly."""
    faces = data.faces
    audit = load_audit(faces, cache_dir=data.cache_dir, name=str(data.name), log=log.info)
    write_json(folder / "audit.json", audit)
    for warning in audit["warnings"]:
        log.warning("WARNING: %s", warning)


def predict_split(
    classifier: FERClassifier,
    origin: CheckpointMetadata,
    data: FERDataModule,
    split: str,
    trainer_config: Mapping[str, Any],
) -> Predictions:
    """Predict every image of a split, in order, on one device.

    Args:
        classifier: In its own memory format.
        origin: What the classifier has seen.
        data: After ``setup``; its classes are the classifier's.
        split: ``train``, ``val``, ``test`` or ``all``.
        trainer_config: The run's trainer node, for accelerator, precision, determinism and limits.

    Returns:
        One row an image (fewer where the trainer limits batches). An image counts as leaked if a copy of it
        trained the classifier, or selected it; validation images are themselves what selected, so that for
        ``val`` training alone counts.

    Raises:
        FERError: If the split is empty, or the network answers NaN.
    """
    if not len(data.split_rows(split)):
        raise FERError(f"split={split}: this split is empty (data.protocol={data.protocol})")
    devices = trainer_config.get("devices", 1)
    trainer = Trainer(
        accelerator=trainer_config["accelerator"],
        devices=[first_device(devices)] if isinstance(devices, list) else 1,
        precision=trainer_config["precision"],
        deterministic=trainer_config["deterministic"],
        limit_predict_batches=trainer_config["limit_predict_batches"],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    outputs = trainer.predict(classifier, data.eval_loader(split))
    assert outputs is not None
    rows = torch.cat([rows for rows, _ in outputs]).cpu().numpy()
    probs = torch.cat([probs for _, probs in outputs]).cpu().numpy()
    if np.isnan(probs).any():
        raise FERError(
            f"split={split}: the network answers NaN for {int(np.isnan(probs).any(axis=1).sum()):,} of "
            f"{len(probs):,} images; its weights have diverged, or overflow in {trainer_config['precision']}"
        )
    faces = data.faces
    seen = origin.trained_on if split == "val" else np.concatenate([origin.trained_on, origin.selected_on])
    return Predictions(
        ids=faces.ids[rows],
        labels=np.asarray(faces.labels[rows]),
        probs=probs,
        status=np.full(len(rows), OK),
        leaked=has_duplicate_in(faces.hashes[rows], seen),
        classes=data.classes,
    )


def write_results(
    folder: Path,
    data: FERDataModule,
    origin: CheckpointMetadata | None,
    predictions: Mapping[str, Predictions],
) -> dict[str, Any]:
    """Write the predictions of some splits, and ``metrics.json``.

    Args:
        folder: The run folder.
        data: After ``setup``.
        origin: The classifier's; None for a predictor that this project did not train.
        predictions: By split.

    Returns:
        What ``metrics.json`` holds.
    """
    metrics: dict[str, Any] = {
        "schema": SCHEMA,
        "dataset": data.name,
        "synthetic": data.name == "synthetic",
    }
    if origin is not None:
        metrics |= {"selected_by": origin.selected_by, "best_epoch": origin.epoch}
    for split, predicted in predictions.items():
        predicted.save(folder / f"predictions_{split}.npz")
        metrics[split] = evaluate(predicted)
        if origin is None:  # nobody knows what it was trained on
            metrics[split]["leak_free"] = None
    write_json(folder / "metrics.json", metrics)
    return metrics


def draw_figures(folder: Path, data: FERDataModule, split: str, predictions: Predictions) -> None:
    """Draw the figures of a run while its images are at hand; its results and its audit must be written."""
    train, faces = data.rows["train"], data.faces
    draw_audit(folder, images=faces.images, labels=faces.labels, classes=faces.classes)
    draw_all(
        folder,
        split=split,
        images=data.images_of(predictions.ids),
        train_samples=(faces.images[train], faces.labels[train]),
    )


def show_results(metrics: Mapping[str, Any], split: str) -> None:
    """Show a split's table per class, its confusion matrix, and the run's headline."""
    show(per_class_table(metrics[split], title=split))
    show(confusion_table(metrics[split], title=f"{split}: rows true, columns predicted"))
    show(headline(dict(metrics)))
