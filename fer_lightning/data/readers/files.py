"""Files and folders of a data set, listed before anything is decoded."""

import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

from fer_lightning.core.errors import FERError

MAX_IMAGE_BYTES = 64 * 2**20  # of one image file
_PIECE = 4096  # bytes; zipfile unpacks no less at once

# Raised by zipfile for a member that is damaged or altered. UnicodeDecodeError: the name in the header of a
# member claims to be UTF-8 and is not.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, UnicodeDecodeError)

_IGNORED = {"__macosx", "thumbs.db", "desktop.ini"}  # left by macOS and Windows


class File(NamedTuple):
    """One file of a folder or a zip.

    Attributes:
        where: The path to name in a message.
        stamp: Size in bytes, and time of change in ns (0 in a zip, whose own time counts).
        opener: Opens the file at ``where`` for reading; many files share one function, so listing is fast.
        lock: Held while a thread has the file open; the members of a zip share one.
    """

    where: str
    stamp: tuple[int, int]
    opener: Callable[[str], IO[bytes]]
    lock: AbstractContextManager[object] = nullcontext()

    def open(self) -> IO[bytes]:
        """Open the file for reading, in one thread."""
        return self.opener(self.where)

    def read(self) -> bytes:
        """Read an image file, from any thread; the text of a ``FERError`` is the reason alone."""
        if self.stamp[0] > MAX_IMAGE_BYTES:
            raise FERError(f"{self.stamp[0]:,} bytes, more than the {MAX_IMAGE_BYTES:,} allowed for an image")
        with reading(), self.lock, self.open() as file:
            # Read at once, a packed member would be unpacked whole, whatever size the zip's directory claims.
            return b"".join(iter(partial(file.read, _PIECE), b""))


@dataclass
class Folder:
    """A folder, on disk or in a zip, without hidden files and those that operating systems leave.

    Attributes:
        where: The path to name in a message.
        folders: Sub-folders by name.
        files: Files by name.
    """

    where: str
    folders: dict[str, "Folder"] = field(default_factory=dict)
    files: dict[str, File] = field(default_factory=dict)

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


def is_ignored(name: str) -> bool:
    """Return whether a file or folder is hidden or left by an operating system."""
    return name.startswith(".") or name.lower() in _IGNORED


def _open(path: str) -> IO[bytes]:
    return Path(path).open("rb")


def _open_irregular(_: str) -> NoReturn:
    raise OSError(0, "not a regular file")


def scan_folder(path: Path, *, depth: int) -> Folder:
    """List a folder on disk, following links.

    Args:
        path: The folder.
        depth: Number of levels of sub-folders to list; deeper ones are named, but stay empty.
    """
    folder = Folder(str(path))
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if is_ignored(entry.name):
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


def disk_file(path: Path) -> File:
    """Describe one file on disk."""
    status = path.stat()
    return File(str(path), (status.st_size, status.st_mtime_ns), _open)


def is_zip(file: File) -> bool:
    """Return whether the first bytes of a file are those of a zip."""
    try:
        with reading(), file.open() as binary:
            return binary.read(2) == b"PK"
    except FERError:
        return False
