"""Dealing images out to splits: images that belong together stay in one split, classes keep their shares."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.data.audit.near_duplicates import NearDuplicates
from fer_lightning.data.faces import SPLITS, Holdout, Source

# Of the cosine of pairs that stay together: all that are alike (-1), near-duplicates (0.6), to none at all.
# Faces that are aligned on one backdrop can form a chain that leaves no image for another split; a stricter
# bound breaks it.
_BOUNDS = (-1.0, 0.6, 0.7, 0.8, 0.9, np.inf)
_MIN_SHARE = 0.5  # of the images that a split should have

Codes = NDArray[np.uint8]


class Belonging(NamedTuple):
    """What decides which images of a data set belong together; every array has one entry per image.

    Attributes:
        hashes: ``(N,)`` uint64, equal for pixel-identical images.
        groups: ``(N,)`` str groups of the source; None without.
        near: The pairs of near-duplicates; None if they need not stay together.
    """

    hashes: NDArray[np.uint64]
    groups: NDArray[np.str_] | None
    near: NearDuplicates | None

    def units(self, bound: float) -> NDArray[np.int64]:
        """Number the sets of images that belong together: ``(N,)`` int64.

        Args:
            bound: The lowest cosine of near-duplicates that belong together.
        """
        unit_of = np.unique(self.hashes, return_inverse=True)[1].astype(np.int64)
        if self.groups is not None:
            group_of = np.unique(self.groups, return_inverse=True)[1]
            first_of = np.unique(group_of, return_index=True)[1]
            unit_of = _join(unit_of, np.arange(len(unit_of)), first_of[group_of])
        if self.near is not None:
            kept = self.near.gradient >= bound
            unit_of = _join(unit_of, self.near.first[kept], self.near.second[kept])
        return unit_of


def _join(
    unit_of: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Join the units of pairs of rows (union-find): ``(N,)`` int64."""
    parent = list(range(int(unit_of.max(initial=-1)) + 1))

    def root(unit: int) -> int:
        while parent[unit] != unit:
            parent[unit] = parent[parent[unit]]
            unit = parent[unit]
        return unit

    for one, other in zip(unit_of[first].tolist(), unit_of[second].tolist(), strict=True):
        parent[root(other)] = root(one)
    return np.array([root(unit) for unit in range(len(parent))], np.int64)[unit_of]


class Dealt(NamedTuple):
    """Images that were dealt out.

    Attributes:
        splits: ``(M,)`` uint8 positions in ``SPLITS``.
        missing: Each (split, label) whose class has images, but none in this split.
        note: How near-duplicates were not kept together as asked for; empty if they were.
    """

    splits: Codes
    missing: list[tuple[str, int]]
    note: str


def keep_together(
    belonging: Belonging,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    ratios: Mapping[str, float],
    order: NDArray[np.int64],
) -> Dealt:
    """Deal images out to train and other splits, and keep those together that belong together.

    Pixel-identical images and groups are always kept whole. Near-duplicates are unless a split would then
    lack a class, or have less than half of its images: then only the nearer ones are, with the lowest bound
    that works.

    Args:
        belonging: Of the whole data set.
        rows: ``(M,)`` int64 rows of the images to deal out.
        labels: ``(M,)`` int64 their classes.
        ratios: The part of each class that each split but train gets.
        order: ``(M,)`` int64, a shuffle: images that belong to no others are taken from its end.

    Returns:
        The splits of the images, with what is wrong with them.
    """
    bounds = (np.inf,) if belonging.near is None else _BOUNDS
    tried: list[Dealt] = []
    largest = 0
    for bound in bounds:
        units = belonging.units(bound)[rows]
        splits = deal_out(labels, units, ratios, order)
        largest = largest or int(np.bincount(units).max(initial=0))
        note = "" if bound == bounds[0] else _describe_bound(bound, largest, len(rows))
        tried.append(Dealt(splits, _missing(splits, labels, ratios), note))
        if not tried[-1].missing and all(
            (splits == SPLITS.index(split)).sum() >= _MIN_SHARE * int(len(rows) * ratio)
            for split, ratio in ratios.items()
        ):
            return tried[-1]
    return next((dealt for dealt in tried if not dealt.missing), tried[-1])


