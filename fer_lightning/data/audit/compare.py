"""Compare a data set with the published FER-2013, image by image: labels, splits, pixels, presence."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.data.audit.published import Published
from fer_lightning.data.audit.quality import describe_look
from fer_lightning.data.audit.recognise import (
    ALTERED,
    MIN_SHARE,
    MIRRORED,
    SAME,
    SIZE,
    UNKNOWN,
    Recognised,
    recognise,
)
from fer_lightning.data.faces import SPLITS, Faces
from fer_lightning.data.labels import EXPRESSIONS, canonical_name

_NAMED_SHARE = 0.2  # of the images of a data set of this name that have to be similar, to compare the others
_SWAPPED_SHARE = (
    0.9  # of the images of a class, or of a split, that all have another label, or are in another one
)
_RENAMED_SHARE = 0.6  # of the images of a class of another name that have one published label
_CHANCE = 0.05  # above the agreement of shuffled labels, which is still taken for it
_MISTAKEN_SHARE = 0.001  # of the images that are recognised by their coarse structure
_NUM_EXAMPLES = 3  # ids of each kind
_MOST_COPIES = 10**9  # of one image, in a data set

_Ints = NDArray[np.int64]


def compare_with_published(
    faces: Faces, published: Published, measured: NDArray[np.float32], *, is_fer2013: bool
) -> dict[str, Any] | None:
    """Compare a data set with the published FER-2013.

    Args:
        faces: Any data set.
        published: FER-2013.
        measured: ``(3, N)`` float32, the result of ``quality.measure_quality``.
        is_fer2013: Whether the data set is called FER-2013; any other is compared only if at least half of
            its images are those of FER-2013.

    Returns:
        Plain values, see ``published`` in docs/interface.md; None for a data set of other images.
    """
    labels, renamed = _published_labels(faces, None, published)
    found = recognise(faces, published, labels, min_share=_NAMED_SHARE if is_fer2013 else MIN_SHARE)
    if not is_fer2013 and (found.how != UNKNOWN).mean() < MIN_SHARE:
        return None
    labels, renamed = _published_labels(faces, found, published)
    pairs = _pair(found, labels, faces.splits.astype(np.int64), published)
    relabelled, moved = _differing(faces, found, labels, pairs, published)
    rows, theirs, sure = pairs
    extra = np.setdiff1d(np.flatnonzero(found.how != UNKNOWN), rows)
    missing = np.setdiff1d(np.arange(len(published.labels)), theirs)
    kinds = {
        "relabelled": rows[relabelled],
        "moved": rows[moved],
        "copies": extra,
        "foreign": np.flatnonzero(found.how == UNKNOWN),
        "mirrored": np.flatnonzero(found.how == MIRRORED),
        "altered": np.flatnonzero(found.how == ALTERED),
    }
    intact = ~relabelled & ~moved
    return {
        "num_images": len(published.labels),
        "same_pixels": int((found.how == SAME).sum()),
        **{kind: len(which) for kind, which in kinds.items()},
        "missing": len(missing),
        "labels": _describe_labels(labels[rows[sure]], published.labels[theirs[sure]]) | {"renamed": renamed},
        "moves": _count_moves(published.splits[theirs[moved]], faces.splits[rows[moved]]),
        "swapped_splits": _swapped_splits(published.splits[theirs[sure]], faces.splits[rows[sure]]),
        "copied": _count_moves(_first_split(published, found.image[extra]), faces.splits[extra]),
        "missing_by_split": _count(published.splits[missing], SPLITS),
        "missing_classes": _whole_classes(published.labels, missing),
        "foreign_by_split": _count(faces.splits[kinds["foreign"]], SPLITS),
        "test_intact": _is_intact(faces, published, rows[intact], theirs[intact], found),
        "look": describe_look(measured[:, kinds["altered"]]) if faces.images.shape[1] == SIZE else "",
        "examples": {kind: faces.ids[which[:_NUM_EXAMPLES]].tolist() for kind, which in kinds.items()},
    }


def _differing(
    faces: Faces, found: Recognised, labels: _Ints, pairs: "_Pairs", published: Published
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Mark the pairs with another label, and those in another split: ``(P,)`` bool each."""
    rows, theirs, sure = pairs
    relabelled = sure & (labels[rows] != published.labels[theirs])
    moved = sure & (faces.splits[rows] != published.splits[theirs])
    for differing in (relabelled, moved):  # few of those that are only similar are mistaken for another
        similar = differing & found.by_structure[rows]
        if similar.sum() < _MISTAKEN_SHARE * found.by_structure.sum():
            differing &= ~similar
    return relabelled, moved


