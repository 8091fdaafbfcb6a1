"""Recognise files by their first bytes; read files packed by gzip, bzip2 or xz, with bounds."""

import bz2
import gzip
import io
import lzma
import tarfile
from contextlib import suppress
from typing import IO, Any, cast

from fer_lightning.core.errors import FERError
from fer_lightning.data.readers.files import File, reading

MAX_EXPANDED = 8 * 2**30  # bytes of an archive, unpacked; FER-2013 is 57 MB as images and 301 MB as CSV
_FREE_BYTES = 256 * 2**20  # unpacked, whatever the size of the packed file
_MAX_RATIO = 100  # of unpacked to packed bytes beyond that; FER-2013 as CSV has 4
_XZ_MEMORY = 256 * 2**20  # bytes that unpacking xz may take; xz -9 needs 65 MB

_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
_UNREADABLE = {
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf'\x1c": "a 7-Zip archive",
    b"\x28\xb5\x2f\xfd": "packed by zstd",
    b"\x1f\x9d": "packed by compress",
    b"\x04\x22\x4d\x18": "packed by lz4",
    b"SQLite format 3": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"PAR1": "a Parquet file",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word document",
    b"%PDF": "a PDF",
    b"\xff\xfe": "UTF-16 text, expected UTF-8",
    b"\xfe\xff": "UTF-16 text, expected UTF-8",
    b"<!DOCTYPE html": "a web page",
    b"<html": "a web page",
}


def packing_of(start: bytes) -> str:
    """Return ``gzip``, ``bzip2`` or ``xz`` from the first bytes of a file; empty for any other."""
    return next((name for magic, name in _PACKED.items() if start.startswith(magic)), "")


def kind_of(file: File) -> str:
    """Recognise a file by its first bytes, not by its name.

    Returns:
        ``zip``, ``tar`` (also a packed one), ``other``, or ``unreadable`` if its first bytes cannot be read.
    """
    try:
        with reading(), file.lock, file.open() as binary:
            start = binary.read(2)
        if start == b"PK":
            return "zip"
        with reading(), file.lock, open_unpacked(file) as binary:
            return "tar" if is_tar_header(binary.read(tarfile.BLOCKSIZE)) else "other"
    except FERError:
        return "unreadable"


def describe_kind(file: File) -> str:
    """Say in words what a file is that no reader reads, such as ``a RAR archive``; empty if unknown."""
    start, text = b"", b""
    with suppress(FERError), reading(), file.lock, file.open() as binary:
        start = binary.read(512)
    if not start.strip():
        return "an empty file"
    known = next((words for magic, words in _UNREADABLE.items() if start.startswith(magic)), "")
    packing = packing_of(start)
    with suppress(FERError), reading(), file.lock, open_unpacked(file) as binary:
        text = binary.read(512)
    if packing and not text:
        return f"packed by {packing}, and damaged or truncated; download or pack it again"
    lines = text.decode("utf-8-sig", errors="replace").split("\n")
    first = next((line.strip() for line in lines if line.strip()), "")[:60]
    if not known and first.replace("\t", " ").isprintable() and "\ufffd" not in first[:-1]:
        return f"a text that begins with {first!r}"
    return known


def is_tar_header(block: bytes) -> bool:
    """Return whether 512 bytes are the header of a tar's first member, by its checksum."""
    try:
        return len(block) == tarfile.BLOCKSIZE and bool(
            tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        )
    except (tarfile.HeaderError, ValueError, OverflowError):
        return False


def open_unpacked(file: File) -> IO[bytes]:
    """Open a file, unpacked while it is read if gzip, bzip2 or xz packed it.

    Reading raises ``FERError`` when it expands beyond ``MAX_EXPANDED``, or out of all proportion.
    """
    binary = file.open()
    start = binary.read(8)
    binary.seek(0)
    packing = packing_of(start)
    if not packing:
        return binary
    if packing == "xz":
        stream: Any = _XZReader(binary)
    else:
        stream = gzip.GzipFile(fileobj=binary) if packing == "gzip" else bz2.BZ2File(binary)
    return io.BufferedReader(cast(Any, _Bounded(stream, binary, file)), 2**16)


class _Bounded(io.RawIOBase):
    """A stream that refuses to become too long."""

    def __init__(self, stream: Any, packed: IO[bytes], file: File) -> None:
        self._stream, self._packed, self._where = stream, packed, file.where
        self._left = min(MAX_EXPANDED, max(_FREE_BYTES, _MAX_RATIO * file.stamp[0]))
        self._allowed = self._left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise FERError(f"{self._where}: expands to more than the {self._allowed:,} bytes allowed")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        self._packed.close()
        super().close()


class _XZReader(io.RawIOBase):
    """A reader of xz with bounded memory, which ``lzma.LZMAFile`` has not."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed = packed
        self._start()

    def _start(self) -> None:
        self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while True:
            if self._decompressor.eof:  # another stream may follow
                rest = self._decompressor.unused_data or self._packed.read(2**16)
                rest = rest.lstrip(b"\0")  # padding
                if not rest:
                    return b""
                self._start()
            elif self._decompressor.needs_input:
                rest = self._packed.read(2**16)
                if not rest:
                    raise EOFError("it ends within its packed data")
            else:
                rest = b""
            if data := self._decompressor.decompress(rest, size):
                return data
