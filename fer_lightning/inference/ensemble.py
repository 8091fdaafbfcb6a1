"""Several predictors as one: the mean of their probabilities, of all or of those that val chooses."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import read_json_object
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.splits import has_duplicate_in, has_near_duplicate_in
from fer_lightning.evaluation.calibration import Calibration, calibrate
from fer_lightning.evaluation.checkpoint_predictor import CheckpointPredictor
from fer_lightning.evaluation.ensembles import Selection, align, average, choose_greedily, disagreement
from fer_lightning.evaluation.evaluate import is_trained_on_val
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.evaluation.stats import compare_pairs
from fer_lightning.inference.stored_predictors import OnnxPredictor, with_training_images
from fer_lightning.training.checkpoint import CheckpointMetadata

log = logging.getLogger(__name__)

Choice = Literal["all", "greedy"]

_SAME = 1e-3  # between the probabilities of a checkpoint and its export in bf16; two seeds differ by tenths


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

    @property
    def limits(self) -> list[str]:
        """The settings that left images out, as ``metrics.json`` has them."""
        limited = (read_json_object(self.folder / "metrics.json") or {}).get("limited")
        return [str(limit) for limit in limited] if isinstance(limited, list) else []

    def __str__(self) -> str:
        return str(self.folder)

    def predict(self, data: FERDataModule, split: str, rows: NDArray[np.int64]) -> Predictions:
        """Read the predictions of some images of a split.

        Args:
            data: After ``setup``.
            split: ``train``, ``val``, ``test`` or ``all``.
            rows: ``(N,)`` int64 rows of the split.

        Raises:
            FERError: If the folder holds none of the split, not all of the images, or those of other data.
        """
        path = self.folder / f"predictions_{split}.npz"
        if not path.is_file():
            raise FERError(f"{path}: missing; evaluate this member with split={split}, and name that folder")
        record = read_json_object(self.folder / "run.json") or {}
        described = record.get("data")
        fingerprint = described.get("fingerprint") if isinstance(described, dict) else None
        if fingerprint not in (None, data.faces.fingerprint):
            raise FERError(
                f"{path}: of other data (fingerprint {str(fingerprint)[:12]}, these images have "
                f"{data.faces.fingerprint[:12]}); evaluate this member on the same data"
            )
        found = Predictions.load(path)
        ids = data.faces.ids[rows]
        if missing := int((~np.isin(ids, found.ids)).sum()):
            raise FERError(
                f"{path}: lacks {missing:,} of the {len(ids):,} images of {split}; evaluate this member on "
                "all of them (sample=all), or the ensemble on the same (sample=FILE)"
            )
        return found.subset(np.isin(found.ids, ids))


class Member(NamedTuple):
    """One member of an ensemble.

    Attributes:
        predictor: A network in a file, or stored predictions.
        data: The ensemble's data set in the image size of this member.
    """

    predictor: CheckpointPredictor | OnnxPredictor | StoredPredictions
    data: FERDataModule

    @property
    def metadata(self) -> CheckpointMetadata | None:
        """What the member has seen; None if that is not known."""
        return None if isinstance(self.predictor, StoredPredictions) else self.predictor.metadata

    @property
    def limits(self) -> list[str]:
        """The settings that left images out of its training or evaluation."""
        predictor = self.predictor
        return predictor.limits if isinstance(predictor, StoredPredictions) else predictor.metadata.limits


class EnsemblePredictor:
    """The mean of the probabilities of several predictors.

    Args:
        members: At least two, for the same classes. Of ``greedy``, all have networks.
        choice: ``all`` members, or ``greedy``: those that ``choose_greedily`` takes on val.

    Attributes:
        metadata: After ``predict``, the images that the chosen members have seen; None if no member has a
            network.
        unknown: Why the images that a chosen member has seen are not known; empty if they are.
        limits: The settings that left images out of any chosen member's training or evaluation.
        calibration: After ``predict``; fitted on val if it trained no member.
        summary: For ``run.json``, after ``predict``.
    """

    def __init__(self, members: Sequence[Member], choice: Choice) -> None:
        self.members = tuple(members)
        self.choice = choice
        self.names = _unique([member.predictor.name for member in members])
        self.metadata: CheckpointMetadata | None = None
        self.unknown = ""
        self.limits: list[str] = []
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
        return {
            "model": "ensemble",
            "checkpoint": ", ".join(str(member.predictor) for member in self.members),
        }

    def predict(
        self,
        data: FERDataModule,
        split: str,
        rows: NDArray[np.int64],
        check: Callable[[], None] = lambda: None,
    ) -> Predictions:
        """Predict some images of a split with every member, and average.

        Args:
            data: After ``setup``; members that take images of the same size share it.
            split: ``train``, ``val``, ``test`` or ``all``.
            rows: ``(N,)`` int64 rows of the split to return.
            check: Called before each member; raises if the run is to stop.

        Raises:
            FERError: If the members have other images; or if val is to choose them and is empty, or trained
                one of them.
        """
        members, unknown = zip(*[_prepared(member, data) for member in self.members], strict=True)
        greedy, val_rows = self.choice == "greedy", data.split_rows("val")
        if greedy:
            _check_val(members, unknown, self.names, data)
        clean = len(val_rows) > 0 and not any(
            reason or member.metadata is None or is_trained_on_val(member.metadata, member.data)
            for member, reason in zip(members, unknown, strict=True)
        )
        predicted = partial(self._predict_each, members, check=check)
        val = predicted("val", data.faces.ids[val_rows]) if greedy or (clean and split != "train") else []
        whole_val = split == "val" and len(rows) == len(val_rows) and bool(val)
        found = val if whole_val else predicted(split, data.faces.ids[rows])
        selection = choose_greedily(val, self.names) if greedy else None
        chosen = list(range(len(members))) if selection is None else selection.members
        names = [self.names[i] for i in chosen]
        _warn_of_copies({self.names[i]: found[i] for i in chosen})
        averaged = average([found[i] for i in chosen], names)
        if greedy and split != "val":
            averaged = _with_val_leaks(averaged, data)
        self.metadata = _combined([members[i] for i in chosen], data, selected_on_val=greedy)
        self.unknown = next((unknown[i] for i in chosen if unknown[i]), "")
        self.limits = [*dict.fromkeys(limit for i in chosen for limit in members[i].limits)]
        if clean and val and (mean := average([val[i] for i in chosen], names)).graded:
            self.calibration = calibrate(mean)
        self.summary = self._summarise(found, averaged, val, selection)
        return averaged

    def _predict_each(
        self, members: Sequence[Member], part: str, ids: NDArray[np.str_], *, check: Callable[[], None]
    ) -> list[Predictions]:
        """Predict the images of some ids with each member; all have one order, which paired tests need."""
        found = []
        for number, member in enumerate(members):
            check()
            log.info("member %d of %d, %s: predicting %s", number + 1, len(members), member.predictor, part)
            own = member.data.split_rows(part)
            own = own[np.isin(member.data.faces.ids[own], ids)]
            found.append(member.predictor.predict(member.data, part, own))
        return [
            align(each, found[0], name, self.names[0]) for each, name in zip(found, self.names, strict=True)
        ]

    def _summarise(
        self,
        found: Sequence[Predictions],
        averaged: Predictions,
        val: Sequence[Predictions],
        selection: Selection | None,
    ) -> dict[str, Any]:
        """Describe members, disagreement and gain for ``run.json``; all predictions have one order."""
        chosen = list(range(len(found))) if selection is None else selection.members
        rows = []
        for number, (name, predictions) in enumerate(zip(self.names, found, strict=True)):
            (test,) = compare_pairs({"mean": averaged.correct, "member": predictions.correct})
            predictor = self.members[number].predictor
            rows.append(
                {
                    "name": name,
                    "checkpoint": str(predictor),
                    "tta": predictor.classifier.tta if isinstance(predictor, CheckpointPredictor) else None,
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


def _prepared(member: Member, data: FERDataModule) -> tuple[Member, str]:
    """Give a member its data and the images that trained it, or the reason why they are not known."""
    same = member.data.image_size == data.image_size and member.data.channels == data.channels
    if isinstance(member.predictor, StoredPredictions):
        return Member(member.predictor, data), f"{member.predictor.name} holds predictions without a network"
    if not same:
        member.data.setup()
    own = data if same else member.data
    predictor, unknown = with_training_images(member.predictor, own)
    return Member(predictor, own), unknown


def _check_val(
    members: Sequence[Member], unknown: Sequence[str], names: Sequence[str], data: FERDataModule
) -> None:
    """Check that val can choose members.

    Raises:
        FERError: If it is empty, or trained a member, or that is not known.
    """
    if not len(data.split_rows("val")):
        raise FERError(
            f"ensemble=greedy: chooses on val, which is empty (data.protocol={data.protocol}); evaluate on a "
            "data set and a data.protocol with a val split, or use ensemble=true"
        )
    for member, reason, name in zip(members, unknown, names, strict=True):
        if reason or member.metadata is None:
            raise FERError(
                f"ensemble=greedy: val may have trained {name} ({reason}); leave it out, or use ensemble=true"
            )
        if is_trained_on_val(member.metadata, member.data):
            raise FERError(
                f"ensemble=greedy: {name} was trained on images of val, so val cannot choose it; leave it "
                "out, or use ensemble=true"
            )


def _warn_of_copies(found: Mapping[str, Predictions]) -> None:
    """Warn of members with the same answers, such as a checkpoint and its export."""
    for (first, one), (second, other) in combinations(found.items(), 2):
        if np.allclose(one.probs, other.probs, rtol=0, atol=_SAME, equal_nan=True):
            log.warning(
                "WARNING: ensemble: %s and %s give the same probabilities; one network counts twice",
                first,
                second,
            )


def _with_val_leaks(predictions: Predictions, data: FERDataModule) -> Predictions:
    """Count the images that have a duplicate in val as leaked, since val chose the members."""
    row_of = {name: row for row, name in enumerate(data.faces.ids.tolist())}
    hashes = data.faces.hashes[[row_of[name] for name in predictions.ids.tolist()]]
    val = np.unique(data.faces.hashes[data.split_rows("val")])
    leaked = predictions.leaked | has_duplicate_in(hashes, val)
    near = predictions.near_leaked
    if near is not None:
        near = near | leaked | has_near_duplicate_in(hashes, val, data.faces, data.find_near_duplicates())
    return replace(predictions, leaked=leaked, near_leaked=near)


def _combined(
    members: Sequence[Member], data: FERDataModule, *, selected_on_val: bool
) -> CheckpointMetadata | None:
    """Return the first network's metadata with the images that any member has seen."""
    known = [member.metadata for member in members if member.metadata is not None]
    if not known:
        return None
    selected_on = [metadata.selected_on for metadata in known]
    if selected_on_val:
        selected_on.append(np.unique(data.faces.hashes[data.split_rows("val")]))
    return replace(
        known[0],
        trained_on=reduce(np.union1d, [metadata.trained_on for metadata in known]),
        selected_on=reduce(np.union1d, selected_on),
    )


def _unique(names: Sequence[str]) -> list[str]:
    """Number the names that occur more than once."""
    found = [f"{name}_{i}" if names.count(name) > 1 else name for i, name in enumerate(names)]
    return found if len(set(found)) == len(found) else [f"{i}_{name}" for i, name in enumerate(names)]
