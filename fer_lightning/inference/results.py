"""What a predictor says of the faces in images."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fer_lightning.core.errors import FERError
from fer_lightning.evaluation.predictions import OK, Predictions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pandas import DataFrame
    from PIL.Image import Image

UNSURE = "unsure"


class Box(NamedTuple):
    """A rectangle in an upright image, in pixels from its upper left corner."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Face:
    """One face and its predicted expression.

    Attributes:
        image: The path of its image, or the number of an image that is no file.
        box: Where a detector found it; None if the whole image was taken as a face.
        score: The detector's confidence in [0, 1]; None if it has none.
        expression: The most probable class.
        probs: Class name -> probability in [0, 1], in the order of the network; read-only.
        flags: Why the prediction may be wrong: ``small``, ``blurred``, ``dark``, ``blank``, ``unsure``.
    """

    image: str
    box: Box | None
    score: float | None
    expression: str
    probs: Mapping[str, float]
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "probs", MappingProxyType(dict(self.probs)))

    def __reduce__(self) -> tuple[type["Face"], tuple[Any, ...]]:
        """Copy and pickle plain values: a read-only dict cannot be pickled."""
        return Face, (self.image, self.box, self.score, self.expression, dict(self.probs), self.flags)

    @property
    def probability(self) -> float:
        """The probability of ``expression``."""
        return self.probs[self.expression]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as in the command's JSON."""
        return {
            "image": self.image,
            "box": None if self.box is None else [round(value, 1) for value in self.box],
            "score": None if self.score is None else round(self.score, 4),
            "expression": self.expression,
            "probs": dict(self.probs),
            "flags": list(self.flags),
        }

    def to_row(self) -> dict[str, Any]:
        """Return one value for each column of a table."""
        box = self.box or (None, None, None, None)
        return {
            "image": self.image,
            **dict(zip(Box._fields, box, strict=True)),
            "score": self.score,
            "expression": self.expression,
            "probability": self.probability,
            "flags": " ".join(self.flags),
            **self.probs,
        }


class FaceList(tuple[Face, ...]):
    """Faces in the order of their images, and from left to right within an image."""

    __slots__ = ()

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return plain values, one dict for each face; see ``Face.to_dict``."""
        return [face.to_dict() for face in self]

    def to_pandas(self) -> "DataFrame":
        """Return a table with one row for each face.

        Raises:
            FERError: If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise FERError(
                "to_pandas: pandas is not installed; pip install pandas, or call to_dicts()"
            ) from error
        return pd.DataFrame([face.to_row() for face in self])

    def to_predictions(self, labels: Mapping[str, str] | Sequence[str]) -> Predictions:
        """Return what metrics and statistics take, with the true expressions of the faces.

        Args:
            labels: A class name for each face, in their order; or image -> class name, for all its faces.

        Returns:
            One row for each face, with calibrated probabilities. Its id is the image, from the second face
            of an image on followed by ``#2``, ``#3``... No row counts as leaked, since nothing is known of
            the images.

        Raises:
            FERError: If there are no faces, or a label is missing or of no class.
        """
        if not self:
            raise FERError("to_predictions: there are no faces")
        given = [labels.get(face.image) for face in self] if isinstance(labels, Mapping) else list(labels)
        if len(given) != len(self):
            raise FERError(f"labels: {len(given):,} for {len(self):,} faces, expected one for each face")
        classes, counts = tuple(self[0].probs), Counter[str]()
        ids, numbers = [], []
        for face, name in zip(self, given, strict=True):
            if name not in classes:
                raise FERError(f"labels: {face.image} has {name!r}, expected one of {', '.join(classes)}")
            counts[face.image] += 1
            ids.append(face.image if counts[face.image] == 1 else f"{face.image}#{counts[face.image]}")
            numbers.append(classes.index(name))
        return Predictions(
            ids=np.array(ids),
            labels=np.array(numbers, np.int64),
            probs=np.array([list(face.probs.values()) for face in self], np.float32),
            status=np.full(len(self), OK),
            leaked=np.zeros(len(self), bool),
            classes=classes,
        )


class Explanation(NamedTuple):
    """What the network looked at in one face.

    Attributes:
        face: Whose predicted expression is explained.
        crop: ``(S, S)`` or ``(S, S, 3)`` uint8, the face as the network sees it.
        heat: ``(S, S)`` float32 in [0, 1], high where the evidence for the expression is.
        method: ``grad-cam`` or ``occlusion``.
    """

    face: Face
    crop: "NDArray[np.uint8]"
    heat: "NDArray[np.float32]"
    method: str


class ImageResult(NamedTuple):
    """What was found in one image.

    Attributes:
        name: Its path or number.
        faces: From left to right; empty if there are none.
        problem: Why the image was not read; None if it was.
        image: The upright image, if it was asked for.
        explanations: One for each face, if they were asked for.
    """

    name: str
    faces: FaceList
    problem: str | None = None
    image: "Image | None" = None
    explanations: tuple[Explanation, ...] = ()


def join_faces(results: Iterable[ImageResult]) -> FaceList:
    """Join the faces of several images.

    Raises:
        FERError: If an image was not read; all of them are named.
    """
    faces: list[Face] = []
    problems = []
    for result in results:
        faces += result.faces
        if result.problem is not None:
            problems.append(f"{result.name}: {result.problem}")
    if problems:
        raise FERError("; ".join(problems))
    return FaceList(faces)