def _describe_bound(bound: float, largest: int, total: int) -> str:
    kept = (
        "no pairs were" if bound == np.inf else f"only pairs with a gradient cosine of at least {bound} were"
    )
    return (
        f"near-duplicates could not all be kept together: they link up to {largest:,} of {total:,} images, "
        f"which leaves too few for the other splits, so {kept}, and others may be in different splits"
    )


def _missing(splits: Codes, labels: NDArray[np.int64], ratios: Mapping[str, float]) -> list[tuple[str, int]]:
    present = set(labels.tolist())
    return [
        (split, label)
        for split in (*ratios, "train")
        for label in sorted(present - set(labels[splits == SPLITS.index(split)].tolist()))
    ]


def deal_out(
    labels: NDArray[np.int64],
    units: NDArray[np.int64],
    ratios: Mapping[str, float],
    order: NDArray[np.int64],
) -> Codes:
    """Deal images out to train and other splits; images of one unit get the same split.

    Units of several images come first, the larger ones before the smaller ones: each goes to the split that
    lacks most of what it should have of the unit's classes. Single images then fill each class. At last,
    units are moved to splits that lack a class.

    Args:
        labels: ``(M,)`` int64 classes.
        units: ``(M,)`` int64 unit of each image.
        ratios: The part of each class that each split but train gets; at least one image.
        order: ``(M,)`` int64, a shuffle of the images.

    Returns:
        ``(M,)`` uint8 positions in ``SPLITS``. A class may be absent from a split if its units are too few.
    """
    table = _Table(labels, units, ratios)
    members = table.members()
    rank = {unit: int(order[rows].min()) for unit, rows in members.items()}
    for unit in sorted(members, key=lambda unit: (-len(members[unit]).bit_length(), rank[unit])):
        table.place(members[unit], table.choose(members[unit]))
    alone = table.placed < 0
    for label in np.unique(labels):
        singles = np.flatnonzero(alone & (labels == label))
        _place_singles(table, int(label), singles[np.argsort(order[singles], kind="stable")].tolist())
    _fill_empty(table, sorted(members, key=lambda unit: (len(members[unit]), rank[unit])), members)
    codes: Codes = np.array([SPLITS.index(split) for split in table.splits], np.uint8)[table.placed]
    return codes


