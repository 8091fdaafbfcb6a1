"""Choose the images that a data audit shows: conflicting labels, near-duplicates, blank images."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_lightning.data.audit.near_duplicates import NearDuplicates
from fer_lightning.data.faces import Faces
from fer_lightning.data.splits import DuplicateGroups

NUM_EXAMPLES = 9  # of each kind; half as many blank images, which look the same


def choose_examples(
    faces: Faces, duplicates: DuplicateGroups, near: NearDuplicates, constant: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """Choose examples of what a data audit finds.

    Args:
        faces: The whole data set.
        duplicates: Its groups of pixel-identical images.
        near: Its pairs of near-duplicates.
        constant: ``(N,)`` bool, True for images of a single grey level.

    Returns:
        One dict per example: ``kind`` (``conflict``, ``near``, ``constant``), ``rows`` and ``ids``.
    """
    conflicting = (duplicates.lowest != duplicates.highest)[duplicates.group_of] & ~constant
    found = {
        "conflict": _conflicts(faces, duplicates.group_of, conflicting),
        "near": _near_across_splits(faces, near),
        "constant": [[row] for row in np.flatnonzero(constant)[: NUM_EXAMPLES // 2].tolist()],
    }
    return [
        {"kind": kind, "rows": rows, "ids": faces.ids[rows].tolist()}
        for kind, examples in found.items()
        for rows in examples
    ]


def _conflicts(faces: Faces, group_of: NDArray[np.int64], conflicting: NDArray[np.bool_]) -> list[list[int]]:
    """Choose pairs of pixel-identical images with different labels, those in different splits first."""
    groups: dict[int, list[int]] = {}
    for row in np.flatnonzero(conflicting).tolist():
        groups.setdefault(int(group_of[row]), []).append(row)
    pairs = [
        min(
            (bool(faces.splits[first] == faces.splits[row]), first, row)
            for row in rest
            if faces.labels[row] != faces.labels[first]
        )
        for first, *rest in groups.values()
    ]
    return [[one, other] for _, one, other in sorted(pairs)[:NUM_EXAMPLES]]


def _near_across_splits(faces: Faces, near: NearDuplicates) -> list[list[int]]:
    """Choose near-duplicates in different splits: those with different labels first, then the nearest."""
    across = faces.splits[near.first] != faces.splits[near.second]
    same_label = faces.labels[near.first] == faces.labels[near.second]
    order = np.lexsort((-near.gradient, same_label))
    chosen: list[list[int]] = []
    shown: set[int] = set()
    for place in order[across[order]].tolist():
        pair = [int(near.first[place]), int(near.second[place])]
        if not shown & set(pair):  # one photograph may be in many pairs
            chosen.append(pair)
            shown |= set(pair)
        if len(chosen) == NUM_EXAMPLES:
            break
    return chosen
