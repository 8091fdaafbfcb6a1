"""The tables of the comparison page: one row per run, one per configuration."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from fer_lightning.core.metrics import METRICS
from fer_lightning.report import summary
from fer_lightning.report.configurations import Configuration, Ranking, Row, as_number, is_numeric
from fer_lightning.report.rendering import Table, TableCell, text_cell
from fer_lightning.report.tables import duration, metric_value, percent

# Columns of the rows that are shown next to the accuracies; equal or empty ones are left out.
_COLUMNS = {
    "f1_macro": "macro F1 %",
    "leak_free_acc": "leak-free %",
    "no_answer": "no answer",
    "num_parameters": "parameters",
    "fit_s": "fit time",
}
_MORE_COLUMNS = {
    "leak_free_near_acc": "leak-free (near) %",
    **{
        metric.key: f"{metric.title}, %" if metric.unit else metric.title
        for metric in METRICS
        if metric.key not in ("acc", *_COLUMNS)
    },
    "images_per_s": "images/s",
}
# Left out where every run has the same value, which then sets none apart.
_DISTINGUISHING = ("model", "seed", "no_answer", "num_parameters")


def runs_table(
    rows: Sequence[Row],
    ranking: Ranking,
    split: str,
    page_dir: Path,
) -> Table:
    """Make the table with one row per run, the highest accuracy first.

    Args:
        rows: Rows of ``summary.summarise_runs``, one per run.
        ranking: Orders the rows; marks the best configuration where each has a single run.
        split: Name of the reported split.
        page_dir: The folder of the page, for links.
    """
    single = all(len(each.rows) == 1 for each in ranking.configurations)
    marked = {
        each.first["folder"] for each in ranking.configurations if single and each.label in ranking.marked
    }
    badges = dict.fromkeys(marked, ranking.mark)
    order = sorted(range(len(rows)), key=lambda i: -_or_least(rows[i][ranking.key]))
    names = list(dict.fromkeys(name for row in rows for name in row["settings"]))
    columns: dict[str, list[TableCell]] = {
        "run": [
            TableCell(
                rows[i]["run"], rows[i]["run"], _page_url(rows[i], page_dir), badges.get(rows[i]["folder"])
            )
            for i in order
        ],
        f"{split} acc %": [TableCell(percent(rows[i]["acc"], 2), rows[i]["acc"]) for i in order],
        "95 % CI": [_interval_cell(rows[i]) for i in order],
    }
    text = {"run"}
    if split != "val" and any(row["val_acc"] is not None for row in rows):
        columns["val acc %"] = [TableCell(percent(rows[i]["val_acc"], 2), rows[i]["val_acc"]) for i in order]
    states = [summary.cell(rows[i], "state") for i in order]
    if any(row["state"] != "finished" for row in rows) or len(set(states)) > 1:
        columns["state"] = [text_cell(state) for state in states]
        text.add("state")
    for key in ("model", "seed"):
        if len({row[key] for row in rows}) > 1:
            columns[key] = [_plain_cell(rows[i][key]) for i in order]
    text.add("model")
    for name in names:
        values = [rows[i]["settings"].get(name, "") for i in order]
        columns[name] = [_setting_cell(value) for value in values]
        if not is_numeric(values):
            text.add(name)
    for key, header in _shown(_COLUMNS, rows).items():
        columns[header] = [TableCell(summary.cell(rows[i], key), rows[i][key]) for i in order]
    sorted_by = "val acc %" if ranking.key == "val_acc" else f"{split} acc %"
    return _assemble(columns, text, sorted_by, label="the runs")


def configurations_table(ranking: Ranking, split: str) -> Table | None:
    """Make the table with one row per configuration, or None if each has a single run."""
    configurations = ranking.configurations
    if not configurations or all(len(each.rows) == 1 for each in configurations):
        return None
    columns: dict[str, list[TableCell]] = {
        "configuration": [
            TableCell(each.label, each.label, badge=ranking.mark if each.label in ranking.marked else None)
            for each in configurations
        ]
    }

    def add(header: str, key: str, unit: str = "%") -> None:
        if any(each.mean(key) is not None for each in configurations):
            columns[header] = [_spread_cell(each, key, unit) for each in configurations]

    add(f"{split} acc %", "acc")
    if split != "val":
        add("val acc %", "val_acc")
    columns["seeds"] = [TableCell(str(len(each.runs)), len(each.runs)) for each in configurations]
    add("macro F1 %", "f1_macro")
    if "leak_free_acc" in _shown(_COLUMNS, [row for each in configurations for row in each.rows]):
        add("leak-free %", "leak_free_acc")
    if len({each.first["num_parameters"] for each in configurations}) > 1:
        columns["parameters"] = [
            TableCell(summary.cell(each.first, "num_parameters"), each.first["num_parameters"])
            for each in configurations
        ]
    if any(each.mean("fit_s") is not None for each in configurations):
        times = [each.mean("fit_s") for each in configurations]
        columns["fit time"] = [TableCell(duration(time), time) for time in times]
    sorted_by = "val acc %" if ranking.key == "val_acc" else f"{split} acc %"
    return _assemble(columns, {"configuration"}, sorted_by, label="the configurations")


def more_table(rows: Sequence[Row], ranking: Ranking) -> Table:
    """Make the folded table of the other metrics, one row per run."""
    ordered = sorted(rows, key=lambda row: -_or_least(row[ranking.key]))
    columns = {"run": [text_cell(row["run"]) for row in ordered]}
    for key, header in _shown(_MORE_COLUMNS, rows).items():
        columns[header] = [TableCell(summary.cell(row, key), row[key]) for row in ordered]
    return _assemble(columns, {"run"}, None, label="more metrics")


def _assemble(
    columns: Mapping[str, Sequence[TableCell]], text: set[str], sorted_by: str | None, *, label: str
) -> Table:
    headers = list(columns)
    return Table(
        headers,
        list(zip(*columns.values(), strict=True)),
        text_columns=1,
        label=label,
        more_text=[position for position, header in enumerate(headers) if header in text],
        sorted_by=headers.index(sorted_by) if sorted_by in headers else None,
        filtered=True,
    )


def _shown(columns: Mapping[str, str], rows: Sequence[Row]) -> dict[str, str]:
    """Leave out columns without values, and those that set no run apart."""
    shown = {}
    for key, header in columns.items():
        values = {row[key] for row in rows}
        if values <= {None, ""} or (key in _DISTINGUISHING and len(values) == 1 and len(rows) > 1):
            continue
        if key == "leak_free_acc" and all(row[key] == row["acc"] for row in rows):
            continue  # no image has a duplicate
        shown[key] = header
    return shown


def _or_least(value: float | None) -> float:
    return -1.0 if value is None else value


def _plain_cell(value: object) -> TableCell:
    return TableCell("—", None) if value is None else TableCell(str(value), value)


def _setting_cell(value: str) -> TableCell:
    number = as_number(value)
    return TableCell(value or "—", (value or None) if number is None else number)


def _interval_cell(row: Row) -> TableCell:
    low, high = row["acc_ci_low"], row["acc_ci_high"]
    return TableCell("—" if low is None else f"{percent(low)}-{percent(high)}", low)


def _spread_cell(configuration: Configuration, key: str, unit: str) -> TableCell:
    measured = configuration.spread(key)
    if measured is None:
        return TableCell("—", None)
    deviation = "" if measured.sd is None else f" ± {metric_value(measured.sd, unit)}"
    return TableCell(f"{metric_value(measured.mean, unit)}{deviation}", measured.mean)


def _page_url(row: Row, page_dir: Path) -> str | None:
    """Return the relative URL of a run's own page, if it has one."""
    page = Path(row["folder"]) / "report.html"
    return quote(Path(os.path.relpath(page, page_dir)).as_posix()) if page.exists() else None
