"""One table of the report as plain data, and how its values are formatted."""

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from fer_lightning.report.paper.comparison import SIGNIFICANCE_LEVEL
from fer_lightning.report.paper.latex import latex_table


class Cell(NamedTuple):
    """One value of a table.

    Attributes:
        text: The formatted value, for readers.
        value: The value for CSV and sorting; None if there is none. A pair fills two columns of the CSV.
    """

    text: str
    value: Any


EMPTY_CELL = Cell("—", None)


@dataclass(frozen=True)
class PaperTable:
    """One table.

    Attributes:
        name: Name of its files, without suffix.
        title: Title above the table.
        note: Explanation below the table.
        headers: One text per column.
        rows: Cells, one tuple per row.
        text_columns: Number of leading columns that hold text.
    """

    name: str
    title: str
    note: str
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    text_columns: int = 1

    def without_empty_columns(self) -> "PaperTable":
        """Return the table without the columns that have no value in any row."""
        kept = [
            position
            for position in range(len(self.headers))
            if position < self.text_columns or any(row[position] != EMPTY_CELL for row in self.rows)
        ]
        headers = tuple(self.headers[position] for position in kept)
        rows = tuple(tuple(row[position] for position in kept) for row in self.rows)
        return replace(self, headers=headers, rows=rows)

    def to_csv(self) -> str:
        """Return the unrounded values as CSV; a column of intervals becomes two columns.

        The names of the columns are words with underscores, see ``field_name``.
        """
        pairs = [
            header.endswith("CI") or any(isinstance(row[i].value, tuple) for row in self.rows)
            for i, header in enumerate(self.headers)
        ]
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        names: list[str] = []
        for header, pair in zip(self.headers, pairs, strict=True):
            name = field_name(header)
            names += (f"{name}_low", f"{name}_high") if pair else (name,)
        writer.writerow([f"{name}_{i}" if name in names[:i] else name for i, name in enumerate(names)])
        for row in self.rows:
            values: list[Any] = []
            for cell, pair in zip(row, pairs, strict=True):
                values += (cell.value or (None, None)) if pair else (cell.value,)
            writer.writerow(values)
        return file.getvalue()

    def to_markdown(self) -> str:
        """Return the formatted values as Markdown, with title and note, without empty columns."""
        shown = self.without_empty_columns()

        def line(cells: Iterable[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

        rule = [":--" if column < self.text_columns else "--:" for column in range(len(shown.headers))]
        lines = [line(shown.headers), line(rule), *(line(cell.text for cell in row) for row in shown.rows)]
        return "\n".join([f"**{self.title}**", "", *lines, "", self.note, ""])

    def to_latex(self) -> str:
        """Return the formatted values as a LaTeX table with caption and note, without empty columns."""
        shown = self.without_empty_columns()
        return latex_table(
            label=self.name,
            title=self.title,
            note=self.note,
            headers=shown.headers,
            rows=[[cell.text for cell in row] for row in shown.rows],
            text_columns=self.text_columns,
        )


def field_name(header: str) -> str:
    """Convert a header to the name of a CSV column: ``95 % CI`` to ``ci95``, ``sd %`` to ``sd_percent``."""
    words = header.replace("95 % CI", "ci95").replace("%", " percent ").replace("/", " per ")
    return re.sub(r"\W+", "_", words.lower()).strip("_")


def text_cell(text: str) -> Cell:
    """Make a cell of plain text."""
    return Cell(text, text)


def percent_cell(fraction: float, digits: int = 2) -> Cell:
    """Make a cell with a fraction in [0, 1] in percent."""
    return Cell(f"{100 * fraction:.{digits}f}", round(100 * fraction, 6))


def points_cell(difference: float) -> Cell:
    """Make a cell with a difference of fractions in percentage points."""
    return Cell(f"{100 * difference:+.2f}", round(100 * difference, 6))


def interval_cell(bounds: tuple[float, float], *, signed: bool = False) -> Cell:
    """Make a cell with an interval of fractions in percent; a signed one is of a difference."""
    low, high = (round(100 * bound, 6) for bound in bounds)
    return Cell(f"{low:+.1f} to {high:+.1f}" if signed else f"{low:.1f}-{high:.1f}", (low, high))


def count_cell(number: int | None) -> Cell:
    """Make a cell with a whole number."""
    return EMPTY_CELL if number is None else Cell(f"{number:,}", number)


def p_value_cell(p: float) -> Cell:
    """Make a cell with a p-value."""
    return Cell(format_p_value(p, equals=False), p)


def format_p_value(p: float, *, equals: bool = True) -> str:
    """Format a p-value: ``p < 0.001``, ``p = 0.034``; without ``p =`` as ``< 0.001``, ``0.034``."""
    if p < 0.001:
        return "p < 0.001" if equals else "< 0.001"
    digits = f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
    if digits == f"{SIGNIFICANCE_LEVEL:.3f}":  # show on which side of the level it lies
        digits = f"{p:.4f}"
    return f"p = {digits}" if equals else digits


def format_shape(sides: Iterable[int]) -> str:
    """Format the sides of a shape, with multiplication signs between them."""
    return " \N{MULTIPLICATION SIGN} ".join(map(str, sides)) or "—"
