"""The files of the report: each table and figure is saved next to the page that shows it."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import naming
from fer_lightning.report.drawing import FORMATS, save_figure
from fer_lightning.report.marks import figure_mark, file_mark, title_mark
from fer_lightning.report.paper.table import PaperTable
from fer_lightning.report.rendering import Image, Table, TableCell, embed_svg
from fer_lightning.report.run_results import RunResults

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
    """Saves tables as Markdown, CSV and LaTeX, and figures as PNG, PDF and SVG.

    Those of limited and synthetic runs say so in their name, in the title of a table and above a figure.

    Args:
        out: The report's folder; it is created, with ``tables/`` and ``figures/`` in it.
        runs: The runs of the report.
    """

    def __init__(self, out: Path, runs: Sequence[RunResults] = ()) -> None:
        self.out = out
        self._runs = runs
        self._shown: set[str] = set()
        try:
            (out / "tables").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FERError(f"--out {out}: {error.strerror}; expected a folder to write into") from error

    def save_table(self, table: PaperTable, *, folded: bool = False, ours: bool = True) -> TitledTable:
        """Save a table and prepare it for the page, without empty columns; long tables are folded.

        Args:
            table: The table.
            folded: Whether only its title is shown at first.
            ours: Whether it shows results of the runs.
        """
        if ours:
            title = table.title + title_mark(self._runs)
            table = replace(table, name=table.name + file_mark(self._runs), title=title)
        texts = {"md": table.to_markdown(), "csv": table.to_csv(), "tex": table.to_latex()}
        for suffix, text in texts.items():
            path = self.out / "tables" / f"{table.name}.{suffix}"
            with naming(path):
                path.write_text(text, encoding="utf-8")
        table = table.without_empty_columns()
        rows = [[TableCell(cell.text, _sort_key(cell.value)) for cell in row] for row in table.rows]
        return TitledTable(
            table.title,
            table.note if self.is_new(table.note) else "",
            Table(table.headers, rows, text_columns=table.text_columns, label=table.title),
            folded or len(rows) > _MAX_UNFOLDED_ROWS,
        )

    def save_figure(self, name: str, figure: Figure, caption: str, *, alt: str = "") -> Image:
        """Save a figure and prepare it for the page.

        Args:
            name: Its file name, without suffix and mark.
            figure: The figure.
            caption: Text below it.
            alt: What it shows, for screen readers, after its name.
        """
        marked = name + file_mark(self._runs)
        paths = [self.out / "figures" / f"{marked}.{suffix}" for suffix in FORMATS]
        save_figure(figure, *paths, title=caption, mark=figure_mark(self._runs))
        return embed_svg(paths[-1], f"{name.replace('_', ' ')}{': ' if alt else ''}{alt}", caption)

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
