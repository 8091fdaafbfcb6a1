"""The table of several runs for the terminal, at most 80 characters wide where names are short."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fer_lightning.report.configurations import Ranking, Row, group_configurations, rank, short_names
from fer_lightning.report.summary import cell, common_split
from fer_lightning.report.tables import percent

_MIN_SETTINGS = 26  # columns of the terminal, for settings that share one
_WIDTH = 80


class _Line(NamedTuple):
    row: Row
    mark: str
    style: str


def summary_table(rows: Sequence[Row], title: str = "") -> Table:
    """Make a table of runs, the highest accuracy first; the reasons of failed runs are below it.

    The mean of runs that differ only in their seed is above them. The best configuration is marked as on the
    comparison page.

    Args:
        rows: Rows of ``summary.summarise_runs``.
        title: Title above the table.
    """
    runs = [row for row in rows if row["kind"] == "run"]
    split = common_split(runs)
    test_sets = {(row["dataset"], row["split"], row["images"]) for row in runs if row["n"]}
    ranking = rank(group_configurations(runs), split, comparable=len(test_sets) <= 1)
    lines = _lines(rows, ranking)
    notes = _notes(runs, ranking, split)
    wide = _make_table(lines, notes, title, _columns(lines, split, merged=False))
    if Console(width=1000).measure(wide).maximum <= _WIDTH:
        return wide
    columns = _columns(lines, split, merged=True)
    for header in ("fit time", "model"):  # worth less than settings that can be read
        narrow = _make_table(lines, notes, title, columns, settings_width=_MIN_SETTINGS)
        if Console(width=1000).measure(narrow).maximum <= _WIDTH:
            break
        if header in columns and (header != "model" or len(set(columns["model"])) == 1):
            del columns[header]
    return _make_table(lines, notes, title, columns)


def _lines(rows: Sequence[Row], ranking: Ranking) -> list[_Line]:
    """Order the rows: configurations by accuracy, each with its mean first; runs without results last."""
    means = {row["configuration"]: row for row in rows if row["kind"] == "mean"}
    lines = []
    for each in ranking.configurations:
        mark = "*" if each.label in ranking.marked else ""
        mean = means.get(each.first["configuration"]) if len(each.rows) > 1 else None
        if mean is not None:
            lines.append(_Line(mean, mark, "bold"))
        lines += [_Line(row, "" if mean else mark, "") for row in each.rows]
    shown = [id(line.row) for line in lines]
    return lines + [
        _Line(row, "", "red" if row["state"] in ("failed", "damaged") else "")
        for row in rows
        if row["kind"] == "run" and id(row) not in shown
    ]


def _notes(runs: Sequence[Row], ranking: Ranking, split: str) -> list[str]:
    notes = ["accuracies in %"]
    if ranking.marked and ranking.mark == "best":
        notes = ["sorted by val accuracy, * the best; accuracies in %"]
    elif ranking.marked:
        notes = [f"* highest {split} accuracy, which is no selection; accuracies in %"]
    notes += [f"{row['run']} {row['state']}: {row['reason']}" for row in runs if row["reason"]]
    limits = dict.fromkeys(row["limited"] for row in runs if row["limited"])
    notes += [f"limited ({limit}): the numbers are not results" for limit in limits]
    if any(row["synthetic"] for row in runs):
        notes.append("synthetic faces: results do not transfer to photographs of people")
    return notes


def _columns(lines: Sequence[_Line], split: str, *, merged: bool) -> dict[str, list[str]]:
    """Return the texts of each column by its header.

    Args:
        lines: The rows.
        split: Name of the reported split.
        merged: Whether the changed settings share a column.
    """
    rows = [line.row for line in lines]
    runs = [row for row in rows if row["kind"] == "run"]
    numbers = [row["run"].split("_")[0] for row in runs]
    is_numbered = all(number.isdecimal() for number in numbers) and len(set(numbers)) == len(runs)
    columns = {"": [line.mark for line in lines]}
    columns["job" if is_numbered else "run"] = [
        "" if row["kind"] == "mean" else row["run"].split("_")[0] if is_numbered else row["run"]
        for row in rows
    ]
    columns["model"] = [str(row["model"]) for row in rows]
    if len({row["seed"] for row in runs}) > 1:
        columns["seed"] = [
            f"{row['num_runs']} seeds" if row["kind"] == "mean" else str(row["seed"]) for row in rows
        ]
    columns |= _setting_columns([row["settings"] for row in rows], merged=merged)
    states = [cell(row, "state") for row in rows]
    if any(row["state"] != "finished" for row in rows) or len(set(states)) > 1:
        columns["state"] = states
    columns[f"{split} acc"] = [cell(row, "acc") for row in rows]
    columns["95 % CI"] = [
        "" if row["acc_ci_low"] is None else f"{percent(row['acc_ci_low'])}-{percent(row['acc_ci_high'])}"
        for row in rows
    ]
    if split != "val" and any(row["val_acc"] is not None for row in rows):
        columns["val acc"] = [cell(row, "val_acc") for row in rows]
    if any(row["no_answer"] for row in rows):
        columns["no answer"] = [cell(row, "no_answer") for row in rows]
    if any(row["fit_s"] is not None for row in rows):
        columns["fit time"] = [cell(row | {"fit_s_sd": None}, "fit_s") for row in rows]
    return columns


def _setting_columns(settings: Sequence[Mapping[str, str]], *, merged: bool) -> dict[str, list[str]]:
    short = short_names(list(dict.fromkeys(name for each in settings for name in each)))
    if merged and short:
        return {
            "settings": [
                " ".join(f"{short[name]}={value}" for name, value in each.items() if value)
                for each in settings
            ]
        }
    return {header: [each.get(name, "") for each in settings] for name, header in short.items()}


def _make_table(
    lines: Sequence[_Line],
    notes: Sequence[str],
    title: str,
    columns: Mapping[str, Sequence[str]],
    settings_width: int | None = None,
) -> Table:
    table = Table(
        title=Text(title),
        title_justify="left",
        caption=Text("\n".join(notes)),
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    numeric = ("job", "seed", "95 % CI", "no answer", "fit time")
    for header, texts in columns.items():
        is_number = header in numeric or header.endswith(" acc") or _are_numbers(texts)
        table.add_column(
            Text(header),
            justify="right" if is_number else "left",
            overflow="fold",
            no_wrap=header not in ("run", "settings"),
            min_width=min(_MIN_SETTINGS, max(map(len, texts))) if header == "settings" else None,
            width=settings_width if header == "settings" else None,
        )
    for position, line in enumerate(lines):
        table.add_row(*(Text(texts[position]) for texts in columns.values()), style=line.style)
    return table


def _are_numbers(texts: Sequence[str]) -> bool:
    return any(texts) and all(text[:1] in "-." or text[:1].isdigit() for text in texts if text)
