"""Ensembles: the mean of several predictors' probabilities, and which of them to take."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from fer_lightning.core.errors import FERError
from fer_lightning.evaluation.calibration import negative_log_likelihood
from fer_lightning.evaluation.predictions import OK, Predictions


def average(members: Sequence[Predictions], names: Sequence[str]) -> Predictions:
    """Average the probabilities of several predictors on the same images.

    Args:
        members: At least one, with the same classes; any order of the images.
        names: One per member, for messages.

    Returns:
        The images in the order of the first member. Of an image that some members did not answer, the mean of
        the others. An image counts as leaked if it is leaked for any member.

    Raises:
        FERError: If the members differ in their classes, images or labels.
    """
    first = members[0]
    aligned = [align(member, first, name, names[0]) for member, name in zip(members, names, strict=True)]
    answered = np.stack([member.answered for member in aligned])
    probs = np.stack([np.where(member.answered[:, None], member.probs, 0) for member in aligned])
    counts = answered.sum(axis=0)
    mean = probs.astype(np.float64).sum(axis=0) / np.maximum(counts, 1)[:, None]
    near = [member.near_leaked for member in aligned]
    known = [part for part in near if part is not None]
    return Predictions(
        ids=first.ids,
        labels=first.labels,
        probs=np.where(counts[:, None] > 0, mean, np.nan).astype(np.float32),
        status=np.where(counts > 0, OK, first.status),
        leaked=np.any([member.leaked for member in aligned], axis=0),
        classes=first.classes,
        near_leaked=np.any(known, axis=0) if len(known) == len(near) else None,
    )


def align(member: Predictions, first: Predictions, name: str, first_name: str) -> Predictions:
    """Return a member's predictions in the order of another's images.

    Raises:
        FERError: If the two differ in their classes, images or labels.
    """
    if member.classes != first.classes:
        raise FERError(
            f"{name}: has the classes {', '.join(member.classes)}, {first_name} has "
            f"{', '.join(first.classes)}; an ensemble needs members with the same classes"
        )
    order = {name: row for row, name in enumerate(member.ids.tolist())}
    rows = np.array([order.get(name, -1) for name in first.ids.tolist()], np.int64)
    if len(member) != len(first) or (rows < 0).any():
        raise FERError(
            f"{name}: answered {len(member):,} images, {int((rows >= 0).sum()):,} of them among the "
            f"{len(first):,} of {first_name}; an ensemble needs answers to the same images"
        )
    found = member.subset(rows)
    if differing := int((found.labels != first.labels).sum()):
        raise FERError(
            f"{name}: {differing:,} images have another label than in {first_name}; evaluate both on one "
            "data set"
        )
    return found


class Selection(NamedTuple):
    """Members in the order in which they were chosen.

    Attributes:
        members: Their positions among the candidates.
        accuracies: Accuracy on val after each of them, in [0, 1].
    """

    members: list[int]
    accuracies: list[float]


def choose_greedily(val: Sequence[Predictions], names: Sequence[str]) -> Selection:
    """Choose members by their predictions of val, which no test image takes part in.

    The most accurate candidate comes first; then each time the one with which the mean of the probabilities
    is most accurate, until none improves it. Of equally accurate ones that with the lower negative
    log-likelihood is taken. Source: Caruana et al. 2004, Ensemble Selection from Libraries of Models, without
    repeated members.

    Args:
        val: Predictions of the same val images, one per candidate, at least one.
        names: One per candidate, for messages.
    """
    chosen: list[int] = []
    accuracies: list[float] = []
    best = (-1.0, -np.inf)
    while len(chosen) < len(val):
        scores = {
            candidate: _score(_mean_of((*chosen, candidate), val, names))
            for candidate in range(len(val))
            if candidate not in chosen
        }
        candidate = max(scores, key=lambda each: scores[each])
        if scores[candidate][0] <= best[0]:
            break
        best = scores[candidate]
        chosen.append(candidate)
        accuracies.append(best[0])
    return Selection(chosen, accuracies)


def _mean_of(rows: Sequence[int], val: Sequence[Predictions], names: Sequence[str]) -> Predictions:
    return average([val[i] for i in rows], [names[i] for i in rows])


def _score(predictions: Predictions) -> tuple[float, float]:
    """Return accuracy and negative of the negative log-likelihood: larger is better."""
    answered = predictions.answered
    loss = negative_log_likelihood(predictions.probs[answered], predictions.labels[answered])
    return float(predictions.correct.mean()), -loss


def disagreement(members: Sequence[Predictions]) -> float | None:
    """Return the share of images on which two members differ, in [0, 1], as the mean over all pairs.

    None for a single member.
    """
    pairs = [float((one.predicted != other.predicted).mean()) for one, other in combinations(members, 2)]
    return float(np.mean(pairs)) if pairs else None
