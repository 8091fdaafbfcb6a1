"""Split protocols and duplicate detection."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.data.audit.near_duplicates import NearDuplicates
from fer_lightning.data.dealing import Belonging, keep_together
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


def has_near_duplicate_in(
    hashes: NDArray[np.uint64], others: NDArray[np.uint64], faces: Faces, near: NearDuplicates
) -> NDArray[np.bool_]:
    """Mark the images that have a near-duplicate among others, by their hashes.

    Args:
        hashes: ``(M,)`` uint64 of the images.
        others: ``(L,)`` uint64 of the others.
        faces: A data set with all of them.
        near: Its near-duplicates; pairs that are only alike do not count.

    Returns:
        ``(M,)`` bool; an image that is only pixel-identical to one of the others is not marked.
    """
    near = near.confirmed()
    first, second = faces.hashes[near.first], faces.hashes[near.second]
    found = np.concatenate([second[np.isin(first, others)], first[np.isin(second, others)]])
    return np.isin(hashes, found)


def has_group_in(faces: Faces, rows: Rows, others: Rows) -> NDArray[np.bool_]:
    """Mark the rows whose group also has images among other rows; none if the data set has no groups."""
    if faces.groups is None:
        return np.zeros(len(rows), bool)
    return np.isin(faces.groups[rows], faces.groups[others])


def make_splits(
    faces: Faces, *, protocol: Protocol, val_fraction: float, seed: int, near: NearDuplicates | None = None
) -> tuple[dict[str, Rows], str]:
    """Assign the images to train, val and test.

    Args:
        faces: The whole data set.
        protocol: ``official`` keeps the train, val and test splits of the data set (FER-2013: Training,
            PublicTest, PrivateTest). ``paper`` trains on train, has no val and tests on val and test together
            (FER-2013: the 7,178 images of the Kaggle folder ``test/``, as in Table 1 of the paper).
        val_fraction: If above 0, this part of train is the val split, chosen class by class; ``official``
            then leaves the val split of the data set unused. Duplicates and groups are kept together.
        seed: The seed of that choice.
        near: Pairs of near-duplicates that are kept together too; None for none.

    Returns:
        Rows of ``train``, ``val`` and ``test``, ascending (each may be empty), and a sentence on
        near-duplicates that could not be kept together, empty if there are none.

    Raises:
        FERError: If a setting is wrong, or if a class has no image or group to spare for val.
    """
    if protocol not in ("official", "paper"):
        raise FERError(f"data.protocol={protocol}: expected official or paper")
    if not 0 <= val_fraction < 1:
        raise FERError(f"data.val_fraction={val_fraction}: expected a number in [0, 1)")
    train, val, test = (np.flatnonzero(faces.splits == code) for code in range(len(SPLITS)))
    if protocol == "paper":
        val, test = val[:0], np.sort(np.concatenate([val, test]))
    note = ""
    if val_fraction > 0:
        train, val, note = _hold_out(faces, train, val_fraction, seed, near)
    return {"train": train, "val": val, "test": test}, note


def check_divisible(rows: Mapping[str, Rows], num_processes: int) -> None:
    """Refuse more processes than a split that they divide has images.

    Raises:
        FERError: With the split.
    """
    for split in ("train", "val"):
        if 0 < len(rows[split]) < num_processes:
            raise FERError(
                f"trainer: {num_processes} processes, and {len(rows[split])} in the {split} split; expected "
                "at least one image for each process"
            )


def check_not_empty(rows: Mapping[str, Rows], splits: Sequence[str], protocol: Protocol) -> None:
    """Refuse splits without images.

    Args:
        rows: From ``make_splits``.
        splits: The splits that are needed.
        protocol: Of the data module, for the message.

    Raises:
        FERError: With the split, and those that have images.
    """
    for split in splits:
        if not len(rows[split]):
            others = ", ".join(f"{len(rows[name]):,} in {name}" for name in rows if len(rows[name]))
            raise FERError(f"data: the {split} split is empty (protocol={protocol}); there are {others}")


def _hold_out(
    faces: Faces, train: Rows, fraction: float, seed: int, near: NearDuplicates | None
) -> tuple[Rows, Rows, str]:
    """Divide the rows of train into train and val; see ``make_splits``."""
    labels, belonging = faces.labels[train], Belonging(faces.hashes, faces.groups, near)
    order = np.random.default_rng(seed).permutation(len(train))
    dealt = keep_together(belonging, train, labels, {"val": fraction}, order)
    if dealt.missing:
        name, what = faces.classes[dealt.missing[0][1]], "image" if faces.groups is None else "group"
        raise FERError(
            f"data.val_fraction={fraction}: class {name} has too few training images to hold some out and "
            f"keep some, with no {what} in both splits; add images, or set data.val_fraction=0"
        )
    held_out = dealt.splits == SPLITS.index("val")
    return train[~held_out], train[held_out], dealt.note


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
