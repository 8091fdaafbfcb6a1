"""The files of the report: each table and figure is saved next to the page that shows it."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import naming
from fer_lightning.report.drawing import FORMATS, save_figure
from fer_lightning.report.paper.table import PaperTable
from fer_lightning.report.rendering import Image, Table, TableCell, embed_svg

_MAX_UNFOLDED_ROWS = 15


class TitledTable(NamedTuple):
    """A table on the page, with its title and note.

    Attributes:
        title: Title above the table.
        note: Explanation below it; empty if an earlier table has the same note.
        table: Headers and rows.
        folded: Whether only the title is shown at first.
    """

    title: str
    note: str
    table: Table
    folded: bool


class ReportFiles:
    """Saves tables as Markdown and CSV, and figures as PNG, PDF and SVG.

    Args:
        out: The report's folder; it is created, with ``tables/`` and ``figures/`` in it.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._shown: set[str] = set()
        try:
            (out / "tables").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FERError(f"--out {out}: {error.strerror}; expected a folder to write into") from error

    def save_table(self, table: PaperTable, *, folded: bool = False) -> TitledTable:
        """Save a table and prepare it for the page; long tables are folded."""
        for suffix, text in (("md", table.to_markdown()), ("csv", table.to_csv())):
            path = self.out / "tables" / f"{table.name}.{suffix}"
            with naming(path):
                path.write_text(text, encoding="utf-8")
        rows = [[TableCell(cell.text, _sort_key(cell.value)) for cell in row] for row in table.rows]
        return TitledTable(
            table.title,
            table.note if self.is_new(table.note) else "",
            Table(table.headers, rows, text_columns=table.text_columns, label=table.title),
            folded or len(rows) > _MAX_UNFOLDED_ROWS,
        )

    def save_figure(self, name: str, figure: Figure, caption: str) -> Image:
        """Save a figure and prepare it for the page."""
        paths = [self.out / "figures" / f"{name}.{suffix}" for suffix in FORMATS]
        save_figure(figure, *paths, title=caption)
        return embed_svg(paths[-1], name.replace("_", " "), caption)

    def is_new(self, text: str) -> bool:
        """Return whether the page does not have this text yet; from now on it has."""
        new = text not in self._shown
        self._shown.add(text)
        return new


def file_name(label: str) -> str:
    """Convert a label to a file name that is valid on every system."""
    return re.sub("[^a-z0-9]+", "_", label.lower()).strip("_")


def _sort_key(value: Any) -> Any:
    """Return the number by which a cell sorts; an interval sorts by its lower bound."""
    return value[0] if isinstance(value, tuple) else value
