"""Put the tables into documents, between ``<!-- results: NAME -->`` and ``<!-- /results -->``."""

import re
from pathlib import Path

from results.records import HERE
from results.tables import COLUMNS, table

ROOT = HERE.parent
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
_PART = re.compile(r"<!-- results: (?P<name>\w+) -->\n(?P<old>.*?)<!-- /results -->", re.DOTALL)


def fill(text: str, *, root: str = "", where: Path = HERE) -> str:
    """Return a document with its tables made again, with the same columns; without a table, all columns.

    Args:
        text: The document.
        root: The way from the document to the top folder, such as ``../``.
        where: The folder of the records.

    Raises:
        FERError: If it names a table or a column that does not exist.
    """

    def made(part: re.Match[str]) -> str:
        header = next((line for line in part["old"].splitlines() if line.startswith("|")), None)
        columns = [cell.strip() for cell in header.strip("|").split("|")] if header else [*COLUMNS]
        found = table(part["name"], columns, root=root, where=where)
        return f"<!-- results: {part['name']} -->\n\n{found}\n\n<!-- /results -->"

    return _PART.sub(made, text)


def fill_file(document: Path) -> str:
    """Return the text of one of ``DOCUMENTS`` with its tables made again."""
    depth = len(document.relative_to(ROOT).parts) - 1
    return fill(document.read_text(encoding="utf-8"), root="../" * depth)