class _Table:
    """How many images of each class each split has, and should have; train is the last split."""

    def __init__(
        self, labels: NDArray[np.int64], units: NDArray[np.int64], ratios: Mapping[str, float]
    ) -> None:
        self.labels, self.units = labels, units
        self.splits = (*ratios, "train")
        totals = np.bincount(labels)
        parts = [np.maximum(1, np.round(totals * ratio)) for ratio in ratios.values()]
        self.wanted = np.stack([*parts, np.maximum(1, totals - np.sum(parts, axis=0))])
        self.have = np.zeros(self.wanted.shape, np.int64)
        self.placed = np.full(len(labels), -1)

    def members(self) -> dict[int, NDArray[np.int64]]:
        """Map each unit of several images to their positions."""
        by_unit = np.argsort(self.units, kind="stable")
        starts = np.flatnonzero(np.diff(self.units[by_unit], prepend=-1))
        parts = np.split(by_unit, starts[1:])
        return {int(self.units[part[0]]): part for part in parts if len(part) > 1}

    def count(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count the classes of some images: ``(C,)`` int64."""
        return np.bincount(self.labels[rows], minlength=self.wanted.shape[1])

    def choose(self, rows: NDArray[np.int64]) -> int:
        """Return the split that a unit brings nearest to what it should have, relative to that."""
        counts = self.count(rows)
        change = (counts**2 + 2 * counts * (self.have - self.wanted)) / self.wanted
        return int(change.sum(axis=1).argmin())

    def place(self, rows: NDArray[np.int64], place: int) -> None:
        """Put images that are in one split, or in none yet, into a split."""
        counts = self.count(rows)
        before = self.placed[rows[0]]
        if before >= 0:
            self.have[before] -= counts
        self.have[place] += counts
        self.placed[rows] = place


def _place_singles(table: _Table, label: int, singles: list[int]) -> None:
    """Fill the splits with the single images of a class, from the end of the list; train gets the rest."""
    train = len(table.splits) - 1
    for place in range(train):
        empty_later = int((table.have[place + 1 :, label] == 0).sum())
        while table.have[place, label] < table.wanted[place, label] and len(singles) > empty_later:
            table.place(np.array([singles.pop()]), place)
    if singles:
        rows = np.array(singles)
        table.have[train] += table.count(rows)
        table.placed[rows] = train


def _fill_empty(table: _Table, by_size: list[int], members: Mapping[int, NDArray[np.int64]]) -> None:
    """Move the smallest unit that no class needs where it is to each split that lacks one of its classes."""
    present = np.flatnonzero(table.have.sum(axis=0))
    for place in range(len(table.splits)):
        for label in present.tolist():
            if table.have[place, label]:
                continue
            for unit in by_size:
                rows = members[unit]
                counts, before = table.count(rows), table.placed[rows[0]]
                if counts[label] and before != place and (table.have[before] - counts)[counts > 0].all():
                    table.place(rows, place)
                    break


def split_off(
    holdout: Holdout,
    belonging: Belonging,
    labels: NDArray[np.int64],
    splits: Codes,
    ids: NDArray[np.str_],
    classes: tuple[str, ...],
) -> Dealt:
    """Split off from the train images of a source the splits that it leaves open.

    Args:
        holdout: What to split off.
        belonging: Of all images.
        labels: ``(N,)`` int64 classes.
        splits: ``(N,)`` uint8 splits as the source has listed them.
        ids: ``(N,)`` str.
        classes: The class list.

    Returns:
        All images, dealt out; those that are not in train keep their splits.

    Raises:
        FERError: If the groups or the images of a class are too few for the splits.
    """
    rows = np.flatnonzero(splits == SPLITS.index("train"))
    names = [image_id.partition("/")[2] for image_id in ids[rows].tolist()]
    # Sorted by hashed names: a shuffle that adding an image hardly changes.
    digests = [hashlib.blake2b(f"{holdout.seed}/{name}".encode()).digest() for name in names]
    order = np.empty(len(rows), np.int64)
    order[sorted(range(len(rows)), key=digests.__getitem__)] = np.arange(len(rows))
    dealt = keep_together(belonging, rows, labels[rows], holdout.ratios, order)
    if dealt.missing:
        raise _too_few(holdout, belonging, rows, labels[rows], classes, dealt.missing[0])
    everything = splits.copy()
    everything[rows] = dealt.splits
    return dealt._replace(splits=everything)


def _too_few(
    holdout: Holdout,
    belonging: Belonging,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
    missing: tuple[str, int],
) -> FERError:
    """Explain why a class is missing in a split."""
    split, label = missing
    units = belonging.units(np.inf)[rows]
    into = ", ".join(("train", *holdout.ratios))
    way_out = "set data.source.val_ratio and test_ratio to 0"
    if belonging.groups is None:
        found = len(np.unique(units[labels == label]))
        return FERError(
            f"{holdout.where}: class {classes[label]} has {found} different images, too few to split into "
            f"{into}; add some, or {way_out}"
        )
    groups = np.unique(belonging.groups[rows])
    if len(groups) == 1:
        return FERError(
            f"data.source.group: all {len(rows):,} images of {holdout.where} are in one group ({groups[0]}), "
            f"expected at least {len(holdout.ratios) + 1}, to split into {into}; choose another group"
        )
    found = len(np.unique(units))
    if found <= len(holdout.ratios):
        return FERError(
            f"data.source.group: the images of {holdout.where} are in {found} groups, too few to split into "
            f"{into}; choose smaller groups, or {way_out}"
        )
    found = len(np.unique(units[labels == label]))
    return FERError(
        f"data.source.group: class {classes[label]} is in {found} of the groups of {holdout.where}, and none "
        f"of them can be in {split} unless another split loses a class; choose smaller groups, or {way_out}"
    )


def is_dealt(source: Source, split: str) -> bool:
    """Return whether a split was dealt out by this program, and is not the data set's own."""
    find = getattr(source, "holdout", None)
    holdout: Holdout | None = None if find is None else find()
    return holdout is not None and (split == "train" or split in holdout.ratios)
