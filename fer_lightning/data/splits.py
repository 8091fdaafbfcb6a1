"""Which faces train, which select, which report, and which of them are copies of one another."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.data.faces import SPLITS, Faces

Protocol = Literal["official", "paper"]
Rows = NDArray[np.int64]

LEAKS = (("test", "train"), ("val", "train"), ("test", "val"))  # whose copies may stand where


class Copies(NamedTuple):
    """Faces in groups of pixel-identical ones; a face without a copy is a group of its own.

    Attributes:
        group_of: ``(N,)`` int64 group of each face.
        sizes: ``(G,)`` int64 faces in each group.
        lowest: ``(G,)`` int64 least label in each group.
        highest: ``(G,)`` int64 greatest label; where it is not the lowest, labels conflict.
    """

    group_of: NDArray[np.int64]
    sizes: NDArray[np.int64]
    lowest: NDArray[np.int64]
    highest: NDArray[np.int64]


def group_copies(hashes: NDArray[np.uint64], labels: NDArray[np.int64]) -> Copies:
    """Group ``(N,)`` faces by their hashes, and say between which labels each group's are."""
    _, group_of, sizes = np.unique(hashes, return_inverse=True, return_counts=True)
    lowest = np.full(len(sizes), np.iinfo(np.int64).max)
    highest = np.full(len(sizes), -1)
    np.minimum.at(lowest, group_of, labels)
    np.maximum.at(highest, group_of, labels)
    return Copies(group_of, sizes, lowest, highest)


def count_copies(faces: Faces) -> dict[str, int]:
    """Count pixel-identical faces.

    Returns:
        ``groups`` of two and more, the ``images`` in them, how many are ``redundant`` (all but one of each
        group), and ``conflicting_groups``, which carry several labels.
    """
    copies = group_copies(faces.hashes, faces.labels)
    several = copies.sizes > 1
    return {
        "groups": int(several.sum()),
        "images": int(copies.sizes[several].sum()),
        "redundant": int((copies.sizes - 1).sum()),
        "conflicting_groups": int((copies.lowest != copies.highest).sum()),
    }


def has_duplicate_in(hashes: NDArray[np.uint64], seen: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Mark the faces that have a pixel-identical copy among those seen."""
    return np.isin(hashes, seen)


def stratified_holdout(
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
        none stands on both sides. A class in which few or none are without conflict has fewer, or none.
    """
    generator = np.random.default_rng(seed)
    group_of, sizes, lowest, highest = group_copies(hashes, labels)

    chosen = np.zeros(len(sizes), dtype=bool)
    for label in np.unique(labels):
        candidates = generator.permutation(np.flatnonzero((lowest == label) & (highest == label)))
        wanted = max(1, round(fraction * int((labels == label).sum())))
        before = np.cumsum(sizes[candidates]) - sizes[candidates]
        chosen[candidates[before < wanted]] = True
    return chosen[group_of]


def make_splits(faces: Faces, *, protocol: Protocol, val_fraction: float, seed: int) -> dict[str, Rows]:
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
        held_out = stratified_holdout(faces.labels[train], faces.hashes[train], val_fraction, seed)
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


def without_leaks(faces: Faces, rows: dict[str, Rows]) -> dict[str, Rows]:
    """Leave out of train what also stands in val or test, and out of val what also stands in test.

    Args:
        faces: The whole data set.
        rows: Of ``train``, ``val`` and ``test``, as ``assign`` gives them.

    Returns:
        The rows that are left, ascending; those of ``test`` are all there.

    Raises:
        FERError: If no face of a class is left in train or val.
    """
    later = {"train": ("val", "test"), "val": ("test",)}
    kept = dict(rows)
    for split, others in later.items():
        seen = np.concatenate([faces.hashes[rows[other]] for other in others])
        kept[split] = rows[split][~has_duplicate_in(faces.hashes[rows[split]], seen)]
        emptied = set(faces.labels[rows[split]]) - set(faces.labels[kept[split]])
        if emptied:
            raise FERError(
                f"data.drop_leaks=true: every {split} face of class {faces.classes[min(emptied)]} has a copy "
                f"in {' or '.join(others)}, so none would be left; add others, or set data.drop_leaks=false"
            )
    return kept
