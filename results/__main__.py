"""Collect the records of finished runs, and write the tables made from them into README and docs."""

import argparse
import sys
from pathlib import Path

from fer_lightning.core.errors import sentences_for_errors
from results.documents import DOCUMENTS, fill
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
        filled = fill(text)
        if filled != text:
            document.write_text(filled, encoding="utf-8")
            print(document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
