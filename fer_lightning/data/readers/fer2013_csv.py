"""FER-2013 in a CSV, packed or not: ``fer2013.csv`` and ``icml_face_data.csv`` of the 2013 challenge."""

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.data.faces import Record
from fer_lightning.data.labels import FER2013_CODES, class_index
from fer_lightning.data.readers import tables
from fer_lightning.data.readers.files import File, reading
from fer_lightning.data.readers.packed import open_unpacked
from fer_lightning.data.readers.tables import read_header, read_lines, sniff_columns

COLUMNS = ("emotion", "pixels", "Usage")
_LIKE = "fer2013.csv or icml_face_data.csv"
USAGES = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}

_MAX_LABEL = 100  # letters that are kept of a label
_CODES = {str(code): name for code, name in enumerate(FER2013_CODES)}
_GREY_LEVELS = {str(level): level for level in range(256)}


class Row(NamedTuple):
    """One line of a CSV.

    Attributes:
        where: File and line, to name in a message.
        name: ``row_`` and the number of the line.
        label: The cell of the column ``emotion``.
        split: A name in ``SPLITS``; empty if the line has a fault.
        pixels: The cell of the column ``pixels``.
        fault: What is wrong with the line; empty if nothing is.
    """

    where: str
    name: str
    label: str = ""
    split: str = ""
    pixels: str = ""
    fault: str = ""

    def decode(self, *, size: int, channels: int) -> NDArray[np.uint8]:
        """Parse the pixels, see ``parse_pixels``; the text of a ``FERError`` is the reason alone."""
        if self.fault:
            raise FERError(self.fault)
        grey = parse_pixels(self.pixels, size=size)
        return grey if channels == 1 else np.repeat(grey[:, :, None], channels, axis=2)


def read_rows(file: File) -> Iterator[Row]:
    """List the lines of a CSV but for blank ones, in their order; one with a fault keeps its place.

    Raises:
        FERError: If the file cannot be read, is not CSV or lacks a column.
    """
    with reading(f"{file.where}: "), open_unpacked(file) as binary:
        lines = read_lines(binary, file.where)
        header = read_header(lines, file.where, COLUMNS, _LIKE, _advise)
        emotion, pixels, usage = (header.names.index(name.lower()) for name in COLUMNS)
        for line, row in tables.read_rows(lines, header, file.where):
            where, name = f"{file.where}:{line}", f"row_{line}"
            try:
                if len(row) != len(header.names):
                    raise FERError(f"{len(row)} columns, expected {len(header.names)} (a truncated line?)")
                split = _split(row[usage].strip())
            except FERError as error:
                yield Row(where, name, fault=str(error))
                continue
            yield Row(where, name, row[emotion].strip()[:_MAX_LABEL], split, row[pixels])


def _advise(missing: Collection[str]) -> str:
    """Say what the other two files of the challenge are, and what to give instead."""
    if "pixels" in missing:
        return ""
    if "emotion" in missing:
        what = (
            "test.csv of the 2013 Kaggle challenge has no labels, so nothing can be trained or tested on it"
        )
    else:
        what = "train.csv of the 2013 Kaggle challenge has its training images alone, without val and test"
    return f" ({what}; give one of the two files that have all images, from the same download)"


def read_csv(file: File, *, classes: Sequence[str], image_size: int, channels: int = 1) -> Iterator[Record]:
    """List the images of a CSV; a row with an invalid label or split has label -1, and ``pixels`` raises."""
    for row in read_rows(file):
        label = -1
        if not row.fault:
            try:
                label = _label(row.label, classes)
            except FERError as error:
                row = row._replace(fault=str(error), split="")
        pixels = partial(row.decode, size=image_size, channels=channels)
        class_name = classes[label] if label >= 0 else "?"
        yield Record(f"{row.split or '?'}/{class_name}/{row.name}", row.split, label, row.where, pixels)


def count_columns(file: File) -> int:
    """Count how many of ``COLUMNS`` the header of a file names; 0 if it is not such a CSV."""
    return len(sniff_columns(file, COLUMNS))


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


def _label(text: str, classes: Sequence[str]) -> int:
    try:
        return class_index(_CODES.get(text, text), classes)
    except FERError:
        raise FERError(f"unknown label {text!r}, expected 0 to 6 or one of: {', '.join(classes)}") from None


def _split(usage: str) -> str:
    if usage not in USAGES:
        raise FERError(f"unknown Usage {usage[:_MAX_LABEL]!r}, expected one of: {', '.join(USAGES)}")
    return USAGES[usage]
