"""A few images of a split, on which every predictor is compared: drawn by seed, or somebody's list."""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.data.faces import Faces
from fer_lightning.data.labels import canonical_name

T = TypeVar("T")

MANIFEST = "sample.csv"
PAPER_PER_CLASS = 5  # section 7 of the paper: 35 images

_NAMED = 5  # unmatched entries that a message names


class Entry(NamedTuple):
    """One image of a list.

    Attributes:
        id: ``split/class/name``; of other people's lists any path that ends in ``class/name``.
        hash: Of its pixels; None where the list has none.
    """

    id: str
    hash: int | None


Choice = int | list[Entry] | None  # so many a class, these images, or all


def read_choice(sample: Any, *, auto: int | None) -> Choice:
    """Understand the ``sample`` setting.

    Args:
        sample: ``auto``, ``all``, a number of images per class, or the path of a list.
        auto: What ``auto`` means: so many a class, or None for all.

    Raises:
        FERError: If it is none of these, or the list cannot be read.
    """
    if sample == "auto":
        return auto
    if sample == "all":
        return None
    if isinstance(sample, int) and not isinstance(sample, bool) and sample > 0:
        return sample
    if isinstance(sample, str):
        return read_manifest(Path(sample).expanduser())
    raise FERError(
        f"sample={sample}: expected auto, all, a number of images per class, or the path of a list of images"
    )


def choose_rows(
    choice: Choice, faces: Faces, rows: NDArray[np.int64], *, split: str, seed: int
) -> NDArray[np.int64]:
    """Pick the rows of a split that a choice means, in ascending order.

    Args:
        choice: From ``read_choice``.
        faces: The data set.
        rows: ``(N,)`` int64 rows of the split.
        split: Its name, for messages.
        seed: Of the draw.

    Raises:
        FERError: If the split lacks such images.
    """
    if not len(rows):
        raise FERError(f"split={split}: this split is empty")
    if choice is None:
        return rows
    if isinstance(choice, list):
        return rows[find_rows(choice, faces, rows, split=split)]
    labels = faces.labels[rows]
    for label, name in enumerate(faces.classes):
        if 0 < (found := int((labels == label).sum())) < choice:
            raise FERError(
                f"sample={choice}: the {split} split holds {found} of class {name}; choose at most as "
                "many, or sample=all"
            )
    return rows[draw_sample(labels, choice, seed)]


def draw_sample(labels: NDArray[np.int64], per_class: int, seed: int) -> NDArray[np.int64]:
    """Draw as many images of each class.

    Args:
        labels: ``(N,)`` int64; each class that occurs does so at least ``per_class`` times.
        per_class: Images a class.
        seed: The draw depends on it and on the labels alone, one class's on no other's.

    Returns:
        ``(M,)`` int64 positions in ``labels``, ascending.
    """
    drawn = [
        np.random.default_rng((seed, label)).choice(
            np.flatnonzero(labels == label), size=per_class, replace=False
        )
        for label in np.unique(labels).tolist()
    ]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def find_rows(
    entries: Sequence[Entry], faces: Faces, rows: NDArray[np.int64], *, split: str
) -> NDArray[np.int64]:
    """Find the images of a list in a split.

    An entry with a hash is found by its pixels, whatever its name; of several copies the one with its name is
    taken, else the first that no other entry names. One without a hash is found by its id, else by
    ``class/name``.

    Returns:
        ``(M,)`` int64 positions in ``rows``, ascending.

    Raises:
        FERError: If an entry is not in the split, fits several images, or repeats another.
    """
    ids = faces.ids[rows].tolist()
    by_id = {face_id: place for place, face_id in enumerate(ids)}
    hashes = faces.hashes[rows].tolist()
    by_hash = _places(hashes)
    by_name = _places(map(_class_and_name, ids))

    def named(entry: Entry) -> list[int]:
        places = [by_id[entry.id]] if entry.id in by_id else []
        return [place for place in places if entry.hash in (None, hashes[place])]

    found: dict[int, Entry] = {}
    placed: dict[Entry, int] = {}
    # Who can have one image alone comes before those whom any copy suits.
    for entry in sorted(entries, key=lambda entry: (not named(entry), entry.hash is not None)):
        candidates = named(entry)
        if not candidates and entry.hash is None:
            candidates = by_name.get(_class_and_name(entry.id), [])
        elif not candidates:
            copies = by_hash.get(entry.hash, [])
            candidates = ([place for place in copies if place not in found] or copies)[:1]
        if len(candidates) != 1:
            continue
        place = placed.get(entry, candidates[0])  # given twice, an entry does not mean two copies
        if place in found:
            raise FERError(
                f"sample: the list names {ids[place]} twice, as {found[place].id!r} and as {entry.id!r}"
            )
        found[place] = entry
        placed[entry] = place
    missing = [entry.id for entry in entries if entry not in placed]
    if missing:
        more = ", ..." if len(missing) > _NAMED else ""
        raise FERError(
            f"sample: {len(missing):,} of {len(entries):,} images of the list are not in the {split} split "
            f"({', '.join(map(repr, missing[:_NAMED]))}{more}); choose the split, data and data.protocol "
            "that it was made of"
        )
    return np.array(sorted(found), dtype=np.int64)


def _places(values: Iterable[T]) -> dict[T, list[int]]:
    places: dict[T, list[int]] = {}
    for place, value in enumerate(values):
        places.setdefault(value, []).append(place)
    return places


def _class_and_name(face_id: str) -> tuple[str, str]:
    *_, class_name, name = ["", "", *face_id.replace("\\", "/").split("/")]
    return canonical_name(class_name), name


def write_manifest(path: Path, faces: Faces, rows: NDArray[np.int64]) -> None:
    """Write the images of a sample as a CSV of ``id, label, hash`` (the class's name; 16 hex digits)."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "label", "hash"))
        for row in rows.tolist():
            writer.writerow(
                (faces.ids[row], faces.classes[faces.labels[row]], f"{int(faces.hashes[row]):016x}")
            )


def read_manifest(path: Path) -> list[Entry]:
    """Read a list of images: a manifest of ours, any CSV with a column ``id``, or an id a line.

    Raises:
        FERError: If it cannot be read, or names nothing.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        table = list(csv.reader(lines))
    except OSError as error:
        raise FERError(f"sample={path}: {error.strerror or error}; expected a list of images") from error
    except csv.Error as error:
        raise FERError(f"sample={path}: not a list of images ({error})") from error
    columns = [name.strip().lower() for name in table[0]] if table else []
    if "id" in columns:
        entries = [_entry(dict(zip(columns, cells, strict=False)), path) for cells in table[1:]]
    else:
        entries = [Entry(line.strip(), None) for line in lines]
    if not entries:
        raise FERError(f"sample={path}: names no image")
    return entries


def _entry(cells: dict[str, str], path: Path) -> Entry:
    digits = cells.get("hash", "").strip()
    if digits and not re.fullmatch("[0-9a-fA-F]{16}", digits):
        raise FERError(
            f"sample={path}: hash {digits!r}, expected 16 hexadecimal digits as in a {MANIFEST} of ours; "
            "leave the column out to find images by id"
        )
    return Entry(cells.get("id", "").strip(), int(digits, 16) if digits else None)
