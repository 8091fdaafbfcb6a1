"""ROC and precision-recall curves of each class against the rest, from probabilities."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class RankingCurves(NamedTuple):
    """ROC and precision-recall curve of one class, from the highest threshold to the lowest.

    Attributes:
        false_positive_rate: ``(K,)``, from 0 to 1.
        true_positive_rate: ``(K,)`` recall, from 0 to 1.
        precision: ``(K,)``; the first point, of no positive answers, is 1.
        auroc: Area under the ROC curve, in [0, 1].
        average_precision: Mean of the precisions, weighted with the increase of recall (as in scikit-learn).
    """

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]
    precision: NDArray[np.float64]
    auroc: float
    average_precision: float


def ranking_curves(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> RankingCurves | None:
    """Compute the curves of one class; None if all images are of it, or none.

    Args:
        scores: ``(N,)`` probabilities of the class.
        positive: ``(N,)`` whether the image is of the class.
    """
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if not num_positive or not num_negative:
        return None
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)  # ties are one point
    hits = np.concatenate([[0], np.cumsum(positive[order])[ends]])
    named = np.concatenate([[0], ends + 1])
    recall, false = hits / num_positive, (named - hits) / num_negative
    precision = np.concatenate([[1.0], hits[1:] / named[1:]])
    return RankingCurves(
        false_positive_rate=false,
        true_positive_rate=recall,
        precision=precision,
        auroc=float(np.trapezoid(recall, false)),
        average_precision=float(np.sum(np.diff(recall) * precision[1:])),
    )
