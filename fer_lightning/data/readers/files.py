"""Files and folders of a data set, listed before anything is decoded."""

import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import check_not_special
from fer_lightning.core.text import writable
from fer_lightning.data.readers.leftovers import is_ignored

MAX_IMAGE_BYTES = 64 * 2**20  # of one image file
MAX_DEPTH = 32  # nested folders; each level takes memory for every file
_PIECE = 4096  # bytes; zipfile unpacks no less at once

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"),
    *(".jp2", ".j2k", ".jpx", ".pgm", ".ppm", ".pnm", ".pbm", ".heic", ".heif", ".jxl"),
)

# Raised for a member that is damaged or altered. UnicodeDecodeError: the name in the header of a member of a
# zip claims to be UTF-8 and is not.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, UnicodeDecodeError)


class File(NamedTuple):
    """One file of a folder or an archive.

    Attributes:
        where: The path to name in a message.
        stamp: Size in bytes, and time of change in ns (0 in an archive, whose own time counts).
        opener: Opens the file that ``key`` names for reading; many files share one function, so listing is
            fast.
        lock: Held while a thread has the file open; the members of a zip share one.
        key: What ``opener`` gets: the path on disk, or the place within the archive; empty for ``where``.
    """

    where: str
    stamp: tuple[int, int]
    opener: Callable[[str], IO[bytes]]
    lock: AbstractContextManager[object] = nullcontext()
    key: str = ""

    def open(self) -> IO[bytes]:
        """Open the file for reading, in one thread."""
        return self.opener(self.key or self.where)

    def read(self) -> bytes:
        """Read an image file, from any thread; the text of a ``FERError`` is the reason alone."""
        if self.stamp[0] > MAX_IMAGE_BYTES:
            raise FERError(f"{self.stamp[0]:,} bytes, more than the {MAX_IMAGE_BYTES:,} allowed for an image")
        with reading(), self.lock, self.open() as file:
            # Read at once, a packed member would be unpacked whole, whatever size the zip's directory claims.
            return b"".join(iter(partial(file.read, _PIECE), b""))


@dataclass
class Folder:
    """A folder, on disk or in an archive, without hidden files and those that programs leave.

    Attributes:
        where: The path to name in a message.
        folders: Sub-folders by name, see ``writable``.
        files: Files by name, see ``writable``.
        key: The path on disk; empty in an archive.
    """

    where: str
    folders: dict[str, "Folder"] = field(default_factory=dict)
    files: dict[str, File] = field(default_factory=dict)
    key: str = ""

    def walk(self) -> Iterator[File]:
        """List the files of this folder and of all folders below it."""
        yield from self.files.values()
        for folder in self.folders.values():
            yield from folder.walk()

    def paths(self, above: str = "") -> Iterator[tuple[str, File]]:
        """List the files of this folder and of all folders below it, each with its path from here."""
        for name, file in self.files.items():
            yield above + name, file
        for name, folder in self.folders.items():
            yield from folder.paths(f"{above}{name}/")

    def only_folder(self) -> "Folder | None":
        """Return the one sub-folder of a folder that holds no image; None for any other."""
        if len(self.folders) != 1 or any(is_image_name(name) for name in self.files):
            return None
        return next(iter(self.folders.values()))


def is_image_name(name: str) -> bool:
    """Return whether a file has a name that images have."""
    return name.lower().endswith(IMAGE_SUFFIXES)


@contextmanager
def reading(prefix: str = "") -> Iterator[None]:
    """Turn errors of reading a file into a ``FERError``."""
    try:
        yield
    except OSError as error:
        raise FERError(f"{prefix}cannot be read ({error.strerror or error})") from error
    except _DAMAGED as error:
        raise FERError(f"{prefix}damaged within the zip ({error})") from error
    except NotImplementedError as error:
        raise FERError(f"{prefix}compressed by an unsupported method; pack the zip again") from error


def _open(path: str) -> IO[bytes]:
    return Path(path).open("rb")


def _open_irregular(_: str) -> NoReturn:
    raise OSError(0, "not a regular file")


def scan_folder(path: Path, *, depth: int, level: int = 0) -> Folder:
    """List a folder on disk, following links.

    Args:
        path: The folder.
        depth: Number of levels of sub-folders to list; deeper ones are named, but stay empty. A folder whose
            only content is a folder does not count.
        level: How deep this folder is.

    Raises:
        FERError: If a folder cannot be listed, or more than ``MAX_DEPTH`` are nested.
    """
    folder = Folder(writable(str(path)), key=str(path))
    if level > MAX_DEPTH:
        raise FERError(f"{folder.where}: {level:,} folders deep, expected at most {MAX_DEPTH}")
    below: dict[str, Path] = {}
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                name = writable(entry.name)
                if is_ignored(entry.name):
                    continue
                if _is_folder(entry):
                    below[name] = Path(entry.path)
                    folder.folders[name] = Folder(writable(entry.path), key=entry.path)
                else:
                    folder.files[name] = _describe(entry)
    except OSError as error:
        raise FERError(f"{folder.where}: cannot be listed ({error.strerror or error})") from error
    lower = depth if folder.only_folder() is not None else depth - 1
    if lower >= 0:
        for name, inner in below.items():
            folder.folders[name] = scan_folder(inner, depth=lower, level=level + 1)
    return folder


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _describe(entry: "os.DirEntry[str]") -> File:
    where = writable(entry.path)
    with suppress(OSError):
        if entry.is_file():
            status = entry.stat()
            return File(where, (status.st_size, status.st_mtime_ns), _open, key=entry.path)
    # A pipe would block its reader, a broken link cannot be opened.
    return File(where, (0, 0), _open_irregular, key=entry.path)


def disk_file(path: Path) -> File:
    """Describe one file on disk.

    Raises:
        FERError: If it is a pipe, a socket or a device, or does not exist.
    """
    check_not_special(path, given=writable(str(path)))
    with reading(f"{writable(str(path))}: "):
        status = path.stat()
    return File(writable(str(path)), (status.st_size, status.st_mtime_ns), _open, key=str(path))


def read_image(path: str) -> bytes:
    """Read an image file on disk, from any thread; the text of a ``FERError`` is the reason alone."""
    with reading():
        status = os.stat(path)  # noqa: PTH116 - a str for each of many files
    opener = _open if stat.S_ISREG(status.st_mode) else _open_irregular
    return File(path, (status.st_size, status.st_mtime_ns), opener).read()


def check_place(path: Path, expected: str) -> None:
    """Refuse a root that is neither a file nor a folder.

    Args:
        path: As the user gives it.
        expected: What should be there, for the message.

    Raises:
        FERError: If nothing is there, or a pipe, a socket or a device.
    """
    check_not_special(path, given=writable(str(path)))
    if not os.path.exists(path):  # noqa: PTH110 - False for a name that is too long, too
        raise FERError(f"{writable(str(path))}: no such file or folder, expected {expected}")
