"""Several predictors as one: the mean of their probabilities, of all or of those that val chooses."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.evaluation.calibration import Calibration, calibrate
from fer_lightning.evaluation.checkpoint_predictor import CheckpointPredictor
from fer_lightning.evaluation.ensembles import Selection, average, choose_greedily, disagreement
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.evaluation.stats import compare_pairs
from fer_lightning.inference.stored_predictors import OnnxPredictor, with_training_images
from fer_lightning.training.checkpoint import CheckpointMetadata

log = logging.getLogger(__name__)

Choice = Literal["all", "greedy"]


class StoredPredictions(NamedTuple):
    """What eval.py or train.py wrote about a predictor, such as a language model: a member without a network.

    Attributes:
        folder: The run folder, with ``predictions_<split>.npz``.
    """

    folder: Path

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.absolute().name

    def __str__(self) -> str:
        return str(self.folder)

    def predict(self, data: FERDataModule, split: str, rows: NDArray[np.int64]) -> Predictions:
        """Read the predictions of some images of a split.

        Args:
            data: After ``setup``.
            split: ``train``, ``val``, ``test`` or ``all``.
            rows: ``(N,)`` int64 rows of the split.

        Raises:
            FERError: If the folder holds none of the split, or not all of the images.
        """
        path = self.folder / f"predictions_{split}.npz"
        if not path.is_file():
            raise FERError(f"{path}: missing; evaluate this member with split={split}, and copy it there")
        found = Predictions.load(path)
        ids = data.faces.ids[rows]
        if missing := int((~np.isin(ids, found.ids)).sum()):
            raise FERError(
                f"{path}: lacks {missing:,} of the {len(ids):,} images of {split}; sample= must be the same"
            )
        return found.subset(np.isin(found.ids, ids))


class Member(NamedTuple):
    """One member of an ensemble.

    Attributes:
        predictor: A network in a file, or stored predictions.
        data: The data set as the member takes it, in its own image size.
    """

    predictor: CheckpointPredictor | OnnxPredictor | StoredPredictions
    data: FERDataModule


class EnsemblePredictor:
    """The mean of the probabilities of several predictors.

    Args:
        members: At least two.
        choice: ``all`` members, or ``greedy``: those that ``choose_greedily`` takes on val.

    Attributes:
        metadata: What the members have seen, after ``predict``; None if that is not known of all.
        unknown: Why it is not known; empty if it is.
        calibration: Fitted on val, after ``predict``; None where the data have no val split.
        summary: For ``run.json``, after ``predict``.
    """

    def __init__(self, members: Sequence[Member], choice: Choice) -> None:
        self.members = tuple(members)
        self.choice = choice
        self.names = _unique([member.predictor.name for member in members])
        self.metadata: CheckpointMetadata | None = None
        self.unknown = ""
        self.calibration: Calibration | None = None
        self.summary: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The name of its folder and of its row in tables."""
        return "ensemble"

    def __str__(self) -> str:
        return f"ensemble of {', '.join(str(member.predictor) for member in self.members)}"

    def facts(self) -> dict[str, Any]:
        """Describe it for ``run.json``."""
        parts = [
            {} if isinstance(predictor, StoredPredictions) else predictor.facts()
            for predictor, _ in self.members
        ]
        counts = [part.get("num_parameters") for part in parts]
        return {
            "model": "ensemble",
            "checkpoint": ", ".join(str(member.predictor) for member in self.members),
            "num_parameters": sum(counts) if all(isinstance(count, int) for count in counts) else None,
        }

    def predict(self, data: FERDataModule, split: str, rows: NDArray[np.int64]) -> Predictions:
        """Predict some images of a split with every member, and average.

        Args:
            data: After ``setup``; members that take images of the same size share it.
            split: ``train``, ``val``, ``test`` or ``all``.
            rows: ``(N,)`` int64 rows of the split to return.

        Raises:
            FERError: If the members have other classes or images; or if val is to choose them and there is
                none, or a member was trained on it.
        """
        members = [self._with_data(member, data) for member in self.members]
        members = [self._with_training_images(member) for member in members]
        val_rows = data.split_rows("val")
        has_val = bool(len(val_rows)) and split != "train" and self._are_calibratable(members, data)
        if self.choice == "greedy":
            _check_val(members, self.names, data)
        val = []
        if has_val or self.choice == "greedy":
            val_ids = data.faces.ids[val_rows]
            val = [self._predict(i, member, "val", val_ids) for i, member in enumerate(members)]
        if split == "val" and len(rows) == len(val_rows) and val:
            found = val
        else:
            ids = data.faces.ids[rows]
            found = [self._predict(i, member, split, ids) for i, member in enumerate(members)]
        selection = choose_greedily(val, self.names) if self.choice == "greedy" else None
        chosen = list(range(len(members))) if selection is None else selection.members
        names = [self.names[i] for i in chosen]
        averaged = average([found[i] for i in chosen], names)
        self.metadata = self._combine([members[i] for i in chosen], selected_on_val=selection is not None)
        averaged_val = average([val[i] for i in chosen], names) if val else None
        if averaged_val is not None and averaged_val.answered.all() and averaged_val.graded:
            self.calibration = calibrate(averaged_val)
        self.summary = self._summarise(found, averaged, val, selection)
        return averaged

    def _predict(self, number: int, member: Member, split: str, ids: NDArray[np.str_]) -> Predictions:
        rows = member.data.split_rows(split)
        rows = rows[np.isin(member.data.faces.ids[rows], ids)]
        log.info("member %d of %d, %s: predicting %s", number + 1, len(self.members), member.predictor, split)
        return member.predictor.predict(member.data, split, rows)

    @staticmethod
    def _with_data(member: Member, data: FERDataModule) -> Member:
        same = member.data.image_size == data.image_size and member.data.channels == data.channels
        if same or isinstance(member.predictor, StoredPredictions):
            return member._replace(data=data)
        member.data.setup()
        return member

    def _with_training_images(self, member: Member) -> Member:
        if isinstance(member.predictor, StoredPredictions):
            self.unknown = self.unknown or f"{member.predictor.name} holds predictions without a network"
            return member
        predictor, unknown = with_training_images(member.predictor, member.data)
        self.unknown = self.unknown or unknown
        return member._replace(predictor=predictor)

    @staticmethod
    def _are_calibratable(members: Sequence[Member], data: FERDataModule) -> bool:
        """Return whether val can calibrate the mean: no member was trained on any of its images."""
        hashes = data.faces.hashes[data.split_rows("val")]
        return not any(
            isinstance(predictor, StoredPredictions) or np.isin(hashes, predictor.metadata.trained_on).all()
            for predictor, _ in members
        )

    @staticmethod
    def _combine(members: Sequence[Member], *, selected_on_val: bool) -> CheckpointMetadata | None:
        """Return the first member's metadata with the images that any member has seen."""
        known = [
            predictor.metadata for predictor, _ in members if not isinstance(predictor, StoredPredictions)
        ]
        if not known:
            return None
        selected_on = [metadata.selected_on for metadata in known]
        if selected_on_val:
            data = members[0].data
            selected_on.append(np.unique(data.faces.hashes[data.split_rows("val")]))
        return replace(
            known[0],
            trained_on=reduce(np.union1d, [metadata.trained_on for metadata in known]),
            selected_on=reduce(np.union1d, selected_on),
            selected_by="val/acc" if selected_on_val else known[0].selected_by,
        )

    def _summarise(
        self,
        found: Sequence[Predictions],
        averaged: Predictions,
        val: Sequence[Predictions],
        selection: Selection | None,
    ) -> dict[str, Any]:
        """Describe members, disagreement and gain for ``run.json``."""
        chosen = list(range(len(found))) if selection is None else selection.members
        rows = []
        for number, (name, predictions) in enumerate(zip(self.names, found, strict=True)):
            (test,) = compare_pairs({"ensemble": averaged.correct, name: predictions.correct})
            rows.append(
                {
                    "name": name,
                    "checkpoint": str(self.members[number].predictor),
                    "chosen": number in chosen,
                    "acc": float(predictions.correct.mean()),
                    "val_acc": float(val[number].correct.mean()) if val else None,
                    "gain": test.difference,
                    "gain_ci95": list(test.interval),
                    "p_value": test.p_value,
                }
            )
        return {
            "choice": self.choice,
            "chosen_on": "val" if selection else None,
            "order": [self.names[i] for i in chosen] if selection else None,
            "val_acc_after": selection.accuracies if selection else None,
            "disagreement": disagreement([found[i] for i in chosen]),
            "members": rows,
        }


def _check_val(members: Sequence[Member], names: Sequence[str], data: FERDataModule) -> None:
    """Check that val can choose members.

    Raises:
        FERError: If it is empty, or trained a member.
    """
    rows = data.split_rows("val")
    if not len(rows):
        raise FERError(
            f"ensemble=greedy: chooses on val, which is empty (data.protocol={data.protocol}); "
            "use data.protocol=official, or ensemble=true"
        )
    for (predictor, _), name in zip(members, names, strict=True):
        if isinstance(predictor, StoredPredictions):
            continue
        seen = int(np.isin(data.faces.hashes[rows], predictor.metadata.trained_on).sum())
        if seen > len(rows) / 2:
            raise FERError(
                f"ensemble=greedy: {name} was trained on {seen:,} of the {len(rows):,} val images, so val "
                "cannot choose it; leave it out, or use ensemble=true"
            )


def _unique(names: Sequence[str]) -> list[str]:
    """Number the names that occur more than once."""
    return [f"{name}_{i}" if names.count(name) > 1 else name for i, name in enumerate(names)]
