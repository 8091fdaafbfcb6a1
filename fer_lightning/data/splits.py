"""Split protocols and duplicate detection."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.data.faces import SPLITS, Faces

Protocol = Literal["official", "paper"]
Rows = NDArray[np.int64]

# Pairs of splits: images of the first may have duplicates in the second.
LEAKS = (("test", "train"), ("val", "train"), ("test", "val"))


class DuplicateGroups(NamedTuple):
    """Groups of pixel-identical images; an image without a duplicate is a group of one.

    Attributes:
        group_of: ``(N,)`` int64 group of each image.
        sizes: ``(G,)`` int64 number of images in each group.
        lowest: ``(G,)`` int64 lowest label in each group.
        highest: ``(G,)`` int64 highest label; labels conflict if it is not the lowest.
    """

    group_of: NDArray[np.int64]
    sizes: NDArray[np.int64]
    lowest: NDArray[np.int64]
    highest: NDArray[np.int64]


def group_duplicates(hashes: NDArray[np.uint64], labels: NDArray[np.int64]) -> DuplicateGroups:
    """Group ``(N,)`` images by their hashes, and find the lowest and highest label of each group."""
    _, group_of, sizes = np.unique(hashes, return_inverse=True, return_counts=True)
    lowest = np.full(len(sizes), np.iinfo(np.int64).max)
    highest = np.full(len(sizes), -1)
    np.minimum.at(lowest, group_of, labels)
    np.maximum.at(highest, group_of, labels)
    return DuplicateGroups(group_of, sizes, lowest, highest)


def count_duplicates(faces: Faces) -> dict[str, int]:
    """Count pixel-identical images.

    Returns:
        ``groups`` of two or more, the ``images`` in them, the ``redundant`` ones (all but one of each group),
        and ``conflicting_groups``, whose images have different labels.
    """
    duplicates = group_duplicates(faces.hashes, faces.labels)
    several = duplicates.sizes > 1
    return {
        "groups": int(several.sum()),
        "images": int(duplicates.sizes[several].sum()),
        "redundant": int((duplicates.sizes - 1).sum()),
        "conflicting_groups": int((duplicates.lowest != duplicates.highest).sum()),
    }


def has_duplicate_in(hashes: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Mark the images that have a pixel-identical duplicate among others, by their hashes."""
    return np.isin(hashes, others)


def stratified_holdout(
    labels: NDArray[np.int64], hashes: NDArray[np.uint64], fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Choose a stratified part of some images; duplicates stay together.

    Args:
        labels: ``(N,)`` int64 classes.
        hashes: ``(N,)`` uint64, equal for duplicates.
        fraction: The part of every class to choose, in (0, 1).
        seed: The seed of the choice.

    Returns:
        ``(N,)`` bool, True for the chosen images. They are ``round(fraction * count)`` of each class, at
        least one, and more only by the duplicates of the last one. Duplicates with conflicting labels are
        never chosen, so that none is on both sides; a class of mostly such images has fewer, or none.
    """
    generator = np.random.default_rng(seed)
    group_of, sizes, lowest, highest = group_duplicates(hashes, labels)

    chosen = np.zeros(len(sizes), dtype=bool)
    for label in np.unique(labels):
        candidates = generator.permutation(np.flatnonzero((lowest == label) & (highest == label)))
        wanted = max(1, round(fraction * int((labels == label).sum())))
        before = np.cumsum(sizes[candidates]) - sizes[candidates]
        chosen[candidates[before < wanted]] = True
    return chosen[group_of]


def make_splits(faces: Faces, *, protocol: Protocol, val_fraction: float, seed: int) -> dict[str, Rows]:
    """Assign the images to train, val and test.

    Args:
        faces: The whole data set.
        protocol: ``official`` keeps the train, val and test splits of the data set (FER-2013: Training,
            PublicTest, PrivateTest). ``paper`` trains on train, has no val and tests on val and test together
            (FER-2013: the 7,178 images of the Kaggle folder ``test/``, as in Table 1 of the paper).
        val_fraction: If above 0, this part of train is the val split; ``official`` then leaves the val split
            of the data set unused.
        seed: The seed of that choice.

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
                f"data.val_fraction={val_fraction}: leaves no training image of class "
                f"{faces.classes[min(emptied)]}; make it smaller"
            )
        train, val = train[~held_out], train[held_out]
    for name, rows in (("train", train), ("test", test)):
        if not len(rows):
            raise FERError(f"data: the {name} split is empty (protocol={protocol})")
    return {"train": train, "val": val, "test": test}


def without_leaks(faces: Faces, rows: dict[str, Rows]) -> dict[str, Rows]:
    """Remove the train images with a duplicate in val or test, and the val images with one in test.

    Args:
        faces: The whole data set.
        rows: The rows of ``train``, ``val`` and ``test``, from ``make_splits``.

    Returns:
        The remaining rows, ascending; those of ``test`` are complete.

    Raises:
        FERError: If no image of a class remains in train or val.
    """
    later = {"train": ("val", "test"), "val": ("test",)}
    kept = dict(rows)
    for split, others in later.items():
        seen = np.concatenate([faces.hashes[rows[other]] for other in others])
        kept[split] = rows[split][~has_duplicate_in(faces.hashes[rows[split]], seen)]
        emptied = set(faces.labels[rows[split]]) - set(faces.labels[kept[split]])
        if emptied:
            raise FERError(
                f"data.drop_leaks=true: every {split} image of class {faces.classes[min(emptied)]} has a "
                f"duplicate in {' or '.join(others)}, so none would remain; add other images, or set "
                "data.drop_leaks=false"
            )
    return kept
