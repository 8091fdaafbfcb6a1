"""The HTML page that compares several runs."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from fer_lightning.core.errors import FERError
from fer_lightning.core.metrics import METRICS
from fer_lightning.evaluation.stats import wilson_interval
from fer_lightning.report import figures, summary, tables
from fer_lightning.report.drawing import draw_run, save_figure
from fer_lightning.report.rendering import (
    Image,
    Table,
    TableCell,
    drop_missing,
    embed_png,
    render_page,
    run_banners,
    run_figure,
)
from fer_lightning.report.run_results import (
    RunResults,
    damaged_run,
    naming_damage,
    read_run,
)


def write_comparison(runs: Sequence[Path], out: Path) -> Path:
    """Write one page that compares several runs, and return it.

    Args:
        runs: Run folders, such as the jobs of a sweep.
        out: The page, or an existing folder, which gets a ``report.html``. The page links to the runs' own
            pages by relative paths.
    """
    if out.is_dir():
        out /= "report.html"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FERError(f"--out {out}: {error.strerror}; expected a page in a folder to write into") from error
    rows = summary.summarise_runs(runs)
    results, matrices = [], []
    for folder, row in zip(runs, rows, strict=False):  # the rows of several seeds come last
        run, matrix = _compared_run(folder, row)
        results.append(run)
        matrices.append(matrix)
    if all(run.state == "damaged" for run in results):
        raise FERError(str(results[0].info["reason"]))
    split = summary.common_split(rows)
    test_sets = {(row["dataset"], row["split"], row["images"]) for row in rows if row["n"]}
    return render_page(
        out,
        "comparison.html",
        title=f"{len(runs)} runs on {', '.join(sorted({run.dataset for run in results}))}",
        warnings=run_banners(results),
        comparable=len(test_sets) <= 1,
        runs=_comparison_table(rows, split, out.parent, _COMPARED_COLUMNS, "the runs", linked=True),
        more=_comparison_table(rows, split, out.parent, _MORE_COLUMNS, "more metrics", linked=False),
        split=split,
        accuracy=_accuracy_figure(rows, split, out),
        matrices=drop_missing(matrices),
    )


def _compared_run(folder: Path, row: summary.Row) -> tuple[RunResults, Image | None]:
    """Draw a run's figures; return it and its confusion matrix. A damaged run is one without results."""
    try:
        if row["state"] == "damaged":
            raise FERError(row["reason"])
        with naming_damage(folder):
            draw_run(folder)
            run = read_run(folder)
            caption = f"{folder.name}. {tables.frequent_confusions(run.split_metrics)}"
            return run, run_figure(run, f"confusion_{run.split}", caption)
    except (FERError, OSError) as error:
        return damaged_run(folder, error), None


_COMPARED_COLUMNS = {
    "model": "model",
    "overrides": "overrides",
    "state": "state",
    "val_acc": "val acc %",
    "acc": "acc %",
    "f1_macro": "macro F1 %",
    "leak_free_acc": "leak-free %",
    "leak_free_near_acc": "leak-free (near) %",
    "ece": "ECE %",
    "no_answer": "no answer",
    "num_parameters": "parameters",
    "fit_s": "fit time",
    "images_per_s": "images/s",
}


# The metrics of METRICS that the first table leaves to the second.
_MORE_COLUMNS = {"overrides": "overrides"} | {
    metric.key: f"{metric.title}, %" if metric.unit else metric.title
    for metric in METRICS
    if metric.key not in _COMPARED_COLUMNS
}


def _comparison_table(
    rows: Sequence[summary.Row],
    split: str,
    page_dir: Path,
    names: Mapping[str, str],
    label: str,
    *,
    linked: bool,
) -> Table:
    columns = {
        key: header for key, header in names.items() if any(row[key] not in (None, "") for row in rows)
    }
    if "acc" in columns:
        columns["acc"] = f"{split} acc %"
    cells = [
        [
            TableCell(row["run"], row["run"], _page_url(row, page_dir) if linked else None),
            *(TableCell(summary.cell(row, key), row[key]) for key in columns),
        ]
        for row in rows
    ]
    return Table(
        ["run", *columns.values()],
        cells,
        text_columns=1 + sum(key in ("model", "overrides", "state") for key in columns),
        row_classes=[row["kind"] for row in rows],
        label=label,
    )


def _page_url(row: summary.Row, page_dir: Path) -> str | None:
    """Return the relative URL of a run's own page, if it has one."""
    if row["kind"] != "run" or not (page := Path(row["folder"]) / "report.html").exists():
        return None
    return quote(Path(os.path.relpath(page, page_dir)).as_posix())


def _accuracy_figure(rows: Sequence[summary.Row], split: str, out: Path) -> Image | None:
    groups: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows:
        if row["kind"] == "run" and row["acc"] is not None:
            name = " ".join(word for word in (row["model"], *row["overrides"].split()) if "seed=" not in word)
            groups.setdefault(name, []).append((row["acc"], *wilson_interval(row["acc"], row["n"])))
    if not groups:
        return None
    path = out.parent / "figures" / "accuracy.png"
    save_figure(figures.accuracy_dots(groups, xlabel=f"{split} accuracy, %"), path)
    numbers = "; ".join(
        f"{name} {', '.join(tables.percent(run[0]) for run in members)}" for name, members in groups.items()
    )
    caption = "One dot per run with its 95 % CI; vertical line: mean over seeds."
    return embed_png(path, f"Accuracy in percent: {numbers}", caption)
