"""A checkpoint of this project as a predictor."""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core import hardware
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.evaluation.calibration import Calibration, calibration_in
from fer_lightning.evaluation.evaluate import predict_splits
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.training.checkpoint import SYNTHETIC_WARNING, CheckpointMetadata, load_classifier
from fer_lightning.training.classifier import FERClassifier
from fer_lightning.training.views import NUM_VIEWS, TTA

log = logging.getLogger(__name__)


def folder_name(path: Path) -> str:
    """Name what a file holds: by its folder, unless the file is no checkpoint and has a name of its own."""
    alone = path.suffix in (".safetensors", ".onnx") and path.stem != "model"
    return path.stem if alone else path.absolute().parent.name


class CheckpointPredictor(NamedTuple):
    """A trained classifier and where it comes from.

    Attributes:
        path: The checkpoint.
        classifier: On the CPU.
        metadata: From the checkpoint.
        calibration: From the checkpoint; None if it was not calibrated, or with other views.
        other_views: Whether it predicts with other views of an image than it was validated with.
    """

    path: Path
    classifier: FERClassifier
    metadata: CheckpointMetadata
    calibration: Calibration | None = None
    other_views: bool = False

    @classmethod
    def load(cls, path: Path, *, trust: Collection[str] = ()) -> "CheckpointPredictor":
        """Load a checkpoint, whose config may name packages that the user trusts."""
        classifier, metadata = load_classifier(path, trust=trust)
        return cls(path, classifier, metadata, calibration_in(path, metadata))

    def with_tta(self, tta: TTA) -> "CheckpointPredictor":
        """Average over other views of each image; they need a calibration of their own."""
        if tta == self.classifier.tta:
            return self
        self.classifier.tta = tta
        return self._replace(calibration=None, other_views=True)

    @property
    def name(self) -> str:
        """The name of the run's folder, or of a file of weights that is alone."""
        return folder_name(self.path)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def arithmetic(self) -> tuple[hardware.Device, str]:
        """The device and precision to predict with here.

        The checkpoint's precision, unless it is a mixed one that was chosen for another kind of device: this
        one may compute it slowly, or not at all.
        """
        trained_on = self.metadata.config["trainer"]["accelerator"]
        device = hardware.choose_device("auto")
        if device == trained_on or self.metadata.precision == "32-true":
            return device, self.metadata.precision
        return device, hardware.choose_precision("auto", device)

    def facts(self) -> dict[str, Any]:
        """Describe it for ``run.json``."""
        return {
            "model": self.metadata.config["model"]["_target_"].rpartition(".")[2].lower(),
            "checkpoint": str(self.path),
            "precision": self.arithmetic[1],
            "tta": self.classifier.tta,
            "num_parameters": sum(parameter.numel() for parameter in self.classifier.backbone.parameters()),
            "selected_by": self.metadata.selected_by,
            "best_epoch": self.metadata.epoch,
            "best_score": self.metadata.score,
        }

    def predict(self, data: FERDataModule, split: str, rows: NDArray[np.int64]) -> Predictions:
        """Predict some images of a split.

        The whole split is predicted, since the last digits depend on the batch.

        Args:
            data: After ``setup``.
            split: ``train``, ``val``, ``test`` or ``all``.
            rows: ``(N,)`` int64 rows of the split to return.
        """
        if self.metadata.is_synthetic:
            log.warning("%s: %s", self.path, SYNTHETIC_WARNING)
        trainer = self.metadata.config["trainer"]
        device, precision = self.arithmetic
        if device != trainer["accelerator"]:
            log.info(
                "trained on %s in %s, evaluated on %s in %s: the last digits may differ",
                trainer["accelerator"],
                self.metadata.precision,
                device,
                precision,
            )
        if (num_views := NUM_VIEWS[self.classifier.tta]) > 1 and self.other_views:
            log.info(
                "%s: %d views of each image, %d times the time of one",
                self.classifier.tta,
                num_views,
                num_views,
            )
        if data.faces.fingerprint != self.metadata.fingerprint:
            log.info(
                "other data than the checkpoint was trained on (fingerprint %s)",
                self.metadata.fingerprint[:12],
            )
        trainer = trainer | {"accelerator": device, "devices": 1, "precision": precision}
        if len(rows) < len(data.split_rows(split)):
            trainer["limit_predict_batches"] = 1.0  # a smoke run's limit would cut the sample
        everything = predict_splits(self.classifier, self.metadata, data, [split], trainer)[split]
        return everything.subset(np.isin(everything.ids, data.faces.ids[rows]))
