"""FER-2013 in every form in which it was published, told apart by content and never by name.

A zip or a folder of class folders (Kaggle's msambare/fer2013), ``fer2013.csv``, ``icml_face_data.csv``, and a
CSV inside a zip. Nothing is unpacked. A fault of the whole raises ``FERError`` while records are listed; a
fault of one face (one file, one CSV row) raises when that record's ``pixels`` is called, so that
``data.on_bad=skip`` can leave it out.
"""

import csv
import hashlib
import json
import os
import stat
import threading
import weakref
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from fer_lightning.data.decode import decode
from fer_lightning.data.faces import Record
from fer_lightning.errors import FERError
from fer_lightning.labels import FER2013_CODES, class_index

MAX_EXPANDED = 8 * 2**30  # bytes a zip may hold unpacked; FER-2013 is 57 MB as images and 301 MB as CSV
MAX_PICTURE = 64 * 2**20  # bytes of one picture file
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

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

_USAGES = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
_CODES = {str(code): name for code, name in enumerate(FER2013_CODES)}
_COLUMNS = ("emotion", "pixels", "Usage")
_GREY_LEVELS = {str(level): level for level in range(256)}
_PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_IGNORED = {"__macosx", "thumbs.db", "desktop.ini"}  # left by macOS and Windows; so are dotfiles


class File(NamedTuple):
    """One file of a folder or a zip.

    Attributes:
        where: The path to name in a message.
        stamp: Size in bytes, and time of change in ns (0 in a zip, whose own time counts).
        opener: Opens the file of that path for reading; one function for many files, to list them fast.
        lock: To hold while the file is open in a thread; members of one zip share one.
    """

    where: str
    stamp: tuple[int, int]
    opener: Callable[[str], IO[bytes]]
    lock: AbstractContextManager[object] = nullcontext()

    def open(self) -> IO[bytes]:
        """Open the file for reading, in one thread."""
        return self.opener(self.where)

    def read(self) -> bytes:
        """Read a picture file, from any thread; the text of a ``FERError`` is the reason alone."""
        if self.stamp[0] > MAX_PICTURE:
            raise FERError(f"{self.stamp[0]:,} bytes, more than the {MAX_PICTURE:,} allowed for a picture")
        with _reading(), self.lock, self.open() as file:
            return file.read()


@dataclass
class Folder:
    """A folder, on disk or in a zip, without the files that operating systems leave.

    Attributes:
        where: The path to name in a message.
        folders: Sub-folders by name.
        files: Files by name.
    """

    where: str
    folders: dict[str, "Folder"] = field(default_factory=dict)
    files: dict[str, File] = field(default_factory=dict)

    def walk(self) -> Iterator[File]:
        """List the files of this folder and of all below it."""
        yield from self.files.values()
        for folder in self.folders.values():
            yield from folder.walk()


@contextmanager
def _reading(prefix: str = "") -> Iterator[None]:
    """Turn what can go wrong while a file's bytes are read into a reason."""
    try:
        yield
    except OSError as error:
        raise FERError(f"{prefix}cannot be read ({error.strerror or error})") from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise FERError(f"{prefix}damaged within the zip ({error})") from error
    except NotImplementedError as error:
        raise FERError(f"{prefix}compressed by an unsupported method; pack the zip anew") from error


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in _IGNORED


def _open(path: str) -> IO[bytes]:
    return Path(path).open("rb")


def _open_irregular(_: str) -> NoReturn:
    raise OSError(0, "not a regular file")


def scan_folder(path: Path, *, depth: int) -> Folder:
    """List a folder on disk, following links.

    Args:
        path: The folder.
        depth: Levels of sub-folders to list as well; those below are named, but stay empty.

    Raises:
        FERError: If it cannot be listed.
    """
    folder = Folder(str(path))
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if _is_ignored(entry.name):
                    continue
                if entry.is_dir():
                    below = scan_folder(Path(entry.path), depth=depth - 1) if depth else Folder(entry.path)
                    folder.folders[entry.name] = below
                elif entry.is_file():
                    status = entry.stat()
                    stamp = (status.st_size, status.st_mtime_ns)
                    folder.files[entry.name] = File(entry.path, stamp, _open)
                else:  # a pipe would block its reader, a broken link cannot be opened
                    folder.files[entry.name] = File(entry.path, (0, 0), _open_irregular)
    except OSError as error:
        raise FERError(f"{path}: cannot be listed ({error.strerror or error})") from error
    return folder


class _Archive:
    """An open zip, closed when the last of its files is forgotten."""

    def __init__(self, path: Path) -> None:
        archive = zipfile.ZipFile(path)
        weakref.finalize(self, archive.close)
        self.listing = archive.infolist()
        self.members: dict[str, zipfile.ZipInfo] = {}  # by the path that messages name
        self.lock = threading.Lock()  # ZipFile counts its open members without one
        self._archive = archive

    def open(self, where: str) -> IO[bytes]:
        return self._archive.open(self.members[where])


