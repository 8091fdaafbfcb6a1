"""The columns of a CSV of images: which ones are used, and what a row of them says."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.data.labels import ALL_EXPRESSIONS, class_index, label_or_none
from fer_lightning.data.readers.class_folders import SPLIT_FOLDERS
from fer_lightning.data.readers.tables import Header

_BOX = ("left", "top", "width", "height")
_SPLITS = {**SPLIT_FOLDERS, "publictest": "val", "privatetest": "test"}  # the latter of FER-2013
_MAX_SHOWN = 60  # letters of a cell in a message

Box = tuple[float, float, float, float]


def check_columns(*, path: Any, label: Any, votes: Any, split: Any, group: Any, box: Any) -> None:
    """Refuse settings of columns that are of another type than ``Columns`` expects."""
    for key, value, expected, right in (
        ("path", path, "the name of a column", _is_name(path)),
        ("label", label, "the name of a column, or null", label is None or _is_name(label)),
        ("split", split, "the name of a column, null or false", _is_optional(split)),
        ("group", group, "the name of a column, null or false", _is_optional(group)),
        (
            "votes",
            votes,
            "true, null, or the column of each class, such as {happy: votes_happy}",
            votes is None
            or votes is True
            or (isinstance(votes, Mapping) and all(map(_is_name, votes.values()))),
        ),
        (
            "box",
            box,
            "four names of columns (left, top, width, height), null or false",
            box is None
            or box is False
            or (_is_list(box) and len(box) == len(_BOX) and all(map(_is_name, box))),
        ),
    ):
        if not right:
            raise FERError(f"data.source.{key}={value}: expected {expected}")


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_optional(value: Any) -> bool:
    return value is None or value is False or _is_name(value)


class Cells(NamedTuple):
    """What a row says; see ``Columns.parse``.

    Attributes:
        path: Of the image, as it is written.
        label: The cell of the label. Where there are votes, an expression that the class list lacks and that
            has at least as many as each class; else empty.
        votes: ``(C,)`` float32 numbers for the classes; None without columns of votes.
        split: train, val or test; None without a column of splits.
        group: None without a column of groups.
        box: Left, top, width and height in pixels; None without columns of boxes.
    """

    path: str
    label: str
    votes: NDArray[np.float32] | None
    split: str | None
    group: str | None
    box: Box | None


class Columns:
    """Where a CSV has the path, the label or votes, the split, the group and the box of an image.

    Args:
        header: Of the CSV.
        where: The CSV, for messages.
        classes: The class list.
        path: The column of the paths.
        label: The column of the labels; None for ``label``, if it is there.
        votes: True for the columns that are named as the classes, or the column of each class; None for the
            former if there is no column of labels. Columns of expressions that the class list lacks are read,
            too.
        split: The column of the splits; None for ``split``, if it is there; False for none.
        group: The column of the groups, in the same way.
        box: The columns of left, top, width and height; None for columns of these names, if they are there;
            False for none.

    Raises:
        FERError: If a column is missing, occurs twice, or if label and votes are both there.
    """

    def __init__(
        self,
        header: Header,
        where: str,
        classes: Sequence[str],
        *,
        path: str,
        label: str | None,
        votes: bool | Mapping[str, str] | None,
        split: str | bool | None,
        group: str | bool | None,
        box: Sequence[str] | bool | None,
    ) -> None:
        self._header, self._where, self._classes = header, f"{where}:{header.line}", classes
        self.path = self._position(path, "path")
        self.split = self._optional(split, "split")
        self.group = self._optional(group, "group")
        self.box = self._box(box)
        self.label = self._optional(label, "label") if votes is None or label is not None else None
        self.votes = self._votes(votes)
        self.other_votes: dict[str, int] = {}  # the columns of expressions that the class list lacks, by name
        if self.votes is not None and not isinstance(votes, Mapping):
            self.other_votes = {
                name: position
                for position, name in enumerate(header.names)
                if label_or_none(name, ALL_EXPRESSIONS) is not None and label_or_none(name, classes) is None
            }
        if self.label is not None and self.votes is not None:
            raise FERError(
                f"{self._where}: a column of labels and columns of votes; choose the votes with "
                "data.source.votes=true, without data.source.label"
            )

    def _position(self, name: str, setting: str) -> int:
        names = self._header.names
        wanted = name.strip().lower()
        if wanted not in names:
            found = ", ".join(each[:40] for each in names[:12]) or "none"
            raise FERError(
                f"{self._where}: no column {name}, found: {found}; name the right one with "
                f"data.source.{setting}="
            )
        if names.count(wanted) > 1:
            raise FERError(f"{self._where}: two columns {name}; remove one of them")
        return names.index(wanted)

    def _optional(self, name: str | bool | None, default: str) -> int | None:
        if isinstance(name, bool) or (name is None and default not in self._header.names):
            return None
        return self._position(default if name is None else name, default)

    def _box(self, box: Sequence[str] | bool | None) -> list[int] | None:
        names = self._header.names
        if isinstance(box, bool) or (box is None and not {"left", "top"} & set(names)):
            return None  # width and height alone are those of the image
        return [self._position(name, "box") for name in box or _BOX]

    def _votes(self, votes: bool | Mapping[str, str] | None) -> list[int] | None:
        """Return the column of each class, in their order."""
        if isinstance(votes, Mapping):
            columns = {class_index(str(name), self._classes): column for name, column in votes.items()}
            if lacking := [name for label, name in enumerate(self._classes) if label not in columns]:
                raise FERError(
                    f"data.source.votes={dict(votes)}: no column for {', '.join(lacking)}; expected one for "
                    "each class"
                )
            return [self._position(columns[label], "votes") for label in range(len(self._classes))]
        if votes is None and self.label is not None:
            return None
        found: dict[int, int] = {}
        for position, name in enumerate(self._header.names):
            label = label_or_none(name, self._classes)
            if label is not None and found.setdefault(label, position) != position:
                raise FERError(
                    f"{self._where}: two columns for the class {self._classes[label]}; remove one of them"
                )
        lacking = [name for label, name in enumerate(self._classes) if label not in found]
        if lacking:
            start = "no column label, and " if votes is None else ""
            raise FERError(
                f"{self._where}: {start}no column of votes for {', '.join(lacking)}, found: "
                f"{', '.join(name[:40] for name in self._header.names[:12])}; name the column of the labels "
                "with data.source.label=, or those of the votes with data.source.votes={CLASS: COLUMN}"
            )
        return [found[label] for label in range(len(self._classes))]

    def parse(self, cells: list[str], where: str) -> Cells:
        """Parse a row.

        Raises:
            FERError: If a cell is not what its column holds.
        """
        if len(cells) != len(self._header.names):
            raise FERError(f"{where}: {len(cells)} columns, expected {len(self._header.names)}")
        path = cells[self.path].strip()
        if not path:
            raise FERError(f"{where}: no path, expected one of an image")
        split = None if self.split is None else cells[self.split].strip()
        if split is not None and split.lower() not in _SPLITS:
            raise FERError(
                f"{where}: unknown split {split[:_MAX_SHOWN]!r}, expected train, val or test (or Training, "
                "PublicTest, PrivateTest)"
            )
        group = None if self.group is None else cells[self.group].strip()
        if group is not None and not 0 < len(group) <= 200:
            raise FERError(f"{where}: {group[:_MAX_SHOWN]!r} as group, expected 1 to 200 letters")
        label = "" if self.label is None else cells[self.label].strip()
        votes = box = None
        try:
            if self.votes is not None:
                votes = np.array(_numbers([cells[column] for column in self.votes], "votes"), np.float32)
                label = self._other_expression(cells, float(votes.max()))
            if self.box is not None:
                box = parse_box([cells[column] for column in self.box])
        except FERError as error:
            raise FERError(f"{where}: {error}") from error
        return Cells(
            path,
            label,
            votes,
            None if split is None else _SPLITS[split.lower()],
            group,
            box,
        )

    def _other_expression(self, cells: list[str], most: float) -> str:
        """Return the expression without a class that has at least ``most`` votes, and some; empty if none."""
        if not self.other_votes:
            return ""
        others = _numbers([cells[column] for column in self.other_votes.values()], "votes")
        votes, name = max(zip(others, self.other_votes, strict=True))
        return name if votes > 0 and votes >= most else ""


def _numbers(cells: list[str], what: str) -> list[float]:
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        numbers = []
    if not numbers or not np.isfinite(numbers).all():
        shown = ", ".join(cell.strip()[:20] or "''" for cell in cells[:10])
        raise FERError(f"{what} {shown}; expected finite numbers")
    return numbers


def parse_box(cells: list[str]) -> Box:
    """Parse left, top, width and height; the text of a ``FERError`` is the reason alone."""
    left, top, width, height = _numbers(cells, "a box of")
    if width <= 0 or height <= 0:
        raise FERError(f"a box of width {width:g} and height {height:g}, expected numbers above 0, in pixels")
    return left, top, width, height
