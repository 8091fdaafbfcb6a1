"""Rewrite a run's page, compare runs, or reproduce the paper: ``python -m fer_lightning.report RUN...``."""

import argparse
import csv
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_lightning.core.errors import sentences_for_errors
from fer_lightning.core.program import command_line
from fer_lightning.report.run_results import find_run_folders, naming_damage

if TYPE_CHECKING:
    from fer_lightning.report.paper.dataset import DatasetImages


@sentences_for_errors
def main() -> int:
    """Run the command and return its exit code."""
    parser = _make_parser()
    arguments = parser.parse_args()
    if arguments.wandb and not arguments.paper:
        parser.error("--wandb needs --paper: runs are logged to W&B during training")
    _check_figure_options(parser, arguments)
    if arguments.figures:
        for path in _write_figures(arguments):
            print(path)  # noqa: T201
        return 0
    with naming_damage(", ".join(map(str, arguments.runs))):
        page = _write(arguments)
    if arguments.wandb:
        print(_log_to_wandb(page))  # noqa: T201
    print(page)  # noqa: T201
    return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command_line("report"),
        description=(
            "One run folder: rewrite its report.html. Several, or a sweep's folder: compare them. With "
            "--paper: reproduce every table and figure of the paper, compared with its own numbers."
        ),
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run folder or a sweep folder")
    parser.add_argument(
        "--paper",
        action="store_true",
        help="reproduce the paper: a page, tables as Markdown, CSV and LaTeX, figures as PNG, PDF and SVG",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="page of a comparison, or folder of --paper (default: in outputs/reports/<date>_<time>/) or of "
        "--figures (default: RUN/figures)",
    )
    parser.add_argument(
        "--wandb",
        action="store_true",
        help="with --paper: log page and tables to W&B too (offline without a key, as in training)",
    )
    group = parser.add_argument_group("figures for papers")
    group.add_argument(
        "--figures",
        choices=("pdf", "svg", "png"),
        help="write each run's figures in this format, and no page",
    )
    group.add_argument("--dpi", type=_dpi, metavar="N", help="dots per inch of PNG files (default: 300)")
    group.add_argument(
        "--width", type=_width, metavar="INCHES", help="width of each figure; text shrinks with it"
    )
    group.add_argument(
        "--lang",
        metavar="LANG",
        help="language of the texts: de, en, es, fr, it, pt, or a YAML file of your own",
    )
    group.add_argument(
        "--style",
        type=Path,
        metavar="FILE",
        help="a matplotlib style file with other colours, fonts and sizes",
    )
    return parser


def _dpi(text: str) -> int:
    if not text.isdecimal() or not 30 <= int(text) <= 2400:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number from 30 to 2400, such as 600")
    return int(text)


def _width(text: str) -> float:
    try:
        width = float(text)
    except ValueError:
        width = 0.0
    if not 1 <= width <= 40:
        raise argparse.ArgumentTypeError(f"{text!r}, expected inches from 1 to 40, such as 3.5")
    return width


def _check_figure_options(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    if arguments.figures and arguments.paper:
        parser.error("--figures writes no page; --paper writes its own figures: leave one of them out")
    for name in ("dpi", "width", "style", "lang"):
        if getattr(arguments, name) is not None and not arguments.figures:
            parser.error(f"--{name} needs --figures pdf, svg or png")
    if arguments.dpi is not None and arguments.figures != "png":
        parser.error(f"--dpi needs --figures png: {arguments.figures.upper()} has no dots")


def _write_figures(arguments: argparse.Namespace) -> list[Path]:
    """Write the figures of each run again, for papers; return the files."""
    runs = find_run_folders(arguments.runs)
    if len(runs) > 1 and arguments.out is not None:
        folders = [arguments.out / run.name for run in runs]
    else:
        folders = [arguments.out or run / "figures" for run in runs]
    from fer_lightning.report.drawing import export_figures
    from fer_lightning.report.figures import change_language, change_style

    written = []
    with change_style(arguments.style), change_language(arguments.lang):
        for run, folder in zip(runs, folders, strict=True):
            with naming_damage(run):
                written += export_figures(
                    run, folder, arguments.figures, dpi=arguments.dpi, width=arguments.width
                )
    return written


def _write(arguments: argparse.Namespace) -> Path:
    """Write the page that the arguments ask for, and return it."""
    runs = find_run_folders(arguments.runs)
    # matplotlib and torch take seconds to import: not for --help or a mistyped path.
    from fer_lightning.report.comparison_page import write_comparison
    from fer_lightning.report.run_page import write_page

    reports = Path("outputs/reports") / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    if arguments.paper:
        from fer_lightning.report.paper.page import write_paper

        return write_paper(runs, arguments.out or reports, load_images)
    if runs == arguments.runs and len(runs) == 1 and arguments.out is None:
        return write_page(runs[0])
    return write_comparison(runs, arguments.out or reports / "report.html")


def load_images(config: dict[str, Any]) -> "DatasetImages":
    """Load the data set of a run, which may have moved since, from the ``data`` node of the run's config."""
    from fer_lightning.config.instantiate import instantiate
    from fer_lightning.data.locate import locate
    from fer_lightning.report.paper.dataset import DatasetImages

    if config.get("root") is not None and not Path(config["root"]).exists():
        config = locate(config | {"root": None, "download": False}, log=lambda _: None)
    data = instantiate(config)
    data.setup()
    return DatasetImages(
        images=data.faces.images,
        labels=data.faces.labels,
        ids=data.faces.ids,
        train_rows=data.rows["train"],
        classes=data.classes,
        fingerprint=data.faces.fingerprint,
    )


def _log_to_wandb(page: Path) -> str:
    """Log a report as a W&B run of its own type; return how to view it."""
    from fer_lightning.training.loggers.wandb import FailsafeWandbLogger

    mark, tables = _newest_tables(page.parent / "tables")
    logger = FailsafeWandbLogger(
        run_dir=page.parent,
        job_type="report",
        name=f"report {page.parent.name}",
        tags=mark.strip("_").split("_") if mark else None,
    )
    try:
        logger.log_report(page, tables)
        with (page.parent / f"tables/table_1{mark}.csv").open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["ours_percent"]]
        logger.log_summary({f"table_1/{row['model']}": float(row["ours_percent"]) for row in rows})
    finally:
        logger.finish(0)
    return logger.view_instructions()


def _newest_tables(folder: Path) -> tuple[str, list[Path]]:
    """Return how the files of the report that was written last are marked, and its tables."""
    from fer_lightning.report.marks import FILE_MARKS

    tables = sorted(folder.glob("*.csv"))
    times = {path.stem: path.stat().st_mtime_ns for path in tables}
    mark = max(FILE_MARKS, key=lambda each: times.get(f"table_1{each}", 0))
    found = {path: next(each for each in FILE_MARKS if path.stem.endswith(each)) for path in tables}
    return mark, [path for path in tables if found[path] == mark or path.stem == "table_2_papers_pairs"]
