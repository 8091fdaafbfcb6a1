"""Put the tables into documents, between ``<!-- results: NAME -->`` and ``<!-- /results -->``."""

import re
from pathlib import Path

from fer_lightning.core.errors import FERError
from results.records import HERE
from results.tables import TABLES

ROOT = HERE.parent
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
_PART = re.compile(r"(<!-- results: (?P<name>\w+) -->\n).*?(<!-- /results -->)", re.DOTALL)


def fill(text: str, where: Path = HERE) -> str:
    """Return a document with its tables made anew.

    Args:
        text: The document.
        where: The folder of the records.

    Raises:
        FERError: If it names a table that does not exist.
    """

    def table(part: re.Match[str]) -> str:
        if part["name"] not in TABLES:
            raise FERError(f"results: {part['name']}: no such table, expected {', '.join(TABLES)}")
        return f"{part[1]}\n{TABLES[part['name']](where)}\n\n{part[3]}"

    return _PART.sub(table, text)
