"""Soft targets of a teacher: its probabilities of the training images, mixed with their labels.

Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531. Here the
targets are mixed before the loss, and the student's own logits are not divided by the temperature.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.array_files import PREDICTION_ARRAYS, UNREADABLE, read_arrays
from fer_lightning.core.errors import FERError
from fer_lightning.core.files import check_not_special
from fer_lightning.data.faces import Faces
from fer_lightning.data.splits import Rows

_HOW_TO_GET = "write one with python eval.py checkpoint=TEACHER split=train"
_MAX_ERROR = 1e-3  # of the sum of an image's probabilities, which are float32


@dataclass(frozen=True)
class Teacher:
    """What a teacher predicted, in the classes of the student.

    Attributes:
        path: The file.
        sha256: Of its content.
        ids: ``(N,)`` str ids of the images.
        labels: ``(N,)`` int64 true classes.
        probs: ``(N, C)`` float64 in [0, 1], rows summing to 1; NaN where there is no answer.
    """

    path: Path
    sha256: str
    ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    probs: NDArray[np.float64]

    def mixed_with(
        self, faces: Faces, rows: Rows, *, weight: float, temperature: float
    ) -> NDArray[np.float32]:
        """Mix the teacher's probabilities with the labels of some images, or with their own soft targets.

        Args:
            faces: The whole data set.
            rows: ``(K,)`` rows of the images that get a mixed target, those of train.
            weight: The share of the teacher in the target, in [0, 1].
            temperature: Above 0; probabilities become ``p ** (1 / temperature)``, divided by their sum.

        Returns:
            ``(M, C)`` float32 targets that sum to 1, for all images; those of the other rows are their own.

        Raises:
            FERError: If an image is missing in the file, has another label there, or has no answer.
        """
        own = np.eye(len(faces.classes)) if faces.targets is None else None
        targets = own[faces.labels] if own is not None else np.asarray(faces.targets, np.float64)
        found = self._find(faces, rows)
        probs = self.probs[found]
        softened = (probs / probs.max(axis=1, keepdims=True)) ** (1 / temperature)
        softened /= softened.sum(axis=1, keepdims=True)
        mixed = targets.copy()
        mixed[rows] = weight * softened + (1 - weight) * targets[rows]
        return mixed.astype(np.float32)

    def _find(self, faces: Faces, rows: Rows) -> NDArray[np.int64]:
        """Return the positions of images in the file."""
        position = {name: row for row, name in enumerate(self.ids.tolist())}
        wanted = faces.ids[rows].tolist()
        found = np.array([position.get(name, -1) for name in wanted], np.int64)
        missing = np.flatnonzero(found < 0)
        if len(missing):
            if len(missing) == len(rows):
                count, reason = "any", "it is of another data set or another split"
            else:
                count, reason = f"{len(missing):,}", "the teacher was evaluated on other splits"
            raise FERError(
                f"{_given(self.path)}: has no prediction of {count} of the {len(rows):,} training images, "
                f"such as {wanted[missing[0]]}; {reason}: evaluate it with split=train, or split=all, on the "
                "data of this run"
            )
        others = np.flatnonzero(self.labels[found] != faces.labels[rows])
        if len(others):
            raise FERError(
                f"{_given(self.path)}: {len(others):,} of the {len(rows):,} training images, such as "
                f"{wanted[others[0]]}, have another label there; evaluate the teacher on the data of this run"
            )
        silent = np.flatnonzero(np.isnan(self.probs[found]).any(axis=1))
        if len(silent):
            raise FERError(
                f"{_given(self.path)}: the teacher gave no answer for {len(silent):,} of the {len(rows):,} "
                f"training images, such as {wanted[silent[0]]}; take a teacher that answers for every image"
            )
        return found


def read_teacher(path: Path, classes: Sequence[str]) -> Teacher:
    """Read a file of predictions that ``eval.py`` wrote.

    Args:
        path: The ``.npz``.
        classes: Of the student; the file may have them in another order.

    Raises:
        FERError: If the file is missing, damaged or of another kind, or has other classes.
    """
    check_not_special(path, given=_given(path))
    if path.is_dir():
        raise FERError(f"{_given(path)}: a folder; name the file in it, such as predictions_train.npz")
    if not path.is_file():
        raise FERError(f"{_given(path)}: no such file; {_HOW_TO_GET}, or name its place now")
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        arrays = read_arrays(path, PREDICTION_ARRAYS)
        names = tuple(arrays["classes"].tolist())
        _check_shapes(arrays, len(names))
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise FERError(f"{_given(path)}: not a predictions file ({reason}); {_HOW_TO_GET}") from error
    if sorted(names) != sorted(classes):
        raise FERError(
            f"{_given(path)}: has the classes {', '.join(map(str, names))}, the student has "
            f"{', '.join(classes)}; take a teacher with the same classes"
        )
    order = [names.index(name) for name in classes]
    place_of = np.argsort(order)  # of a class of the file among those of the student
    probs = np.where((arrays["status"] == "ok")[:, None], arrays["probs"].astype(np.float64), np.nan)
    return Teacher(path, sha256, arrays["ids"], place_of[arrays["labels"]], probs[:, order])


def _check_shapes(arrays: dict[str, Any], num_classes: int) -> None:
    """Check that the arrays belong together, and that probabilities are some.

    Raises:
        ValueError: If they are not.
    """
    ids, labels, probs, status = (arrays[name] for name in ("ids", "labels", "probs", "status"))
    if not (ids.shape == labels.shape == status.shape == (len(ids),)) or probs.shape != (
        len(ids),
        num_classes,
    ):
        raise ValueError("its arrays have different lengths")
    if len(set(ids.tolist())) != len(ids):
        raise ValueError("its image ids are not unique")
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError("its labels are not among its classes")
    answered = probs[status == "ok"].astype(np.float64)
    sums = answered.sum(axis=1)
    if not np.isfinite(sums).all() or (answered < 0).any() or (np.abs(sums - 1) > _MAX_ERROR).any():
        raise ValueError("its probabilities are not in [0, 1] with a sum of 1")


def _given(path: Path) -> str:
    return f"data.soft_targets={path}"
