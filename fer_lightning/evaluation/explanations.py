"""What a network looked at in a split, and the map of its embeddings, as files for the report.

Two small files of a run folder, ``explanations_<split>.npz`` and ``embeddings_<split>.npz``. They hold the
faces that they show, so that the page of a run needs no data set.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.array_files import UNREADABLE, read_arrays
from fer_lightning.core.errors import FERError
from fer_lightning.core.files import replacing


class _ArrayFile:
    """A dataclass of arrays, texts and numbers as an uncompressed ``.npz``."""

    _kinds: dict[str, str]

    def save(self, path: Path) -> None:
        """Write the file."""
        values: dict[str, Any] = {name: np.asarray(getattr(self, name)) for name in self._kinds}
        with replacing(path) as file:
            np.savez(file, **values)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that ``save`` wrote.

        Raises:
            FERError: If the file is missing, damaged or of another kind.
        """
        try:
            arrays: dict[str, Any] = read_arrays(path, cls._kinds)
            for name, array in arrays.items():
                if not array.ndim:
                    arrays[name] = array.item()
            arrays["classes"] = tuple(arrays["classes"].tolist())
            return cls(**arrays)
        except UNREADABLE as error:
            raise FERError(
                f"{path}: not written by this project ({error}); remove it, and the page lacks its section"
            ) from error


@dataclass(frozen=True)
class Explanations(_ArrayFile):
    """Heat maps of the classes of a split.

    Attributes:
        classes: ``(K,)`` str, the explained classes: the first ones.
        method: ``grad-cam`` or ``occlusion``.
        counts: ``(K,)`` int64 correctly classified faces in the means of each class; 0 if there are none.
        mean_faces: ``(K, S, S)`` or ``(K, S, S, 3)`` uint8 mean of these faces.
        mean_maps: ``(K, S, S)`` uint8 mean of their heat maps for the class.
        ids: ``(E,)`` str, the examples.
        labels: ``(E,)`` int64 true classes.
        answers: ``(E,)`` str predicted classes, for which the maps are.
        probs: ``(E,)`` float32 probabilities of the answers.
        right: ``(E,)`` bool, whether the answer is right.
        faces: ``(E, S, S)`` or ``(E, S, S, 3)`` uint8.
        maps: ``(E, S, S)`` uint8 heat maps.
    """

    classes: tuple[str, ...]
    method: str
    counts: NDArray[np.int64]
    mean_faces: NDArray[np.uint8]
    mean_maps: NDArray[np.uint8]
    ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    answers: NDArray[np.str_]
    probs: NDArray[np.float32]
    right: NDArray[np.bool_]
    faces: NDArray[np.uint8]
    maps: NDArray[np.uint8]

    _kinds = {  # noqa: RUF012 - of the class, not a field
        "classes": "U", "method": "U", "counts": "i", "mean_faces": "u", "mean_maps": "u", "ids": "U",
        "labels": "i", "answers": "U", "probs": "f", "right": "b", "faces": "u", "maps": "u",
    }  # fmt: skip

    def __post_init__(self) -> None:
        for faces, maps, n in (
            (self.mean_faces, self.mean_maps, len(self.classes)),
            (self.faces, self.maps, len(self.ids)),
        ):
            assert maps.ndim == 3, maps.shape
            assert faces.shape in (maps.shape, (*maps.shape, 3)), faces.shape
            assert len(maps) == n, "a map for each face"
        assert self.counts.shape == (len(self.classes),), self.counts.shape
        assert all(
            part.shape == self.ids.shape for part in (self.labels, self.answers, self.probs, self.right)
        )
        assert not len(self.ids) or 0 <= self.labels.min() <= self.labels.max() < len(self.classes)


@dataclass(frozen=True)
class EmbeddingMap(_ArrayFile):
    """Faces of a split, placed by their embeddings.

    Attributes:
        classes: ``(C,)`` str.
        num_images: In the split; more than M if only a sample is shown.
        shares: ``(2,)`` float64 shares of the variance that the two axes hold, in [0, 1].
        ids: ``(M,)`` str.
        positions: ``(M, 2)`` float32, finite.
        labels: ``(M,)`` int64 true classes.
        answers: ``(M,)`` int64 predicted classes.
        probs: ``(M,)`` float32 probabilities of the answers.
        sheet: ``(B,)`` uint8, a JPEG of all faces, row by row.
        columns: Faces in each row of the sheet.
        side: Pixels of a face in it.
    """

    classes: tuple[str, ...]
    num_images: int
    shares: NDArray[np.float64]
    ids: NDArray[np.str_]
    positions: NDArray[np.float32]
    labels: NDArray[np.int64]
    answers: NDArray[np.int64]
    probs: NDArray[np.float32]
    sheet: NDArray[np.uint8]
    columns: int
    side: int

    _kinds = {  # noqa: RUF012 - of the class, not a field
        "classes": "U", "num_images": "i", "shares": "f", "ids": "U", "positions": "f", "labels": "i",
        "answers": "i", "probs": "f", "sheet": "u", "columns": "i", "side": "i",
    }  # fmt: skip

    def __post_init__(self) -> None:
        n = len(self.ids)
        assert self.positions.shape == (n, 2), self.positions.shape
        assert np.isfinite(self.positions).all(), "positions are not finite"
        assert self.shares.shape == (2,), self.shares.shape
        for part in (self.labels, self.answers):
            assert part.shape == (n,), part.shape
            assert 0 <= part.min() <= part.max() < len(self.classes), "unknown classes"
        assert self.probs.shape == (n,), self.probs.shape
        assert self.columns > 0, self.columns
        assert self.side > 0, self.side
        assert self.sheet.ndim == 1, self.sheet.shape
        assert self.sheet[:3].tobytes() == b"\xff\xd8\xff", "the sheet is no JPEG"