def _whole_classes(labels: _Ints, missing: _Ints) -> list[str]:
    """Name the classes all of whose images are missing."""
    counts, lost = (np.bincount(part, minlength=len(EXPRESSIONS)) for part in (labels, labels[missing]))
    return [name for name, n, gone in zip(EXPRESSIONS, counts, lost, strict=True) if 0 < n == gone]


def _published_labels(
    faces: Faces, found: Recognised | None, published: Published
) -> tuple[_Ints, dict[str, str]]:
    """Map labels to those of ``EXPRESSIONS`` by name, and classes of other names by their images.

    Returns:
        ``(N,)`` int64 labels, -1 for a class that is none of them, and the classes of other names with the
        published class of their images.
    """
    positions = {name: label for label, name in enumerate(EXPRESSIONS)}
    mapped = np.array([positions.get(canonical_name(name), -1) for name in faces.classes])
    renamed: dict[str, str] = {}
    for label in np.flatnonzero(mapped < 0).tolist() if found is not None else ():
        assert found is not None
        images = found.image[(faces.labels == label) & (found.image >= 0)]
        if len(images):
            counts = np.bincount(
                published.labels[np.searchsorted(published.image, images)], minlength=len(EXPRESSIONS)
            )
            if counts.max() >= _RENAMED_SHARE * len(images) and counts.argmax() not in mapped:
                mapped[label] = counts.argmax()
                renamed[str(faces.classes[label])] = EXPRESSIONS[int(counts.argmax())]
    return mapped[faces.labels], renamed


class _Pairs(NamedTuple):
    """Images and published rows that belong together, each once.

    Attributes:
        rows: ``(P,)`` int64 rows of the data set.
        theirs: ``(P,)`` int64 published rows.
        sure: ``(P,)`` bool, False if they may be different images.
    """

    rows: _Ints
    theirs: _Ints
    sure: NDArray[np.bool_]


def _pair(found: Recognised, labels: _Ints, splits: _Ints, published: Published) -> _Pairs:
    """Pair images with published rows of the same image, those that agree most first.

    Images that are recognised by their coarse structure and are left over are paired with published ones that
    are left over, which they probably are: two images can be equally similar to one.
    """
    ours = np.flatnonzero(found.image >= 0)
    theirs = np.arange(len(published.labels))
    first = np.searchsorted(published.image, found.image[ours])
    by_label = (labels[ours] == published.labels[first]).mean() if len(ours) else 1.0
    by_split = (splits[ours] == published.splits[first]).mean() if len(ours) else 1.0
    likely = [(1, 1, 0), (1, 0, 1)] if by_label >= by_split else [(1, 0, 1), (1, 1, 0)]
    pairs: list[_Pairs] = []
    for by_image, by_label, by_split in [(1, 1, 1), *likely, (1, 0, 0), (0, 1, 1), (0, 1, 0), (0, 0, 0)]:
        if not by_image:
            ours = ours[found.by_structure[ours]]
        key = (
            found.image[ours] * 1000 * by_image + (labels[ours] + 1) * 10 * by_label + splits[ours] * by_split
        )
        other = published.image[theirs] * 1000 * by_image + (published.labels[theirs] + 1) * 10 * by_label
        other = other + published.splits[theirs] * by_split
        # Equal keys are paired by their order: the first with the first, and so on.
        _, one, two = np.intersect1d(_numbered(key), _numbered(other), return_indices=True)
        sure = found.sure[ours[one]] if by_image else np.zeros(len(one), bool)
        pairs.append(_Pairs(ours[one], theirs[two], sure))
        ours, theirs = np.delete(ours, one), np.delete(theirs, two)
    return _Pairs(*(np.concatenate(part) for part in zip(*pairs, strict=True)))


