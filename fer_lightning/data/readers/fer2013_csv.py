"""FER-2013 in a CSV: ``fer2013.csv`` and ``icml_face_data.csv`` of the 2013 Kaggle challenge."""

import csv
from collections.abc import Iterator, Sequence
from functools import partial
from typing import IO, NoReturn

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.data.faces import Record
from fer_lightning.data.labels import FER2013_CODES, class_index
from fer_lightning.data.readers.files import File, reading

MAX_LINE = 2**20  # bytes of one CSV line; 48x48 pixels take at most 9 kB
COLUMNS = ("emotion", "pixels", "Usage")
USAGES = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}

_CODES = {str(code): name for code, name in enumerate(FER2013_CODES)}
_GREY_LEVELS = {str(level): level for level in range(256)}


def read_csv(file: File, *, classes: Sequence[str], image_size: int) -> Iterator[Record]:
    """List the images of a CSV; a row with an invalid label or split has label -1, and ``pixels`` raises."""
    with reading(f"{file.where}: "), file.open() as binary:
        reader = csv.reader(_lines(binary, file.where))
        try:
            header = [name.strip().lower() for name in next(reader)]
            emotion, pixels, usage = (_position(name, header, file.where) for name in COLUMNS)
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                where, name = f"{file.where}:{reader.line_num}", f"row_{reader.line_num}"
                try:
                    if len(row) != len(header):
                        raise FERError(f"{len(row)} columns, expected {len(header)} (a truncated line?)")
                    label = _label(row[emotion].strip(), classes)
                    split = _split(row[usage].strip())
                except FERError as error:
                    yield Record(f"?/?/{name}", "", -1, where, partial(_raise, str(error)))
                    continue
                decode = partial(parse_pixels, row[pixels], size=image_size)
                yield Record(f"{split}/{classes[label]}/{name}", split, label, where, decode)
        except csv.Error as error:
            raise FERError(f"{file.where}:{reader.line_num}: not CSV ({error})") from error


def count_columns(file: File) -> int:
    """Count how many of ``COLUMNS`` the first line of a file names; 0 if it is not such a CSV."""
    try:
        with reading(), file.lock, file.open() as binary:
            line = binary.readline(1000).decode("utf-8-sig")
    except (FERError, UnicodeDecodeError):
        return 0
    names = {name.strip().lower() for name in line.split(",")}
    return sum(name.lower() in names for name in COLUMNS)


def parse_pixels(text: str, *, size: int) -> NDArray[np.uint8]:
    """Parse the pixels column of a row, by a table of the 256 valid words, which is faster than ``int``.

    Args:
        text: ``size * size`` grey levels in [0, 255], row by row, separated by blanks.
        size: Side of the image, in pixels.

    Returns:
        ``(size, size)`` uint8 grey levels.

    Raises:
        FERError: The reason alone; the caller adds the line.
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


def _raise(reason: str) -> NoReturn:
    raise FERError(reason)


def _lines(binary: IO[bytes], where: str) -> Iterator[str]:
    number = 0
    while line := binary.readline(MAX_LINE):
        number += 1
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
    if usage not in USAGES:
        raise FERError(f"unknown Usage {usage!r}, expected one of: {', '.join(USAGES)}")
    return USAGES[usage]
