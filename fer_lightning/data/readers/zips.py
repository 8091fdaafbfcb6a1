"""A zip, listed like a folder after checking that it is harmless; nothing is unpacked to the disk."""

import os
import stat
import struct
import threading
import weakref
import zipfile
import zlib
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

from fer_lightning.core.errors import FERError
from fer_lightning.core.text import writable
from fer_lightning.data.readers.archives import Tree
from fer_lightning.data.readers.files import File, Folder
from fer_lightning.data.readers.packed import MAX_EXPANDED

_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075  # the extra field of Info-ZIP


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

    def describe(self, member: zipfile.ZipInfo, where: str) -> File:
        self.members[where] = member
        return File(where, (member.file_size, 0), self.open, self.lock, key=where)


def scan_zip(path: Path) -> Folder:
    """List a zip as if it were a folder, after checking that it is harmless.

    Raises:
        FERError: If it is damaged, encrypted or compressed by bzip2, expands beyond ``MAX_EXPANDED``, or
            contains a link, a path outside the zip, or a path twice.
    """
    tree = Tree(path, "zip")
    try:
        archive = _Archive(path)
    except OSError as error:
        raise FERError(f"{tree.where}: cannot be read ({error.strerror or error})") from error
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
        reason = writable(str(error))
        raise FERError(f"{tree.where}: broken zip ({reason}); download or pack it again") from error
    expanded = sum(member.file_size for member in archive.listing)
    if expanded > MAX_EXPANDED:
        raise FERError(f"{tree.where}: expands to {expanded:,} bytes, more than the {MAX_EXPANDED:,} allowed")
    tree.check_number(len(archive.listing))
    for member in archive.listing:
        name, make = member_name(member), partial(archive.describe, member)
        tree.add(name, is_folder=name.endswith("/"), make=make, harm=_harm(member))
    return tree.root


def member_name(member: zipfile.ZipInfo) -> str:
    """Return the path of a member, with slashes.

    A zip says of each name whether it is UTF-8; ``zipfile`` reads any other as cp437. macOS and many
    programs write UTF-8 without saying so, and some write it into an extra field.
    """
    name = member.filename
    if not name.isascii() and not member.flag_bits & _UTF8_FLAG:
        raw = name.encode("cp437", "replace")
        name = _extra_name(member.extra, raw) or name
        with suppress(UnicodeDecodeError):
            name = raw.decode("utf-8") if name == member.filename else name
    return name.replace("\\", "/")


def _extra_name(extra: bytes, raw: bytes) -> str:
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        content, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and len(content) > 5 and content[0] == 1:
            (checksum,) = struct.unpack("<I", content[1:5])
            if checksum == zlib.crc32(raw):
                return content[5:].decode("utf-8", "replace")
    return ""


def _harm(member: zipfile.ZipInfo) -> str:
    if stat.S_ISLNK(member.external_attr >> 16):
        return "a symbolic link; pack the zip with the files themselves"
    if member.flag_bits & 1:
        return "encrypted; unpack the zip with its password and pack it without"
    if member.compress_type == zipfile.ZIP_BZIP2:  # zipfile unpacks it without a limit
        return "compressed by bzip2, which can unpack without end; pack the zip again"
    return ""
