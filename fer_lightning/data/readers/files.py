"""A folder on disk and a zip, listed alike: what a data set of pictures is before anything is decoded.

Nothing is unpacked. What cannot be read, and a zip that would do harm, is told in a sentence.
"""

import hashlib
import json
import lzma
import os
import stat
import threading
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.data.decode import decode
from fer_lightning.data.labels import class_index

MAX_EXPANDED = 8 * 2**30  # bytes a zip may hold unpacked; FER-2013 is 57 MB as images and 301 MB as CSV
MAX_PICTURE = 64 * 2**20  # bytes of one picture file
MAX_DEPTH = 32  # folders within one another in a zip; each level takes its memory for every file
_PIECE = 4096  # bytes; zipfile unpacks no less at once

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

# What zipfile raises where a member is not what the zip's directory says, or was altered. A name in a
# member's own header that claims to be UTF-8 and is not is no BadZipFile.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, UnicodeDecodeError)

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
        with reading(), self.lock, self.open() as file:
            # In one piece, a packed member would be unpacked whole, whatever size the zip's directory claims.
            return b"".join(iter(partial(file.read, _PIECE), b""))


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
def reading(prefix: str = "") -> Iterator[None]:
    """Turn what can go wrong while a file's bytes are read into a reason."""
    try:
        yield
    except OSError as error:
        raise FERError(f"{prefix}cannot be read ({error.strerror or error})") from error
    except _DAMAGED as error:
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
        self._archive, self._path, self._process = archive, path, os.getpid()

    def open(self, where: str) -> IO[bytes]:
        if os.getpid() != self._process:  # a fork shares its parent's place in the file
            self._archive.fp, self._process = self._path.open("rb"), os.getpid()
        return self._archive.open(self.members[where])


def scan_zip(path: Path) -> Folder:
    """List a zip as if it were a folder, after checking that it is harmless.

    Raises:
        FERError: If it is broken, encrypted or packed by bzip2, expands beyond ``MAX_EXPANDED``, or holds a
            link, a path that leaves it, or a path twice.
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
        if member.compress_type == zipfile.ZIP_BZIP2:  # zipfile unpacks each piece of it without a bound
            raise FERError(f"{where}: packed by bzip2, which can unpack without end; pack the zip anew")
        if len(parts) > MAX_DEPTH:
            raise FERError(
                f"{path}: {name[:60]}...: {len(parts):,} folders deep, expected at most {MAX_DEPTH}"
            )
        if not parts:  # a name of nothing, or of a NUL byte and what follows it
            continue
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
    while (inner := lone_folder(root)) is not None and inner.folders:
        root = inner
    return root


def lone_folder(folder: Folder) -> Folder | None:
    """Give the one folder that a folder holds, unless it is a split."""
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


def disk_file(path: Path) -> File:
    """Describe one file on disk."""
    status = path.stat()
    return File(str(path), (status.st_size, status.st_mtime_ns), _open)


def is_zip(file: File) -> bool:
    """Tell by its first bytes whether a file is a zip."""
    try:
        with reading(), file.open() as binary:
            return binary.read(2) == b"PK"
    except FERError:
        return False
