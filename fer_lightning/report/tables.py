"""Tables of one run and of many: for the terminal, for CSV, and as rows for the comparison page."""

import csv
import hashlib
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from fer_lightning.config.stored import read_yaml
from fer_lightning.core.files import write_atomically
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.evaluation.stats import spread, wilson_interval
from fer_lightning.report.runs import Run, read_run, reported_split, within

Row = dict[str, Any]  # one line of a summary, keys from SUMMARY_KEYS

_MEASURED = ("val_acc", "acc", "f1_macro", "leak_free_acc", "ece", "fit_s", "images_per_s")

# The columns of summary.csv. "kind" is "run" for one run and "mean" for runs that differ only in their seed;
# "n", "images" (a digest of which they are) and what was measured are of the split named in "split";
# "no_answer" is empty where all were answered.
SUMMARY_KEYS = (
    *(
        "kind",
        "run",
        "model",
        "overrides",
        "seed",
        "state",
        "reason",
        "dataset",
        "synthetic",
        "split",
        "n",
        "images",
    ),
    *("no_answer", *_MEASURED, "num_parameters", "num_runs"),
    *(f"{key}_sd" for key in _MEASURED),
    "folder",
)


def percent(value: float | None, digits: int = 1) -> str:
    """Write a share in [0, 1] as a percentage without its sign, a dash where it is undefined."""
    return "—" if value is None else f"{100 * value:.{digits}f}"


