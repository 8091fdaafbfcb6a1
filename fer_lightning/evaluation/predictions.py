"""The answers of one predictor on one split, in memory and as a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.array_files import PREDICTION_ARRAYS, UNREADABLE, read_arrays
from fer_lightning.core.errors import FERError
from fer_lightning.core.files import replacing

OK = "ok"


@dataclass(frozen=True)
class Predictions:
    """One row per image, from any predictor.

    Attributes:
        ids: ``(N,)`` str, unique, ``split/class/name``.
        labels: ``(N,)`` int64 true classes.
        probs: ``(N, C)`` float32 in [0, 1], rows summing to 1; NaN where there is no answer.
        status: ``(N,)`` str, ``ok`` or why there is no answer.
        leaked: ``(N,)`` bool, whether the predictor was trained or selected on a pixel-identical duplicate.
        classes: ``(C,)`` str class names.
        near_leaked: ``(N,)`` bool, whether it was trained or selected on a pixel-identical duplicate or a
            near-duplicate; None if that is not known.
        embeddings: ``(N, D)`` float32 inputs of the network's last layer; None if unknown. Not in the file.
    """

    ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    probs: NDArray[np.float32]
    status: NDArray[np.str_]
    leaked: NDArray[np.bool_]
    classes: tuple[str, ...]
    near_leaked: NDArray[np.bool_] | None = None
    embeddings: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        n = len(self.ids)
        assert self.probs.shape == (n, len(self.classes)), self.probs.shape
        assert self.labels.shape == self.status.shape == self.leaked.shape == self.ids.shape == (n,)
        assert self.near_leaked is None or self.near_leaked.shape == (n,)
        assert self.embeddings is None or len(self.embeddings) == n
        assert n == 0 or 0 <= self.labels.min() <= self.labels.max() < len(self.classes), "unknown labels"
        assert len(set(self.ids.tolist())) == n, "image ids are not unique"

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def answered(self) -> NDArray[np.bool_]:
        """``(N,)`` bool, whether there is an answer."""
        answered: NDArray[np.bool_] = self.status == OK
        return answered

    @property
    def graded(self) -> bool:
        """Whether the answers carry a confidence; those of a language model are all 0 and 1."""
        probs = self.probs[self.answered]
        return bool(((probs > 0) & (probs < 1)).any())

    @property
    def predicted(self) -> NDArray[np.int64]:
        """``(N,)`` int64 most probable classes, -1 where there is no answer."""
        answered = self.answered
        return np.where(answered, np.where(answered[:, None], self.probs, 0).argmax(axis=1), -1)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """``(N,)`` bool, whether each image was answered correctly; an unanswered image was not."""
        found: NDArray[np.bool_] = self.predicted == self.labels
        return found

    @property
    def confusion(self) -> NDArray[np.int64]:
        """``(C, C + 1)`` int64 images, rows true, columns predicted; the last one: no answer."""
        num_classes = len(self.classes)
        counts = np.zeros((num_classes, num_classes + 1), np.int64)
        np.add.at(counts, (self.labels, np.where(self.answered, self.predicted, num_classes)), 1)
        return counts

    def subset(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> "Predictions":
        """Keep some images, by mask or by position."""
        return Predictions(
            self.ids[rows],
            self.labels[rows],
            self.probs[rows],
            self.status[rows],
            self.leaked[rows],
            self.classes,
            None if self.near_leaked is None else self.near_leaked[rows],
            None if self.embeddings is None else self.embeddings[rows],
        )

    def save(self, path: Path) -> None:
        """Write the predictions as an uncompressed ``.npz`` of plain arrays."""
        known: dict[str, Any] = {} if self.near_leaked is None else {"near_leaked": self.near_leaked}
        with replacing(path) as file:
            np.savez(
                file,
                ids=self.ids,
                labels=self.labels,
                probs=self.probs,
                status=self.status,
                leaked=self.leaked,
                classes=np.array(self.classes),
                **known,
            )

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        """Read a file that ``save`` wrote.

        Raises:
            FERError: If the file is missing, damaged or of another kind.
        """
        try:
            arrays: dict[str, Any] = read_arrays(path, PREDICTION_ARRAYS)
            classes = tuple(arrays.pop("classes").tolist())
            return cls(**arrays, classes=classes)
        except UNREADABLE as error:
            raise FERError(f"{path}: not a predictions file of this project ({error})") from error
