"""Collect the records of finished runs, and write the tables and figures of README and docs from them."""

import argparse
import sys
from pathlib import Path

from fer_lightning.core.errors import sentences_for_errors
from results.documents import DOCUMENTS, ROOT, fill_file
from results.figures import FIGURES, svg
from results.records import collect


@sentences_for_errors
def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m results", description=__doc__)
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN", help="run or sweep folders; none: only write the tables"
    )
    for record in collect(parser.parse_args().runs):
        print(record)
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        filled = fill_file(document)
        if filled != text:
            document.write_text(filled, encoding="utf-8")
            print(document)
    for name in FIGURES:
        figure = ROOT / "docs" / f"{name}.svg"
        figure.write_bytes(svg(name))
        print(figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
