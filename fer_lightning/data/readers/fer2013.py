"""FER-2013 in every form in which it was published, told apart by content and never by name.

A zip or a folder of class folders (Kaggle's msambare/fer2013), ``fer2013.csv``, ``icml_face_data.csv``, and a
CSV inside a zip. Nothing is unpacked. A fault of the whole raises ``FERError`` while records are listed; a
fault of one face (one file, one CSV row) raises when that record's ``pixels`` is called, so that
``data.on_bad=skip`` can leave it out.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import IO, NoReturn

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.data.faces import Record
from fer_lightning.data.labels import FER2013_CODES, class_index
from fer_lightning.data.readers.files import (
    File,
    Folder,
    class_folders,
    decode_file,
    disk_file,
    is_zip,
    listing_key,
    lone_folder,
    reading,
    scan,
    scan_folder,
)

MAX_LINE = 2**20  # bytes of one CSV line; 48x48 pixels take at most 9 kB

LOOKED_FOR = (
    "looked for train/<class>/ and test/<class>/ (as a folder or in a zip), and for a CSV with the columns "
    "emotion, pixels, Usage (plain or in a zip)"
)
HOW_TO_GET = (
    "Three ways to get FER-2013: (1) download msambare/fer2013 from kaggle.com by hand and put it at "
    "data/fer2013/archive.zip; (2) let kagglehub download it (data.download=true and a network); (3) put "
    "fer2013.csv or icml_face_data.csv of the 2013 Kaggle challenge into data/fer2013/"
)

_USAGES = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
_CODES = {str(code): name for code, name in enumerate(FER2013_CODES)}
_COLUMNS = ("emotion", "pixels", "Usage")
_GREY_LEVELS = {str(level): level for level in range(256)}


class Fer2013:
    """FER-2013 in one file or folder; ``open_fer2013`` finds it.

    Args:
        path: A zip, a CSV, or a folder of split folders.
        classes: The class list, which labels point into.
        image_size: Side of a face; faces of any other size are bad.
    """

    name = "fer2013"
    parallel = True

    def __init__(self, path: Path, *, classes: Sequence[str], image_size: int) -> None:
        self.path = path
        self.classes = classes
        self.image_size = image_size

    @cached_property
    def _root(self) -> Folder:
        return scan(self.path)

    def cache_key(self) -> str:
        """Hash path, size and time; of a folder, its listing."""
        return listing_key(self.path, self._root if self.path.is_dir() else None)

    def records(self) -> Iterator[Record]:
        """List every face; a face whose label or split cannot be told has label -1 and raises in ``pixels``.

        Raises:
            FERError: If the data set as a whole is at fault.
        """
        counts: Counter[tuple[str, int]] = Counter()
        where, found = self._find()
        for record in found:
            counts[record.split, record.label] += 1
            yield record
        for usage, split in _USAGES.items():
            if not any(counted == split for counted, _ in counts):
                raise FERError(f"{where}: the {split} split ({usage}) is empty")
        for label, name in enumerate(self.classes):
            if not counts["train", label]:
                raise FERError(f"{where}: the train split (Training) has no face of class {name}")

    def _find(self) -> tuple[str, Iterator[Record]]:
        if self.path.is_dir() or is_zip(file := disk_file(self.path)):
            if _has_split_folders(self._root):
                return self._root.where, self._from_pictures(self._root)
            file = _choose(self._root, [file for file in self._root.walk() if _columns(file)])
        return file.where, self._from_csv(file)

    def _from_pictures(self, root: Folder) -> Iterator[Record]:
        splits = {name.lower(): folder for name, folder in root.folders.items()}
        for name in ("train", "test"):
            if name not in splits:
                raise FERError(f"{root.where}: no folder {name}/, expected train/ and test/")
        for name, folder in splits.items():
            if name not in ("train", "test"):
                raise FERError(f"{folder.where}: unexpected folder, expected train/ and test/ alone")
        for part, allowed, rule in (("train", ("train",), "not"), ("test", ("val", "test"), "all")):
            for label, folder in class_folders(splits[part], self.classes).items():
                for name, file in sorted(folder.files.items()):
                    split = _USAGES.get(name.split("_")[0], "train" if part == "train" else "")
                    if split not in allowed:
                        raise FERError(
                            f"{file.where}: files of {part}/ must {rule} begin with PublicTest_ (val) or "
                            "PrivateTest_ (test); for splits of your own use data=image_folder"
                        )
                    pixels = partial(decode_file, file, size=self.image_size, exact=True)
                    yield Record(f"{split}/{self.classes[label]}/{name}", split, label, file.where, pixels)

    def _from_csv(self, file: File) -> Iterator[Record]:
        with reading(f"{file.where}: "), file.open() as binary:
            reader = csv.reader(_lines(binary, file.where))
            try:
                header = [name.strip().lower() for name in next(reader)]
                emotion, pixels, usage = (_position(name, header, file.where) for name in _COLUMNS)
                for row in reader:
                    where = f"{file.where}:{reader.line_num}"
                    if not any(cell.strip() for cell in row):
                        continue
                    try:
                        if len(row) != len(header):
                            raise FERError(f"{len(row)} columns, expected {len(header)} (a truncated line?)")
                        label = _label(row[emotion].strip(), self.classes)
                        split = _split(row[usage].strip())
                    except FERError as error:
                        yield Record(f"?/?/row_{reader.line_num}", "", -1, where, partial(_raise, str(error)))
                        continue
                    yield Record(
                        f"{split}/{self.classes[label]}/row_{reader.line_num}",
                        split,
                        label,
                        where,
                        partial(parse_pixels, row[pixels], size=self.image_size),
                    )
            except csv.Error as error:
                raise FERError(f"{file.where}:{reader.line_num}: not CSV ({error})") from error


def _raise(reason: str) -> NoReturn:
    raise FERError(reason)


def _lines(binary: IO[bytes], where: str) -> Iterator[str]:
    number = 0
    while line := binary.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE:
            raise FERError(f"{where}:{number}: a line of over {MAX_LINE:,} bytes, expected one face a line")
        if b"\0" in line:
            raise FERError(f"{where}:{number}: NUL bytes; the file is damaged or is no UTF-8 text")
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise FERError(f"{where}:{number}: not UTF-8 text ({error.reason})") from error


def _position(name: str, header: list[str], where: str) -> int:
    if name.lower() not in header:
        raise FERError(
            f"{where}:1: no column {name}, found: {', '.join(header)}; expected emotion, pixels, Usage as in "
            "fer2013.csv or icml_face_data.csv"
        )
    return header.index(name.lower())


def _label(text: str, classes: Sequence[str]) -> int:
    try:
        return class_index(_CODES.get(text, text), classes)
    except FERError:
        raise FERError(f"unknown label {text!r}, expected 0 to 6 or one of: {', '.join(classes)}") from None


def _split(usage: str) -> str:
    if usage not in _USAGES:
        raise FERError(f"unknown Usage {usage!r}, expected one of: {', '.join(_USAGES)}")
    return _USAGES[usage]


def parse_pixels(text: str, *, size: int) -> NDArray[np.uint8]:
    """Read the pixels column of a row.

    A table of the 256 possible words is faster than ``int`` and admits nothing else.

    Args:
        text: ``size * size`` grey levels in [0, 255], rows first, separated by blanks.
        size: Side of the face, in pixels.

    Returns:
        ``(size, size)`` uint8.

    Raises:
        FERError: The reason alone.
    """
    words = text.split()
    if len(words) != size * size:
        raise FERError(f"{len(words)} pixels, expected {size * size}")
    try:
        levels = bytes(map(_GREY_LEVELS.__getitem__, words))
    except KeyError as error:
        number = words.index(error.args[0]) + 1
        raise FERError(
            f"pixel {number} is {error.args[0][:20]!r}, expected a whole number from 0 to 255"
        ) from None
    return np.frombuffer(levels, np.uint8).reshape(size, size)


def _has_split_folders(folder: Folder) -> bool:
    return any(name.lower() in ("train", "test") for name in folder.folders)


def _columns(file: File) -> int:
    """Count which of the three columns the first line names; 0 for a file that is no such CSV."""
    try:
        with reading(), file.lock, file.open() as binary:
            line = binary.readline(1000).decode("utf-8-sig")
    except (FERError, UnicodeDecodeError):
        return 0
    names = {name.strip().lower() for name in line.split(",")}
    return sum(name.lower() in names for name in _COLUMNS)


def _choose(folder: Folder, candidates: Sequence[File]) -> File:
    """Take the one file of a folder that is the data set."""
    whole = [file for file in candidates if _columns(file) in (0, len(_COLUMNS))]  # zips, and complete CSVs
    if len(whole) > 1:
        names = ", ".join(sorted(file.where for file in whole))
        raise FERError(f"{folder.where}: holds more than one data set ({names}); name one of them")
    if not candidates:
        names = ", ".join(sorted([*folder.folders, *folder.files])[:10]) or "nothing"
        raise FERError(f"{folder.where}: not FER-2013; {LOOKED_FOR}, found {names}. {HOW_TO_GET}")
    return whole[0] if whole else candidates[0]  # an incomplete CSV says itself what it lacks


def open_fer2013(*, root: str | Path, classes: Sequence[str], image_size: int = 48) -> Fer2013:
    """Find FER-2013 in a place, in whatever form.

    Reads a few first bytes at most, so that a start with a warm cache stays fast; what is inside a zip shows
    when its records are listed. An unpacked data set wins over a zip or CSV that lies beside it.

    Args:
        root: A zip, a CSV, a folder of split folders, or a folder that holds one of these; ``~`` is known.
        classes: The class list, which labels point into.
        image_size: Side of a face, in pixels.

    Returns:
        A source for ``load_faces``.

    Raises:
        FERError: If nothing usable is there.
    """
    path = Path(root).expanduser()
    if path.is_dir():
        folder = scan_folder(path, depth=0)
        while (inner := lone_folder(folder)) is not None:
            folder = scan_folder(Path(inner.where), depth=0)
        if _has_split_folders(folder):
            path = Path(folder.where)
        else:
            files = [file for file in folder.files.values() if is_zip(file) or _columns(file)]
            path = Path(_choose(folder, files).where)
    elif not path.is_file():
        raise FERError(f"{path}: no such file or folder; {LOOKED_FOR}. {HOW_TO_GET}")
    elif not is_zip(file := disk_file(path)) and not _columns(file):
        raise FERError(f"{path}: not FER-2013, neither a zip nor a CSV; {LOOKED_FOR}. {HOW_TO_GET}")
    return Fer2013(path, classes=classes, image_size=image_size)
