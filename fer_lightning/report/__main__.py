"""Rewrite a run's page, or compare runs: ``python -m fer_lightning.report RUN...``."""

import argparse
import sys
from datetime import datetime
from pathlib import Path

from fer_lightning.errors import FERError
from fer_lightning.report.runs import find_runs


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fer_lightning.report",
        description="One run folder: rewrite its report.html. Several, or a sweep's folder: compare them.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run folder or a sweep folder")
    parser.add_argument(
        "--out", type=Path, help="page of a comparison (default: outputs/reports/<date>_<time>/report.html)"
    )
    arguments = parser.parse_args()
    # matplotlib takes most of a second to import: not for --help or a mistyped path.
    try:
        runs = find_runs(arguments.runs)
        from fer_lightning.report.page import write_comparison, write_page

        if runs == arguments.runs and len(runs) == 1 and arguments.out is None:
            page = write_page(runs[0])
        else:
            stamp = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
            page = write_comparison(runs, arguments.out or Path("outputs/reports") / stamp / "report.html")
    except FERError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print(page)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
