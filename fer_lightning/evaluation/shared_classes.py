"""A network and a data set with other classes: those they share, by name, and predictions of these."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.data.labels import label_or_none
from fer_lightning.evaluation.predictions import Predictions


class SharedClasses(NamedTuple):
    """Which classes of a network a data set has.

    Attributes:
        positions: ``(K,)`` int64 positions in the network's class list, ascending.
        labels: ``(N,)`` int64 labels in the network's class list; -1 for a class that the network lacks.
    """

    positions: NDArray[np.int64]
    labels: NDArray[np.int64]


def find_shared_classes(
    labels: NDArray[np.int64], classes: Sequence[str], known: Sequence[str]
) -> SharedClasses:
    """Match the classes of a data set with those of a network by name, synonyms included.

    Args:
        labels: ``(N,)`` int64 labels of all images; a class without images counts as one that is lacking.
        classes: The class list of the data set.
        known: The class list of the network.
    """
    positions = [label_or_none(name, known) for name in classes]
    found = np.array([-1 if each is None else each for each in positions], np.int64)[labels]
    return SharedClasses(np.unique(found[found >= 0]), found)


def restrict_to(predictions: Predictions, positions: NDArray[np.int64]) -> Predictions:
    """Predict some of the classes alone: their probabilities, divided by their sum.

    Args:
        predictions: Of images whose labels are among these classes.
        positions: ``(K,)`` int64 positions in the class list of the predictions.

    Returns:
        Predictions with K classes. Where all K probabilities are 0, they become equal.
    """
    probs = predictions.probs[:, positions].astype(np.float64)
    probs = np.where(probs.sum(axis=1, keepdims=True) == 0, 1.0, probs)
    new = np.full(len(predictions.classes), -1)
    new[positions] = np.arange(len(positions))
    return Predictions(
        ids=predictions.ids,
        labels=new[predictions.labels],
        probs=(probs / probs.sum(axis=1, keepdims=True)).astype(np.float32),
        status=predictions.status,
        leaked=predictions.leaked,
        classes=tuple(predictions.classes[position] for position in positions),
        near_leaked=predictions.near_leaked,
    )