def scan_zip(path: Path) -> Folder:
    """List a zip as if it were a folder, after checking that it is harmless.

    Raises:
        FERError: If it is broken or encrypted, expands beyond ``MAX_EXPANDED``, or holds a link, a path that
            leaves it, or a path twice.
    """
    try:
        archive = _Archive(path)
    except OSError as error:
        raise FERError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
        raise FERError(f"{path}: broken zip ({error}); download or pack it anew") from error
    expanded = sum(member.file_size for member in archive.listing)
    if expanded > MAX_EXPANDED:
        raise FERError(f"{path}: expands to {expanded:,} bytes, more than the {MAX_EXPANDED:,} allowed")
    root = Folder(str(path))
    seen: set[str] = set()
    for member in archive.listing:
        name = member.filename.replace("\\", "/")
        where = f"{path}: {name}"
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or name[1:2] == ":":
            raise FERError(f"{where}: a path that leaves the zip; do not trust this file")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise FERError(f"{where}: a symbolic link; pack the zip with the files themselves")
        if member.flag_bits & 1:
            raise FERError(f"{where}: encrypted; unpack the zip with its password and pack it without")
        if "/".join(parts) in seen:
            raise FERError(f"{where}: stands twice in the zip; pack it anew")
        seen.add("/".join(parts))
        if any(_is_ignored(part) for part in parts):
            continue
        above = parts if member.is_dir() else parts[:-1]
        folder = root
        for level, part in enumerate(above, 1):
            if part not in folder.folders:
                folder.folders[part] = Folder(f"{path}: {'/'.join(parts[:level])}")
            folder = folder.folders[part]
        if not member.is_dir():
            archive.members[where] = member
            folder.files[parts[-1]] = File(where, (member.file_size, 0), archive.open, archive.lock)
    return root


def scan(path: Path) -> Folder:
    """List a data set, folder or zip; a lone folder at the top, which packers like to add, is stepped into.

    Raises:
        FERError: As ``scan_folder`` and ``scan_zip`` do.
    """
    # Four levels at most: the lone folder, splits, classes, files.
    root = scan_folder(path, depth=3) if path.is_dir() else scan_zip(path)
    while (inner := _lone_folder(root)) is not None and inner.folders:
        root = inner
    return root


def _lone_folder(folder: Folder) -> Folder | None:
    if folder.files or len(folder.folders) != 1:
        return None
    ((name, inner),) = folder.folders.items()
    return None if name.lower() in SPLIT_FOLDERS else inner


def listing_key(path: Path, root: Folder | None, *settings: object) -> str:
    """Hash what tells whether a data set changed, without reading it.

    Args:
        path: A file, whose size and time count, or a folder.
        root: The folder's listing: names, sizes and times count.
        *settings: What else decides on the records, as JSON can write it.

    Returns:
        Hexadecimal digits.
    """
    if root is None:
        status = path.stat()
        listing = [(str(path), status.st_size, status.st_mtime_ns)]
    else:
        listing = sorted((file.where, *file.stamp) for file in root.walk())
    text = json.dumps([str(path.resolve()), listing, settings])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def class_folders(folder: Folder, classes: Sequence[str]) -> dict[int, Folder]:
    """Match the folders below one by name with the classes, each exactly once.

    Args:
        folder: What holds the class folders. Files beside them are overlooked, unless they look like faces.
        classes: The class list of the data config.

    Returns:
        One folder of files for each label, in the order of the labels.

    Raises:
        FERError: If a class folder is missing, unknown, doubled or empty, or holds folders.
    """
    found: dict[int, Folder] = {}
    for name, below in folder.folders.items():
        try:
            label = class_index(name, classes)
        except FERError as error:
            raise FERError(f"{below.where}: {error}; rename or remove the folder") from error
        if label in found:
            raise FERError(
                f"{below.where}: a second folder of class {classes[label]} beside {found[label].where}"
            )
        if below.folders:
            raise FERError(
                f"{next(iter(below.folders.values())).where}: a folder, expected the files of one class"
            )
        if not below.files:
            raise FERError(f"{below.where}: an empty class folder, expected pictures")
        found[label] = below
    missing = [name for label, name in enumerate(classes) if label not in found]
    if missing:
        raise FERError(
            f"{folder.where}: no folder of class {', '.join(missing)}; expected one for each class"
        )
    for name, file in folder.files.items():
        if name.lower().endswith(_PICTURE_SUFFIXES):
            raise FERError(f"{file.where}: a picture beside the class folders, expected it in one of them")
    return dict(sorted(found.items()))


def decode_file(file: File, *, size: int, exact: bool) -> NDArray[np.uint8]:
    """Read and decode a picture; the text of a ``FERError`` is the reason alone."""
    return decode(file.read(), size=size, exact=exact)


class Fer2013:
    """FER-2013 in one file or folder; ``open_fer2013`` finds it.

    Args:
        path: A zip, a CSV, or a folder of split folders.
        classes: The class list, which labels point into.
        image_size: Side of a face; faces of any other size are bad.
    """

    name = "fer2013"

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
        if self.path.is_dir() or _is_zip(file := _disk_file(self.path)):
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
        with _reading(f"{file.where}: "), file.open() as binary:
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


def _disk_file(path: Path) -> File:
    status = path.stat()
    return File(str(path), (status.st_size, status.st_mtime_ns), _open)


def _has_split_folders(folder: Folder) -> bool:
    return any(name.lower() in ("train", "test") for name in folder.folders)


def _columns(file: File) -> int:
    """Count which of the three columns the first line names; 0 for a file that is no such CSV."""
    try:
        with _reading(), file.lock, file.open() as binary:
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
        while (inner := _lone_folder(folder)) is not None:
            folder = scan_folder(Path(inner.where), depth=0)
        if _has_split_folders(folder):
            path = Path(folder.where)
        else:
            files = [file for file in folder.files.values() if _is_zip(file) or _columns(file)]
            path = Path(_choose(folder, files).where)
    elif not path.is_file():
        raise FERError(f"{path}: no such file or folder; {LOOKED_FOR}. {HOW_TO_GET}")
    elif not _is_zip(file := _disk_file(path)) and not _columns(file):
        raise FERError(f"{path}: not FER-2013, neither a zip nor a CSV; {LOOKED_FOR}. {HOW_TO_GET}")
    return Fer2013(path, classes=classes, image_size=image_size)


def _is_zip(file: File) -> bool:
    try:
        with _reading(), file.open() as binary:
            return binary.read(2) == b"PK"
    except FERError:
        return False
