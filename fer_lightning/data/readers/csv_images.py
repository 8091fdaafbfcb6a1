"""Images named by the rows of a CSV, with labels or votes, splits, groups and boxes."""

import hashlib
import json
import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.core.text import writable
from fer_lightning.data.decode import check_channels, decode, decode_crop
from fer_lightning.data.faces import SPLITS, Holdout, Record
from fer_lightning.data.labels import class_index
from fer_lightning.data.readers.class_folders import listing_key
from fer_lightning.data.readers.csv_columns import Box, Cells, Columns, check_columns
from fer_lightning.data.readers.files import check_place, disk_file, read_image, reading
from fer_lightning.data.readers.packed import open_unpacked
from fer_lightning.data.readers.ratios import check_ratios
from fer_lightning.data.readers.tables import find_header, read_lines, read_rows


class _Row(NamedTuple):
    """A row that is used: where it is, its label, its image on disk and in ids, and its cells."""

    where: str
    label: int
    place: str
    name: str
    cells: Cells


class CSVImages:
    """A source for a CSV whose rows name image files.

    Columns of splits that name only some of train, val and test leave the others open: these are split off
    from the training images by ratio, as by ``ImageFolder``, with duplicates, near-duplicates and groups
    kept together. The names of the columns do not depend on case.

    Args:
        root: The CSV, possibly packed by gzip, bzip2 or xz, separated by commas, semicolons, tabs or bars;
            may start with ``~``.
        classes: The class list that labels refer to.
        image_size: Side of an image, in pixels; images are resized to it.
        channels: 1 for grey, 3 for colour.
        path: The column of the image files: paths from the folder of the CSV, or absolute ones.
        label: The column of the class names; None for ``label``.
        votes: True for one column of votes or probabilities per class, named as the classes: soft targets; a
            dict for the column of each class; None for such columns if there is no column of labels.
        split: The column of train, val and test; None for ``split``, if there is one; False for none.
        group: The column of what an image belongs to, such as a person; None for ``group``, if there is one;
            False for none.
        box: The columns of left, top, width and height of the face, in pixels of the upright image; the
            rest is cut off before the image is resized. None for columns of these names, if there are some;
            False for none.
        codes: The class of each label that is no class name, such as ``{0: angry, 1: null}``; images whose
            class is None are left out, and counted in ``left_out``.
        val_ratio: The part of each class's training images to validate on, in [0, 1).
        test_ratio: The part to test on, in [0, 1); the sum of both must be below 1.
        split_seed: The seed of the split.
        partial: Whether to take what is there, for an evaluation: a missing split or class is no error, and
            unknown classes are left out; ``left_out`` says so.
    """

    name = "csv"
    parallel = True

    def __init__(
        self,
        *,
        root: str | Path,
        classes: Sequence[str],
        image_size: int,
        channels: int = 1,
        path: str = "path",
        label: str | None = None,
        votes: bool | Mapping[str, str] | None = None,
        split: str | bool | None = None,
        group: str | bool | None = None,
        box: Sequence[str] | bool | None = None,
        codes: Mapping[Any, str | None] | None = None,
        val_ratio: float = 0.1,
        test_ratio: float = 0.1,
        split_seed: int = 0,
        partial: bool = False,
    ) -> None:
        self.path = Path(root).expanduser()
        self.classes = classes
        self.image_size = image_size
        check_channels(channels)
        self.channels = channels
        check_columns(path=path, label=label, votes=votes, split=split, group=group, box=box)
        self._columns: dict[str, Any] = {
            "path": path,
            "label": label,
            "votes": dict(votes) if isinstance(votes, Mapping) else votes,
            "split": split,
            "group": group,
            "box": list(box) if isinstance(box, Sequence) else box,
        }
        self._codes = _open_codes(codes, classes)
        check_ratios(val_ratio, test_ratio, split_seed)
        self.ratios = {"test": test_ratio, "val": val_ratio}
        self.split_seed = split_seed
        self.partial = partial
        check_place(self.path, "a CSV that names images")
        if self.path.is_dir():
            raise FERError(
                f"{self.path}: a folder, expected a CSV that names images; class folders are read by "
                "data=image_folder"
            )

    @property
    def num_images(self) -> int:
        """The number of rows that are used, before anything is decoded."""
        return len(self._read[0])

    @property
    def left_out(self) -> tuple[str, ...]:
        """Which rows are not used, and which classes have no images; empty if there are none."""
        return self._read[1]

    def cache_key(self) -> str:
        """Hash the settings, the path, size and time of the CSV, and sizes and times of the images."""
        stamps = hashlib.blake2b(digest_size=16)
        for place in sorted({row.place for row in self._read[0]}):
            try:
                status = os.stat(place)  # noqa: PTH116 - a str for each of many files
                stamps.update(f"{place}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="replace"))
            except (OSError, ValueError):
                stamps.update(f"{place}\0missing\0".encode(errors="replace"))
        settings = json.dumps([self._columns, sorted(self._codes.items())], default=str)
        return listing_key(
            self.path, None, settings, self.ratios, self.split_seed, self.left_out, stamps.hexdigest()
        )

    def holdout(self) -> Holdout | None:
        """Return the splits that no row names, with their ratios; None if there are none."""
        named = {row.cells.split or "train" for row in self._read[0]}
        if "train" not in named:
            return None
        ratios = {split: ratio for split, ratio in self.ratios.items() if ratio and split not in named}
        return Holdout(ratios, self.split_seed, str(self.path)) if ratios else None

    def records(self) -> Iterator[Record]:
        """List every image that is used, in the order of the rows.

        Raises:
            FERError: If a column, a row or a training image of a class is missing, or a row has a fault.
        """
        for row in self._read[0]:
            split = row.cells.split or "train"
            yield Record(
                f"{split}/{self.classes[row.label]}/{row.name}",
                split,
                row.label,
                row.where,
                partial(_decode, row.place, row.cells.box, size=self.image_size, channels=self.channels),
                row.cells.votes,
                row.cells.group,
            )

    @cached_property
    def _read(self) -> tuple[list[_Row], tuple[str, ...]]:
        """Read the rows, and what is left out."""
        rows: list[_Row] = []
        unused: Counter[str] = Counter()
        seen: dict[str, str] = {}
        for where, cells in self._cells():
            label = self._label(cells, where)
            if label is None:
                unused[cells.label] += 1
                continue
            name = self._name(cells)
            if (before := seen.setdefault(name, where)) != where:
                raise FERError(f"{where}: {cells.path} is also in {before}; remove one of the rows")
            place = os.path.join(self.path.absolute().parent, _slashed(cells.path))  # noqa: PTH118
            rows.append(_Row(f"{where}: {writable(cells.path)}", label, place, name, cells))
        if not rows and unused:
            found = ", ".join(repr(label[:20]) for label, _ in unused.most_common(8))
            raise FERError(
                f"{self.path}: no row names an image of a known class, found the labels {found}; expected "
                f"{', '.join(self.classes)}, or data.source.codes={{LABEL: CLASS}} with train.py or eval.py"
            )
        notes = [
            f"{self.path}: {count:,} {'row' if count == 1 else 'rows'} of "
            f"{'the label' if label in self._codes else 'the unknown class'} {label[:60]!r}, left out"
            for label, count in sorted(unused.items())
        ]
        return rows, (*notes, *self._check_classes(rows))

    def _check_classes(self, rows: list[_Row]) -> list[str]:
        """Refuse rows that lack train, or a class of it; return notes on what a partial CSV lacks."""
        if not rows:
            raise FERError(f"{self.path}: no row names an image of a known class, expected at least one")
        splits = {row.cells.split or "train" for row in rows}
        if "train" not in splits and not self.partial:
            found = ", ".join(split for split in SPLITS if split in splits)
            raise FERError(f"{self.path}: no row is in the split train, found {found}")
        present = {row.label for row in rows if self.partial or (row.cells.split or "train") == "train"}
        lacking = [name for label, name in enumerate(self.classes) if label not in present]
        if lacking and not self.partial:
            raise FERError(
                f"{self.path}: no training image of class {', '.join(lacking)}; expected some of each class, "
                "or other data.classes"
            )
        return [f"{self.path}: no images of class {', '.join(lacking)}"] if lacking else []

    def _cells(self) -> Iterator[tuple[str, Cells]]:
        """List the rows of the CSV, each with where it is."""
        file = disk_file(self.path)
        wanted = [value for value in self._columns.values() if isinstance(value, str)]
        with reading(f"{file.where}: "), open_unpacked(file) as binary:
            lines = read_lines(binary, file.where)
            header = find_header(lines, [*wanted, "path", "label", *self.classes])
            if header is None:
                raise FERError(f"{file.where}: empty, expected columns such as path, label, split")
            columns = Columns(header, file.where, self.classes, **self._columns)
            if columns.other_votes and not self.partial:
                others = ", ".join(columns.other_votes)
                raise FERError(
                    f"{file.where}:{header.line}: votes for {others}, which data.classes lacks; add it there "
                    "(and to data.num_classes), leave its images out with data.source.partial=true, or name "
                    "the columns to use with data.source.votes={CLASS: COLUMN}"
                )
            for line, cells in read_rows(lines, header, file.where):
                where = f"{file.where}:{line}"
                yield where, columns.parse(cells, where)

    def _label(self, cells: Cells, where: str) -> int | None:
        """Return the label of a row; None if it is left out."""
        if cells.votes is not None and not cells.label:
            return int(cells.votes.argmax())
        if cells.label in self._codes:
            return self._codes[cells.label]
        try:
            return class_index(cells.label[:200], self.classes)
        except FERError as error:
            if self.partial:
                return None
            raise FERError(
                f"{where}: {error}; correct it, or say which class it is with "
                "data.source.codes={LABEL: CLASS} (null: left out)"
            ) from error

    def _name(self, cells: Cells) -> str:
        """Name an image within its class: by its path from the folder of the CSV, and its box."""
        path = posixpath.normpath(_slashed(cells.path))
        folder = f"{self.path.absolute().parent.as_posix()}/"
        name = writable(path.removeprefix(folder).lstrip("/"))
        return name if cells.box is None else f"{name}#{','.join(f'{edge:.10g}' for edge in cells.box)}"


def _open_codes(codes: Mapping[Any, str | None] | None, classes: Sequence[str]) -> dict[str, int | None]:
    """Return the label of each code, by its text."""
    if codes is None:
        return {}
    if not isinstance(codes, Mapping):
        raise FERError(f"data.source.codes={codes}: expected the class of each label, such as {{0: angry}}")
    found: dict[str, int | None] = {}
    for code, name in codes.items():
        try:
            found[str(code)] = None if name is None else class_index(str(name), classes)
        except FERError as error:
            raise FERError(f"data.source.codes={dict(codes)}: {error}") from error
    return found


def _slashed(path: str) -> str:
    return path if os.sep == "\\" else path.replace("\\", "/")


def _decode(place: str, box: Box | None, *, size: int, channels: int) -> NDArray[np.uint8]:
    """Read and decode an image; the text of a ``FERError`` is the reason alone."""
    data = read_image(place)
    if box is None:
        return decode(data, size=size, exact=False, channels=channels)
    return decode_crop(data, box, size=size, channels=channels)
