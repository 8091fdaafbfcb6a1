"""A tar, plain or packed by gzip, bzip2 or xz, listed like a folder after checking that it is harmless.

A packed tar has no order of its own in which a member is found quickly, so it is unpacked once into a
temporary file without a name, which is gone when the last reference to one of its members is.
"""

import io
import os
import tarfile
import tempfile
import threading
import weakref
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from fer_lightning.core.errors import FERError
from fer_lightning.core.text import writable
from fer_lightning.data.readers.archives import Tree
from fer_lightning.data.readers.files import File, Folder, disk_file, reading
from fer_lightning.data.readers.packed import open_unpacked, packing_of

_MAX_HEADER = 2**20  # bytes of one header, such as a long name
_PIECE = 2**20

_REFUSED = {
    tarfile.SYMTYPE: "a symbolic link; pack the tar with the files themselves (tar --dereference)",
    tarfile.LNKTYPE: "a hard link; pack the tar with the files themselves (tar --hard-dereference)",
    tarfile.CHRTYPE: "a device; pack the tar with files alone",
    tarfile.BLKTYPE: "a device; pack the tar with files alone",
    tarfile.FIFOTYPE: "a named pipe; pack the tar with files alone",
}


class _Headers:
    """A file that gives ``tarfile`` its headers, and no more bytes at once than a header has."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._file.read(size)


class _Archive:
    """An open tar, closed when the last reference to one of its files is gone."""

    def __init__(self, path: Path) -> None:
        file = _unpack(path)
        weakref.finalize(self, file.close)
        self.file, self.lock = file, threading.Lock()

    def read_at(self, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):  # which forks and threads can share
            return os.pread(self.file.fileno(), size, offset)
        with self.lock:
            self.file.seek(offset)
            return self.file.read(size)

    def open(self, key: str) -> IO[bytes]:
        offset, size = map(int, key.split())
        return io.BufferedReader(_Member(self, offset, size))

    def describe(self, offset: int, size: int, where: str) -> File:
        return File(where, (size, 0), self.open, key=f"{offset} {size}")


class _Member(io.RawIOBase):
    """The bytes of one member."""

    def __init__(self, archive: _Archive, offset: int, size: int) -> None:
        self._archive, self._start, self._end = archive, offset, offset + size
        self._at = offset

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: self._start, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence]
        self._at = max(self._start, origin + offset)
        return self._at - self._start

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._end - self._at)
        data = self._archive.read_at(self._at, size) if size > 0 else b""
        if len(data) < size and not data:
            raise EOFError("it ends within a member")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _unpack(path: Path) -> IO[bytes]:
    """Open a tar; unpack it into a temporary file if it is packed."""
    packed = disk_file(path)
    with reading(f"{packed.where}: "):
        with packed.open() as file:
            packing = packing_of(file.read(8))
        if not packing:
            return packed.open()
        target = cast(IO[bytes], tempfile.TemporaryFile())  # noqa: SIM115 - closed with its archive
        try:
            with open_unpacked(packed) as source:
                while piece := source.read(_PIECE):
                    _write(target, piece, packed.where)
            target.flush()
        except BaseException:
            target.close()
            raise
        return target


def _write(target: IO[bytes], piece: bytes, where: str) -> None:
    try:
        target.write(piece)
    except OSError as error:
        raise FERError(
            f"{where}: cannot be unpacked into {tempfile.gettempdir()} ({error.strerror}); name a folder "
            "with more space in $TMPDIR"
        ) from error


def scan_tar(path: Path) -> Folder:
    """List a tar as if it were a folder, after checking that it is harmless.

    Raises:
        FERError: If it is damaged, expands beyond ``MAX_EXPANDED``, or contains a link, a device, a pipe, a
            path outside the tar, or a path twice.
    """
    tree = Tree(path, "tar")
    archive = _Archive(path)
    try:
        _list(archive, tree)
    except FERError:
        raise
    except OSError as error:
        raise FERError(f"{tree.where}: cannot be read ({error.strerror or error})") from error
    except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as error:
        reason = writable(" ".join(str(error).split())[:200])
        raise FERError(f"{tree.where}: broken tar ({reason}); download or pack it again") from error
    return tree.root


def _list(archive: _Archive, tree: Tree) -> None:
    archive.file.seek(0)
    headers: Any = _Headers(archive.file)
    before, number, end = -1, 0, archive.file.seek(0, os.SEEK_END)
    archive.file.seek(0)
    with tarfile.open(fileobj=headers, mode="r:", errors="surrogateescape") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # which it would keep
            if member.offset <= before or member.size < 0 or member.offset_data + member.size > end:
                raise tarfile.ReadError(f"a member of {member.size:,} bytes at byte {member.offset:,}")
            before, number = member.offset, number + 1
            tree.check_number(number)
            harm = _REFUSED.get(member.type, "")
            if member.sparse is not None:
                harm = "a sparse file; pack the tar without --sparse"
            make = partial(archive.describe, member.offset_data, member.size)
            tree.add(member.name, is_folder=member.isdir(), make=make, harm=harm)
        # tarfile takes a damaged header for the end.
        if archive.read_at(tar.offset, tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"a damaged header at byte {tar.offset:,}")
