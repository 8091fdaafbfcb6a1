"""Put the tables into documents, between ``<!-- results: NAME -->`` and ``<!-- /results -->``."""

import re
from pathlib import Path

from results.ablation import ABLATION, ablation_table
from results.predictors import NAME, predictor_table
from results.records import HERE
from results.tables import COLUMNS, table

ROOT = HERE.parent
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
_WHOLE = {ABLATION: ablation_table, NAME: predictor_table}  # tables that are always written with all columns
_PART = re.compile(r"<!-- results: (?P<name>\w+) -->\n(?P<old>.*?)<!-- /results -->", re.DOTALL)


def fill(text: str, *, where: Path = HERE) -> str:
    """Return a document with its tables made again, with the same columns; without a table, all columns.

    Args:
        text: The document.
        where: The folder of the records.

    Raises:
        FERError: If it names a table or a column that does not exist.
    """

    def made(part: re.Match[str]) -> str:
        if (name := part["name"]) in _WHOLE:
            return _marked(name, _WHOLE[name](where))
        header = next((line for line in part["old"].splitlines() if line.startswith("|")), None)
        columns = [cell.strip() for cell in header.strip("|").split("|")] if header else [*COLUMNS]
        found = table(part["name"], columns, where=where)
        return _marked(part["name"], found)

    return _PART.sub(made, text)


def _marked(name: str, table_text: str) -> str:
    return f"<!-- results: {name} -->\n\n{table_text}\n\n<!-- /results -->"


def fill_file(document: Path) -> str:
    """Return the text of one of ``DOCUMENTS`` with its tables made again."""
    return fill(document.read_text(encoding="utf-8"))
