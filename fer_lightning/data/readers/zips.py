"""A zip, listed like a folder after checking that it is harmless; nothing is unpacked to the disk."""

import os
import stat
import threading
import weakref
import zipfile
from pathlib import Path
from typing import IO

from fer_lightning.core.errors import FERError
from fer_lightning.data.readers.files import File, Folder, is_ignored

MAX_EXPANDED = 8 * 2**30  # bytes of a zip, unpacked; FER-2013 is 57 MB as images and 301 MB as CSV
MAX_DEPTH = 32  # nested folders; each level takes memory for every file


class _Archive:
    """An open zip, closed when the last reference to one of its files is gone."""

    def __init__(self, path: Path) -> None:
        archive = zipfile.ZipFile(path)
        weakref.finalize(self, archive.close)
        self.listing = archive.infolist()
        self.members: dict[str, zipfile.ZipInfo] = {}  # by the path that messages name
        self.lock = threading.Lock()  # ZipFile is not thread-safe
        self._archive, self._path, self._process = archive, path, os.getpid()

    def open(self, where: str) -> IO[bytes]:
        if os.getpid() != self._process:  # a fork shares the file position of its parent
            self._archive.fp, self._process = self._path.open("rb"), os.getpid()
        return self._archive.open(self.members[where])


def scan_zip(path: Path) -> Folder:
    """List a zip as if it were a folder, after checking that it is harmless.

    Raises:
        FERError: If it is damaged, encrypted or compressed by bzip2, expands beyond ``MAX_EXPANDED``, or
            contains a link, a path outside the zip, or a path twice.
    """
    try:
        archive = _Archive(path)
    except OSError as error:
        raise FERError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
        raise FERError(f"{path}: broken zip ({error}); download or pack it again") from error
    expanded = sum(member.file_size for member in archive.listing)
    if expanded > MAX_EXPANDED:
        raise FERError(f"{path}: expands to {expanded:,} bytes, more than the {MAX_EXPANDED:,} allowed")
    root = Folder(str(path))
    seen: set[str] = set()
    for member in archive.listing:
        parts = _checked_path(path, member)
        if not parts:  # an empty name, or one that begins with a NUL byte
            continue
        where = _where(path, member)
        if "/".join(parts) in seen:
            raise FERError(f"{where}: occurs twice in the zip; pack it again")
        seen.add("/".join(parts))
        if any(is_ignored(part) for part in parts):
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


def _where(path: Path, member: zipfile.ZipInfo) -> str:
    return f"{path}: {_slashed(member)}"


def _slashed(member: zipfile.ZipInfo) -> str:
    return member.filename.replace("\\", "/")


def _checked_path(path: Path, member: zipfile.ZipInfo) -> list[str]:
    """Split the path of a member into its parts; refuse a member that could do harm."""
    name, where = _slashed(member), _where(path, member)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or name[1:2] == ":":
        raise FERError(f"{where}: a path outside the zip; do not trust this file")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise FERError(f"{where}: a symbolic link; pack the zip with the files themselves")
    if member.flag_bits & 1:
        raise FERError(f"{where}: encrypted; unpack the zip with its password and pack it without")
    if member.compress_type == zipfile.ZIP_BZIP2:  # zipfile unpacks it without a limit
        raise FERError(f"{where}: compressed by bzip2, which can unpack without end; pack the zip again")
    if len(parts) > MAX_DEPTH:
        raise FERError(f"{path}: {name[:60]}...: {len(parts):,} folders deep, expected at most {MAX_DEPTH}")
    return parts
