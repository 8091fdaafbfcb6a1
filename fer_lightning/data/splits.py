"""Which faces train, which select, which report, and which of them are copies of one another."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fer_lightning.data.faces import SPLITS, Faces
from fer_lightning.errors import FERError

Protocol = Literal["official", "paper"]
Rows = NDArray[np.int64]


def carve(
    labels: NDArray[np.int64], hashes: NDArray[np.uint64], fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Choose a stratified part of some faces, pixel-identical copies staying together.

    Args:
        labels: ``(N,)`` classes.
        hashes: ``(N,)`` equal for copies.
        fraction: Part of every class to choose, in (0, 1).
        seed: Of the choice.

    Returns:
        ``(N,)`` bool. Each class has ``round(fraction * count)`` faces in it, at least one, and at most as
        many more as its last group of copies has; copies that carry conflicting labels are left out, so that
        none stands on both sides.
    """
    generator = np.random.default_rng(seed)
    groups, group_of = np.unique(hashes, return_inverse=True)
    lowest = np.full(len(groups), np.iinfo(np.int64).max)
    highest = np.full(len(groups), -1)
    np.minimum.at(lowest, group_of, labels)
    np.maximum.at(highest, group_of, labels)
    sizes = np.bincount(group_of)

    chosen = np.zeros(len(groups), dtype=bool)
    for label in np.unique(labels):
        candidates = generator.permutation(np.flatnonzero((lowest == label) & (highest == label)))
        wanted = max(1, round(fraction * int((labels == label).sum())))
        before = np.cumsum(sizes[candidates]) - sizes[candidates]
        chosen[candidates[before < wanted]] = True
    return chosen[group_of]


def assign(faces: Faces, *, protocol: Protocol, val_fraction: float, seed: int) -> dict[str, Rows]:
    """Give every face its part.

    Args:
        faces: The whole data set.
        protocol: ``official`` keeps the data set's own train, val and test (FER-2013: Training, PublicTest,
            PrivateTest). ``paper`` trains on train, selects on nothing and reports val and test together
            (FER-2013: the 7,178 images of the Kaggle folder ``test/``, on which the paper's Table 1 was
            measured).
        val_fraction: Above 0, validate on this part of train instead; ``official`` then leaves the data
            set's own val untouched.
        seed: Of that choice.

    Returns:
        Rows of ``train``, ``val`` and ``test``, ascending; ``val`` may be empty.
    """
    if protocol not in ("official", "paper"):
        raise FERError(f"data.protocol={protocol}: expected official or paper")
    if not 0 <= val_fraction < 1:
        raise FERError(f"data.val_fraction={val_fraction}: expected a number in [0, 1)")
    train, val, test = (np.flatnonzero(faces.splits == code) for code in range(len(SPLITS)))
    if protocol == "paper":
        val, test = val[:0], np.sort(np.concatenate([val, test]))
    if val_fraction > 0:
        held_out = carve(faces.labels[train], faces.hashes[train], val_fraction, seed)
        emptied = set(faces.labels[train]) - set(faces.labels[train[~held_out]])
        if emptied:
            raise FERError(
                f"data.val_fraction={val_fraction}: leaves no training face of class "
                f"{faces.classes[min(emptied)]}; make it smaller"
            )
        train, val = train[~held_out], train[held_out]
    for name, rows in (("train", train), ("test", test)):
        if not len(rows):
            raise FERError(f"data: the {name} split is empty (protocol={protocol})")
    return {"train": train, "val": val, "test": test}
