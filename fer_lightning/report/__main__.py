"""Rewrite a run's page, compare runs, or repeat the paper: ``python -m fer_lightning.report RUN...``."""

from fer_lightning.core.signals import install_exit_handlers

if __name__ == "__main__":
    install_exit_handlers()  # from here on: imports take a moment

# isort: split
import argparse
import csv
import sys
from datetime import datetime
from pathlib import Path

from fer_lightning.core.errors import FERError, printable
from fer_lightning.core.stdio import make_stdio_robust
from fer_lightning.report.runs import find_runs


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fer_lightning.report",
        description=(
            "One run folder: rewrite its report.html. Several, or a sweep's folder: compare them. With "
            "--paper: every table and figure of the paper from these runs, beside its own numbers."
        ),
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run folder or a sweep folder")
    parser.add_argument(
        "--paper",
        action="store_true",
        help="repeat the paper: a page, tables as Markdown and CSV, figures as PNG and PDF",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="page of a comparison, or the folder of --paper (default: in outputs/reports/<date>_<time>/)",
    )
    parser.add_argument(
        "--wandb",
        action="store_true",
        help="with --paper: show page and tables in W&B too (offline without a key, as a training run)",
    )
    arguments = parser.parse_args()
    if arguments.wandb and not arguments.paper:
        parser.error("--wandb needs --paper: runs show themselves in W&B while they train")
    # matplotlib takes most of a second to import: not for --help or a mistyped path.
    try:
        runs = find_runs(arguments.runs)
        from fer_lightning.report.page import write_comparison, write_page

        reports = Path("outputs/reports") / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
        if arguments.paper:
            from fer_lightning.report.paper_page import write_paper  # brings torch

            page = write_paper(runs, arguments.out or reports)
            if arguments.wandb:
                print(_show_in_wandb(page))  # noqa: T201
        elif runs == arguments.runs and len(runs) == 1 and arguments.out is None:
            page = write_page(runs[0])
        else:
            page = write_comparison(runs, arguments.out or reports / "report.html")
    except FERError as error:
        print(printable(f"error: {error}"), file=sys.stderr)  # noqa: T201
        return 1
    except OSError as error:
        told = f"{error.filename or 'the report'}: {error.strerror or error}"
        print(printable(f"error: {told}; mend this, and repeat the command"), file=sys.stderr)  # noqa: T201
        return 1
    except (LookupError, RecursionError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        where = ", ".join(map(str, arguments.runs))
        print(  # noqa: T201
            printable(
                f"error: {where}: a file there does not hold what a run of this project writes ({told})"
            ),
            file=sys.stderr,
        )
        return 1
    print(page)  # noqa: T201
    return 0


def _show_in_wandb(page: Path) -> str:
    """Record a report as a run of its own; say where to look."""
    from fer_lightning.training.loggers.wandb import FailsafeWandbLogger

    window = FailsafeWandbLogger(run_dir=page.parent, job_type="report", name=f"report {page.parent.name}")
    try:
        window.log_report(page, sorted(page.parent.glob("tables/*.csv")))
        with (page.parent / "tables/table_1.csv").open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["ours %"]]
        window.log_result({"table_1": {row["model"]: float(row["ours %"]) for row in rows}})
    finally:
        window.finish(0)
    return window.view_instructions()


if __name__ == "__main__":
    make_stdio_robust()
    sys.exit(main())
