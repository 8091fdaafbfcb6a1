"""Tables of text in any common dialect: separators, quotes, blank lines before the header, byte order marks.

The same code recognises a table and reads it, so that what is recognised can be read.
"""

import csv
import re
from collections.abc import Callable, Collection, Iterator
from typing import IO, NamedTuple

from fer_lightning.core.errors import FERError
from fer_lightning.data.readers.files import File, reading
from fer_lightning.data.readers.packed import open_unpacked

MAX_LINE = 2**20  # bytes of one CSV line; 48x48 pixels take at most 9 kB
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_SNIFFED = 2**16  # bytes of the header, blank lines before it included
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)  # a first line that Excel writes and reads
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Header(NamedTuple):
    """The header of a table.

    Attributes:
        separator: Between the cells.
        names: Of the columns, trimmed and in lower case.
        line: Number of its line, from 1.
    """

    separator: str
    names: list[str]
    line: int

    def found(self, columns: Collection[str]) -> list[str]:
        """List the columns that are there."""
        return [name for name in columns if name.lower() in self.names]


class Row(NamedTuple):
    """One line of a table: its number, from 1, and its cells."""

    line: int
    cells: list[str]


def find_header(lines: Iterator[str], columns: Collection[str]) -> Header | None:
    """Read lines up to the header, and find its separator by the columns that it should have.

    Args:
        lines: Of the table; those after the header are left.
        columns: The names of the columns.

    Returns:
        The header; None if there are only blank lines.
    """
    separators = [*_SEPARATORS]
    for number, line in enumerate(lines, 1):
        named = _SEPARATOR_LINE.fullmatch(line.strip())
        if named:
            separators = [named[1]]
            continue
        if not line.strip(' \t\r\n,;|"'):
            continue
        headers = [Header(separator, _split_names(line, separator), number) for separator in separators]
        return max(headers, key=lambda header: (len(header.found(columns)), len(header.names)))
    return None


def _split_names(line: str, separator: str) -> list[str]:
    try:
        cells = next(csv.reader([line.strip("\r\n")], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return []
    return [cell.strip().strip("\ufeff").strip().lower() for cell in cells]


def sniff_columns(file: File, columns: Collection[str]) -> list[str]:
    """List which columns a table has, from its first bytes; empty if it is not such a table."""
    try:
        with reading(), file.lock, open_unpacked(file) as binary:
            start = binary.read(_SNIFFED)
        *lines, last = start.decode("utf-8-sig", errors="ignore").split("\n")
        whole = lines if len(start) == _SNIFFED else [*lines, last]
        header = find_header(iter(whole), columns)
    except FERError:
        return []
    return [] if header is None else header.found(columns)


def read_header(
    lines: Iterator[str],
    where: str,
    columns: Collection[str],
    like: str,
    advise: Callable[[Collection[str]], str] = lambda _: "",
) -> Header:
    """Read the header of a table that must have certain columns.

    Args:
        lines: Of the table; those after the header are left.
        where: The file, for the message.
        columns: The names of the columns.
        like: What has such columns, for the message.
        advise: Says what to do if the given columns are missing; empty for no advice.

    Raises:
        FERError: If one is missing or occurs twice.
    """
    header = find_header(lines, columns)
    if header is None:
        raise FERError(f"{where}: empty, expected the columns {', '.join(columns)} as in {like}")
    missing = [name for name in columns if name.lower() not in header.names]
    if missing:
        found = ", ".join(name[:40] for name in header.names[:12]) or "none"
        if header.separator != ",":
            found += f" (separated by {_SEPARATORS.get(header.separator, repr(header.separator))})"
        raise FERError(
            f"{where}:{header.line}: no column {', '.join(missing)}, found: {found}; expected "
            f"{', '.join(columns)} as in {like}{advise(missing)}"
        )
    twice = [name for name in columns if header.names.count(name.lower()) > 1]
    if twice:
        raise FERError(f"{where}:{header.line}: two columns {twice[0]}; remove one of them")
    return header


def read_rows(lines: Iterator[str], header: Header, where: str) -> Iterator[Row]:
    """List the rows after the header but for blank ones.

    Raises:
        FERError: If a line is not CSV.
    """
    reader = csv.reader(lines, delimiter=header.separator, skipinitialspace=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield Row(header.line + reader.line_num, cells)
    except csv.Error as error:
        raise FERError(f"{where}:{header.line + reader.line_num}: not CSV ({error})") from error


def read_lines(binary: IO[bytes], where: str) -> Iterator[str]:
    """Decode the lines of a file; refuse what is not text, and lines of over ``MAX_LINE`` bytes."""
    number = 0
    while line := binary.readline(MAX_LINE):
        number += 1
        if number == 1 and line.startswith(_UTF16):
            raise FERError(f"{where}: UTF-16 text; save it as UTF-8")
        if number == 1 and b"\r" in line.rstrip(b"\r\n"):
            raise FERError(f"{where}: lines end with carriage returns alone; save it with \\n or \\r\\n")
        if len(line) == MAX_LINE:
            raise FERError(
                f"{where}:{number}: a line of over {MAX_LINE:,} bytes, expected one image per line"
            )
        if b"\0" in line:
            raise FERError(f"{where}:{number}: NUL bytes; the file is damaged or not UTF-8 text")
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise FERError(f"{where}:{number}: not UTF-8 text ({error.reason})") from error
