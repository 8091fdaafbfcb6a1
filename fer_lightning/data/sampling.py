"""Select a sample of a split: all images, a number per class drawn by seed, or the images of a list."""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import check_not_special
from fer_lightning.data.faces import Faces
from fer_lightning.data.labels import canonical_name

T = TypeVar("T")

MANIFEST = "sample.csv"
PAPER_PER_CLASS = 5  # section 7 of the paper: 35 images

_MAX_LISTED = 5  # unmatched entries listed in an error


class Entry(NamedTuple):
    """One image of a list.

    Attributes:
        id: ``split/class/name``, or any path that ends with ``class/name``.
        hash: The hash of its pixels; None if the list has none.
    """

    id: str
    hash: int | None


Sample = int | list[Entry] | None  # a number of images per class, a list of images, or all images


def parse_sample(sample: Any, *, auto: int | None) -> Sample:
    """Parse the ``sample`` setting.

    Args:
        sample: ``auto``, ``all``, a number of images per class, or the path of a list.
        auto: The meaning of ``auto``: a number of images per class, or None for all images.
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


def select_rows(
    sample: Sample, faces: Faces, rows: NDArray[np.int64], *, split: str, seed: int
) -> NDArray[np.int64]:
    """Select the rows of a sample from a split.

    Args:
        sample: The sample, from ``parse_sample``.
        faces: The data set.
        rows: ``(N,)`` int64 rows of the split.
        split: The name of the split, for messages.
        seed: The seed of the draw.

    Returns:
        ``(M,)`` int64 rows, ascending.

    Raises:
        FERError: If the split does not contain the sample.
    """
    if not len(rows):
        raise FERError(f"split={split}: this split is empty")
    if sample is None:
        return rows
    if isinstance(sample, list):
        return rows[find_rows(sample, faces, rows, split=split)]
    labels = faces.labels[rows]
    for label, name in enumerate(faces.classes):
        if 0 < (found := int((labels == label).sum())) < sample:
            raise FERError(
                f"sample={sample}: the {split} split has only {found} images of class {name}; choose at most "
                f"{found}, or sample=all"
            )
    return rows[draw_sample(labels, sample, seed)]


def draw_sample(labels: NDArray[np.int64], per_class: int, seed: int) -> NDArray[np.int64]:
    """Draw the same number of images of each class.

    Args:
        labels: ``(N,)`` int64 classes; each that occurs does so at least ``per_class`` times.
        per_class: Number of images per class.
        seed: The seed of the draw; the draw from one class does not depend on the other classes.

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

    An entry with a hash is found by its pixels, whatever its name; among duplicates, the one with its name is
    taken, or else the first that no other entry names. An entry without a hash is found by its id, or else by
    ``class/name``.

    Returns:
        ``(M,)`` int64 positions in ``rows``, ascending.

    Raises:
        FERError: If an entry is not in the split, matches several images, or repeats another.
    """
    ids = faces.ids[rows].tolist()
    by_id = {face_id: place for place, face_id in enumerate(ids)}
    hashes = faces.hashes[rows].tolist()
    by_hash = _positions(hashes)
    by_name = _positions(map(_class_and_name, ids))

    def named(entry: Entry) -> list[int]:
        places = [by_id[entry.id]] if entry.id in by_id else []
        return [place for place in places if entry.hash in (None, hashes[place])]

    found: dict[int, Entry] = {}
    placed: dict[Entry, int] = {}
    # Entries that match only one image come before those that any duplicate satisfies.
    for entry in sorted(entries, key=lambda entry: (not named(entry), entry.hash is not None)):
        candidates = named(entry)
        if not candidates and entry.hash is None:
            candidates = by_name.get(_class_and_name(entry.id), [])
        elif not candidates:
            duplicates = by_hash.get(entry.hash, [])
            candidates = ([place for place in duplicates if place not in found] or duplicates)[:1]
        if len(candidates) != 1:
            continue
        place = placed.get(entry, candidates[0])  # an entry that is listed twice does not mean two duplicates
        if place in found:
            raise FERError(
                f"sample: the list names {ids[place]} twice, as {found[place].id!r} and as {entry.id!r}"
            )
        found[place] = entry
        placed[entry] = place
    missing = [entry.id for entry in entries if entry not in placed]
    if missing:
        more = ", ..." if len(missing) > _MAX_LISTED else ""
        raise FERError(
            f"sample: {len(missing):,} of {len(entries):,} images of the list are not in the {split} split "
            f"({', '.join(map(repr, missing[:_MAX_LISTED]))}{more}); choose the split, data and "
            "data.protocol that the list was made from"
        )
    return np.array(sorted(found), dtype=np.int64)


def _positions(values: Iterable[T]) -> dict[T, list[int]]:
    places: dict[T, list[int]] = {}
    for place, value in enumerate(values):
        places.setdefault(value, []).append(place)
    return places


def _class_and_name(face_id: str) -> tuple[str, str]:
    *_, class_name, name = ["", "", *face_id.replace("\\", "/").split("/")]
    return canonical_name(class_name), name


def write_manifest(path: Path, faces: Faces, rows: NDArray[np.int64]) -> None:
    """Write the images of a sample as a CSV of ``id``, ``label`` (class name), ``hash`` (16 hex digits)."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "label", "hash"))
        for row in rows.tolist():
            writer.writerow(
                (faces.ids[row], faces.classes[faces.labels[row]], f"{int(faces.hashes[row]):016x}")
            )


def read_manifest(path: Path) -> list[Entry]:
    """Read a list of images: a manifest, any CSV with a column ``id``, or one id per line."""
    check_not_special(path, given=f"sample={path}")
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
        raise FERError(f"sample={path}: lists no image")
    return entries


def _entry(cells: dict[str, str], path: Path) -> Entry:
    digits = cells.get("hash", "").strip()
    if digits and not re.fullmatch("[0-9a-fA-F]{16}", digits):
        raise FERError(
            f"sample={path}: hash {digits!r}, expected 16 hexadecimal digits as in {MANIFEST}; "
            "remove the column to find images by id"
        )
    return Entry(cells.get("id", "").strip(), int(digits, 16) if digits else None)