def duration(seconds: float | None) -> str:
    """Write a time as people say it: ``7.3 s``, ``2 min 05 s``, ``3 h 20 min``."""
    if seconds is None:
        return "—"
    if seconds < 59.95:  # above, one digit rounds to 60.0
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 10:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def headline_facts(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Choose the few numbers a run is known by.

    Args:
        metrics: The content of ``metrics.json``, possibly empty.

    Returns:
        What it is, its value, and how to read it, for each number there is.
    """
    split = reported_split(metrics)
    if split is None:
        return []
    measured, facts = metrics[split], []
    if measured.get("acc") is not None:
        note = f"{_interval(measured, 'acc')}n = {measured['n']:,}"
        facts.append((f"{split} accuracy", f"{percent(measured['acc'], 2)} %", note))
    if measured.get("f1_macro") is not None:
        note = f"{_interval(measured, 'f1_macro')}macro accuracy {percent(measured.get('acc_macro'), 2)} %"
        facts.append((f"{split} macro F1", f"{percent(measured['f1_macro'], 2)} %", note))
    leak_free = measured.get("leak_free") or {}
    if leak_free.get("acc") is not None:
        images = f"without copies of images trained or selected on, n = {leak_free['n']:,}"
        note = f"{_interval(leak_free, 'acc')}{images}"
        facts.append((f"leak-free {split} accuracy", f"{percent(leak_free['acc'], 2)} %", note))
    if reasons := measured.get("no_answer"):
        note = f"they count as wrong: {', '.join(f'{count:,} {reason}' for reason, count in reasons.items())}"
        facts.append(("no answer", f"{sum(reasons.values()):,} of {measured['n']:,} images", note))
    validation = metrics.get("val") or {}
    if split != "val" and validation.get("acc") is not None:
        facts.append(("val accuracy", f"{percent(validation['acc'], 2)} %", f"n = {validation['n']:,}"))
    if metrics.get("best_epoch") is not None:
        last = metrics.get("selected_by") == "last"
        note = "the last one: nothing was selected" if last else f"selected by {metrics.get('selected_by')}"
        epoch = metrics["best_epoch"]  # lines for people count from 1, as the progress bar does
        note = f"{note} (epoch {epoch} in files and figures, which count from 0)"
        facts.append(("checkpoint", f"epoch {epoch + 1}", note))
    return facts


def _interval(measured: dict[str, Any], key: str) -> str:
    """Begin a note with an interval; a file from before there was ``ci95`` allows that of ``acc`` alone."""
    interval = (measured.get("ci95") or {}).get(key)
    if interval is None and key == "acc":
        interval = wilson_interval(measured["acc"], measured["n"])
    return f"95 % interval {percent(interval[0])} to {percent(interval[1])}, " if interval else ""


def headline(metrics: dict[str, Any], title: str = "") -> Table:
    """Show the few numbers a run is known by, from the content of ``metrics.json``."""
    table = Table(title=Text(title), title_justify="left", show_header=False, box=None)
    for what, value, note in headline_facts(metrics):
        table.add_row(Text(what), Text(value, style="bold"), Text(note, style="dim"))
    return table


def per_class_headers(measured: dict[str, Any]) -> list[str]:
    """Name the columns of ``per_class_rows``."""
    headers = ["class", "precision %", "recall %", "F1 %", "one-vs-rest acc %"]
    return [*headers, *(["no answer"] if measured.get("no_answer") else []), "images"]


def per_class_rows(measured: dict[str, Any]) -> Iterator[tuple[str, list[float | None], list[int]]]:
    """Give each class of a split: its name, its scores in [0, 1], and its counts.

    The scores are precision, recall, F1 and one-against-rest accuracy. The counts are the images without an
    answer, where the split has such, and all images.
    """
    keys = ["no_answer", "n"] if measured.get("no_answer") else ["n"]
    for name, entry in (measured.get("per_class") or {}).items():
        scores = [entry.get(key) for key in ("precision", "recall", "f1", "acc_ovr")]
        yield name, scores, [entry.get(key, 0) for key in keys]


def per_class_table(measured: dict[str, Any], title: str = "") -> Table:
    """Show how each class fared.

    Args:
        measured: One split of ``metrics.json``.
        title: Stands above the table.
    """
    table = Table(title=Text(title), title_justify="left")
    for index, header in enumerate(per_class_headers(measured)):
        table.add_column(header, justify="right" if index else "left")
    for name, scores, counts in per_class_rows(measured):
        table.add_row(Text(name), *map(percent, scores), *(f"{count:,}" for count in counts))
    return table


def confusion_counts(measured: dict[str, Any]) -> NDArray[np.int64]:
    """Give ``(C, C + 1)`` images of a split, rows true, columns predicted; the last one: no answer."""
    unanswered = [entry.get("no_answer", 0) for entry in measured["per_class"].values()]
    return np.column_stack([np.array(measured["confusion"], np.int64), unanswered])


def confusion_table(measured: dict[str, Any], title: str = "") -> Table:
    """Show who was taken for whom: rows true, columns predicted, right answers highlighted.

    Args:
        measured: One split of ``metrics.json``.
        title: Stands above the table.
    """
    table = Table(title=Text(title), title_justify="left", caption="rows true, columns predicted")
    if not measured.get("per_class"):
        return table
    classes = list(measured["per_class"])
    answers = [name[:4] for name in classes] + (["no answer"] if measured.get("no_answer") else [])
    for header in ("", *answers):
        table.add_column(Text(header), justify="right" if header else "left")
    for row, (name, counts) in enumerate(zip(classes, confusion_counts(measured).tolist(), strict=True)):
        cells = [
            Text(f"{count:,}", style="bold green" if row == column else "" if count else "dim")
            for column, count in enumerate(counts[: len(answers)])
        ]
        table.add_row(Text(name), *cells)
    return table


def summarise_runs(run_dirs: Sequence[Path]) -> list[Row]:
    """Give a row for each run, then one for each set of runs in which only the seed differs.

    Such runs finished, were measured on the same images, and their ``config.yaml`` is equal but for seeds,
    folders and the run's own name.
    Their row holds means, standard deviations (``n - 1``) and the number of runs.

    Raises:
        FERError: If a folder is no run folder, or a file in it is damaged.
    """
    runs = [read_run(folder) for folder in run_dirs]
    shared = set.intersection(*(set(run.overrides) for run in runs)) if len(runs) > 1 else set()
    rows = [_run_row(run, [override for override in run.overrides if override not in shared]) for run in runs]
    alike: dict[tuple[str, str | None], list[Row]] = {}
    for run, row in zip(runs, rows, strict=True):
        if run.state == "finished" and run.config:
            alike.setdefault((_identity(run), row["images"]), []).append(row)
    return rows + [_mean_row(group) for group in alike.values() if len({row["seed"] for row in group}) > 1]


def _run_row(run: Run, overrides: Sequence[str]) -> Row:
    measured = run.measured
    leak_free = measured.get("leak_free") or {}
    return dict.fromkeys(SUMMARY_KEYS) | {
        "kind": "run",
        "run": run.folder.name,
        "model": run.model,
        "overrides": " ".join(override for override in overrides if not override.startswith("model=")),
        "seed": run.info.get("seed"),
        "state": run.state,
        "reason": run.info.get("reason"),
        "dataset": run.dataset,
        "synthetic": run.synthetic,
        "split": run.split,
        "n": measured.get("n"),
        "images": _images(run),
        "no_answer": sum((measured.get("no_answer") or {}).values()) or None,
        "val_acc": (run.metrics.get("val") or {}).get("acc"),
        "acc": measured.get("acc"),
        "f1_macro": measured.get("f1_macro"),
        "leak_free_acc": leak_free.get("acc"),
        "ece": measured.get("ece"),
        "fit_s": (run.info.get("durations") or {}).get("fit_s"),
        "images_per_s": run.info.get("images_per_s"),
        "num_parameters": run.info.get("num_parameters"),
        "num_runs": 1,
        "folder": run.folder.as_posix(),
    }


def _images(run: Run) -> str | None:
    """Digest which images a run reports on; of a run without predictions all that is known is how many."""
    if not run.measured.get("n"):
        return None
    path = within(run.folder, f"predictions_{run.split}.npz")
    known = sorted(Predictions.load(path).ids.tolist()) if path.exists() else [str(run.measured["n"])]
    fingerprint = str((run.info.get("data") or {}).get("fingerprint"))
    return hashlib.sha256("\n".join([fingerprint, *known]).encode()).hexdigest()[:12]


def _identity(run: Run) -> str:
    """Write the config without what differs between repetitions: seeds, folders, the run's own name."""
    own_names = {run.folder.name, run.info.get("name")} - {None}

    def keep(node: Any) -> Any:
        if isinstance(node, dict):
            return {
                key: keep(value)
                for key, value in sorted(node.items(), key=lambda item: str(item[0]))
                if key != "seed" and not str(key).endswith("dir")
            }
        if isinstance(node, list):
            return [keep(value) for value in node]
        return None if isinstance(node, str) and (node in own_names or run.folder.name in node) else node

    return repr(keep(read_yaml(run.folder / "config.yaml")))


def _mean_row(group: Sequence[Row]) -> Row:
    first = group[0]
    words = [word for word in first["overrides"].split() if not word.lstrip("+").startswith("seed=")]
    row = first | {
        "kind": "mean",
        "run": f"{first['model']}, {len(group)} seeds",
        "overrides": " ".join(words),
        "seed": None,
        "no_answer": None,
        "num_runs": len(group),
        "folder": None,
    }
    for key in _MEASURED:
        values = [member[key] for member in group if member[key] is not None]
        row[key], row[f"{key}_sd"], _ = spread(values) if values else (None, None, 0)
    return row


def write_summary_csv(rows: Sequence[Row], path: Path) -> None:
    """Write rows of ``summarise_runs``, one a line, empty where a run has no such value."""
    text = StringIO(newline="")
    writer = csv.DictWriter(text, SUMMARY_KEYS)
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def measured_on(rows: Sequence[Row]) -> str:
    """Name the split that all rows report, or "reported" where they differ."""
    splits = {row["split"] for row in rows if row["split"]}
    return str(splits.pop()) if len(splits) == 1 else "reported"


def cell(row: Row, key: str) -> str:
    """Write one value of a summary row for people, with its standard deviation where there is one."""
    value, spread = row[key], row.get(f"{key}_sd")
    if value is None:
        return "—" if key in _MEASURED or key == "num_parameters" else ""
    if key == "fit_s":
        return duration(value)
    if key in ("images_per_s", "num_parameters"):
        return f"{value:,.0f}"
    if key not in _MEASURED:
        return str(value)
    return percent(value, 2) if spread is None else f"{percent(value, 2)} ± {percent(spread, 2)}"


def summary_table(rows: Sequence[Row], title: str = "") -> Table:
    """Show rows of ``summarise_runs``; why runs failed stands below the table."""
    split = measured_on(rows)
    notes = ["accuracies and F1 in %"]
    notes += [f"{row['run']} {row['state']}: {row['reason']}" for row in rows if row["reason"]]
    table = Table(
        title=Text(title),
        title_justify="left",
        caption=Text("\n".join(notes)),
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    columns = {
        "run": "run",
        "overrides": "overrides",
        "state": "state",
        "val_acc": "val acc",
        "acc": f"{split} acc",
        "f1_macro": "macro F1",
        "leak_free_acc": "leak-free",
        "no_answer": "no answer",
        "fit_s": "fit",
    }
    if not any(row["no_answer"] for row in rows):
        del columns["no_answer"]
    for key, header in columns.items():
        words = key in ("run", "overrides", "state")
        table.add_column(
            header, justify="left" if words else "right", overflow="fold", no_wrap=key in ("run", "state")
        )
    for row in rows:
        style = "bold" if row["kind"] == "mean" else "red" if row["state"] == "failed" else ""
        table.add_row(*(Text(cell(row, key)) for key in columns), style=style)
    return table
