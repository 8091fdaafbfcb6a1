"""Boxes of faces from a CSV file, in place of a detector."""

import csv
import math
from collections import defaultdict
from pathlib import Path

from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import check_not_special
from fer_lightning.core.text import normalized
from fer_lightning.inference.faces import Detection, is_in_image
from fer_lightning.inference.results import Box

COLUMNS = ("image", *Box._fields)


class BoxFile:
    """A detector that reads its boxes from a table.

    Args:
        path: CSV with the columns ``image``, ``x``, ``y``, ``width`` and ``height``, in any order and with
            others: pixels from the upper left corner of the upright image. ``image`` is a path as it is given
            to the predictor, or relative to the folder of the table. A row without numbers is passed over.
            Commas, semicolons or tabs separate the values.

    Raises:
        FERError: If the file cannot be read; with the line, if a value is wrong.
    """

    def __init__(self, path: Path) -> None:
        check_not_special(path)
        self.path = path
        self._boxes: dict[str, list[Box]] = defaultdict(list)
        try:
            with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                header = file.readline()
                file.seek(0)
                separator = max(",;\t", key=header.count)
                self._read(csv.DictReader(file, delimiter=separator))
        except OSError as error:
            raise FERError(f"{path}: {error.strerror or error}") from error
        except csv.Error as error:
            raise FERError(f"{path}: not a CSV file ({error})") from error

    def _read(self, reader: "csv.DictReader[str]") -> None:
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise FERError(
                f"{self.path}: no column {', '.join(missing)}; expected the columns {', '.join(COLUMNS)}"
            )
        for row in reader:
            if not any(row[name] for name in Box._fields):  # an image without a face, in a table of `predict`
                continue
            place = f"{self.path}:{reader.line_num}"
            numbers = [_number(row[name], f"{place}: {name}") for name in Box._fields]
            box = Box(*numbers)
            if box.width <= 0 or box.height <= 0:
                raise FERError(
                    f"{place}: a box of {box.width:g} x {box.height:g} pixels, expected more than 0"
                )
            self._boxes[self._key(self.path.parent / row["image"])].append(box)

    def _key(self, path: Path) -> str:
        return normalized(str(path.absolute()))

    def __call__(self, image: Image.Image, name: str) -> list[Detection]:
        """Return the boxes of an image; of one that the table does not name, none.

        Raises:
            FERError: If a box is outside the image.
        """
        boxes = self._boxes.get(self._key(Path(name))) or self._boxes.get(
            self._key(self.path.parent / name), []
        )
        for box in boxes:
            if not is_in_image(box, image):
                shown = ", ".join(f"{value:g}" for value in box)
                raise FERError(
                    f"its box {shown} in {self.path} is outside the image of {image.width} x {image.height} "
                    "pixels, or much larger"
                )
        return [Detection(box, None) for box in boxes]


def _number(text: str | None, place: str) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise FERError(f"{place}={text}: expected a number of pixels")
    return number