def _numbered(keys: _Ints) -> _Ints:
    """Make keys unique by the number of equal ones before each."""
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    number = np.arange(len(keys)) - np.repeat(starts, np.diff(starts, append=len(keys)))
    numbered = np.empty(len(keys), np.int64)
    numbered[order] = keys[order] * _MOST_COPIES + number
    return numbered


def _describe_labels(ours: _Ints, theirs: _Ints) -> dict[str, Any]:
    """Describe how labels differ.

    Returns:
        ``swapped`` (pairs of classes), ``renumbered`` (published class -> class, for other permutations),
        ``others`` (labels that differ in another way), and ``shuffled`` (whether they agree by chance only).
    """
    counts = np.zeros((len(EXPRESSIONS), len(EXPRESSIONS) + 1), np.int64)
    np.add.at(counts, (theirs, ours), 1)  # -1, a class of another name, is the last column
    totals = counts.sum(axis=1)
    to = {
        label: int(counts[label].argmax())
        for label in np.flatnonzero(totals).tolist()
        if counts[label].max() >= _SWAPPED_SHARE * totals[label]
        and counts[label].argmax() not in (label, len(EXPRESSIONS))
    }
    explained = sum(int(counts[label, target]) for label, target in to.items())
    pairs = [(one, two) for one, two in to.items() if one < two and to.get(two) == one]
    rest = {one: two for one, two in to.items() if to.get(two) != one}
    agreeing, n = int(np.trace(counts)), max(int(counts.sum()), 1)
    chance = float(totals @ counts.sum(axis=0)[:-1]) / n**2
    return {
        "swapped": [[EXPRESSIONS[one], EXPRESSIONS[two]] for one, two in pairs],
        "renumbered": {EXPRESSIONS[one]: EXPRESSIONS[two] for one, two in rest.items()},
        "others": int(counts.sum()) - agreeing - explained,
        "shuffled": not to and agreeing / n <= chance + _CHANCE,
    }


def _count(codes: NDArray[Any], names: tuple[str, ...]) -> dict[str, int]:
    counts = np.bincount(codes, minlength=len(names)).tolist()
    return {name: count for name, count in zip(names, counts, strict=True) if count}


def _count_moves(theirs: NDArray[Any], ours: NDArray[Any]) -> dict[str, int]:
    """Count images by published split and split, such as ``val in test``."""
    pairs = _count(theirs.astype(np.int64) * len(SPLITS) + ours, _MOVES)
    return dict(sorted(pairs.items(), key=lambda move: -move[1]))


_MOVES = tuple(f"{one} in {two}" for one in SPLITS for two in SPLITS)


def _swapped_splits(theirs: NDArray[Any], ours: NDArray[Any]) -> list[list[str]]:
    def share(one: int, two: int) -> float:
        here = theirs == one
        return float((ours[here] == two).mean()) if here.any() else 0.0

    return [
        [SPLITS[one], SPLITS[two]]
        for one in range(len(SPLITS))
        for two in range(one + 1, len(SPLITS))
        if min(share(one, two), share(two, one)) >= _SWAPPED_SHARE
    ]


def _first_split(published: Published, images: _Ints) -> _Ints:
    return published.splits[np.searchsorted(published.image, images)]


def _is_intact(faces: Faces, published: Published, rows: _Ints, theirs: _Ints, found: Recognised) -> bool:
    """Return whether the test split has exactly its published images, pixels and labels."""
    test = SPLITS.index("test")
    same = (published.splits[theirs] == test) & (found.how[rows] == SAME)
    return bool(same.sum() == (faces.splits == test).sum() == (published.splits == test).sum())
