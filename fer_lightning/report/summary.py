"""The rows of several runs: for summary.csv, the terminal and the comparison page."""

import csv
import hashlib
import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from fer_lightning.config.stored import read_yaml
from fer_lightning.core.errors import FERError
from fer_lightning.core.files import write_atomically
from fer_lightning.core.metrics import METRICS
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.evaluation.stats import spread
from fer_lightning.report.configurations import Row, changed_settings
from fer_lightning.report.run_results import (
    RunResults,
    damaged_run,
    naming_damage,
    path_inside,
    read_run,
)
from fer_lightning.report.tables import accuracy_interval, duration, metric_value
from fer_lightning.runs.sweep import pruned_trials

_LEAK_FREE = ("leak_free_acc", "leak_free_near_acc")
_UNITS = {metric.key: metric.unit for metric in METRICS} | dict.fromkeys(("val_acc", *_LEAK_FREE), "%")
_METRICS = ("val_acc", *(metric.key for metric in METRICS), *_LEAK_FREE, "fit_s", "images_per_s")

# The columns of summary.csv. "kind" is "run" for one run and "mean" for runs that differ only in their seed.
# "n", "images" (a digest of the image ids) and the metrics are those of the split named in "split".
# "no_answer" is empty if all images were answered. "acc_ci_low" and "acc_ci_high" bound the 95 % CI of a
# run's "acc". "configuration" is equal for runs that differ only in their seed. "pruned_after" has the
# epochs of a trial that a search ended early.
SUMMARY_KEYS = (
    "kind",
    "run",
    "model",
    "overrides",
    "seed",
    "state",
    "reason",
    "dataset",
    "synthetic",
    "limited",
    "split",
    "n",
    "images",
    "no_answer",
    *_METRICS,
    "num_parameters",
    "num_runs",
    *(f"{key}_sd" for key in _METRICS),
    "folder",
    "acc_ci_low",
    "acc_ci_high",
    "configuration",
    "pruned_after",
)


class Summary(NamedTuple):
    """Compared runs.

    Attributes:
        runs: The runs, in the order given.
        rows: One row per run.
        means: One row per set of runs that differ only in their seed.
    """

    runs: list[RunResults]
    rows: list[Row]
    means: list[Row]


def summarise_runs(run_dirs: Sequence[Path]) -> list[Row]:
    """Return one row per run, then one row per set of runs that differ only in their seed."""
    summary = read_summary(run_dirs)
    return summary.rows + summary.means


def read_summary(run_dirs: Sequence[Path]) -> Summary:
    """Read runs and make their rows, and those of the sets that differ only in their seed.

    Such runs are finished, were evaluated on the same images, and their ``config.yaml`` is equal except for
    seeds, folders and the run's name. Their row holds means, standard deviations (``n - 1``) and the number
    of runs.
    """
    summaries = [_summarise_run(folder) for folder in run_dirs]
    for (_, row, _), settings in zip(
        summaries, changed_settings([run for run, *_ in summaries]), strict=True
    ):
        row["settings"] = settings
    pruned = {above: pruned_trials(above) for above in {folder.resolve().parent for folder in run_dirs}}
    for folder, (_, row, _) in zip(run_dirs, summaries, strict=True):
        row["pruned_after"] = pruned[folder.resolve().parent].get(folder.name)
    whole = [run for run, *_ in summaries if run.state != "damaged"]
    shared = set.intersection(*(set(run.overrides) for run in whole)) if len(whole) > 1 else set()
    groups: dict[str, list[Row]] = {}
    for run, row, config in summaries:
        own = [word for word in run.overrides if word not in shared and not word.startswith("model=")]
        row["overrides"] = " ".join(own)
        if run.state == "finished" and run.config:
            key = f"{config}\n{row['images']}"
            row["configuration"] = hashlib.sha256(key.encode(errors="replace")).hexdigest()[:12]
            groups.setdefault(row["configuration"], []).append(row)
    means = [_mean_row(group) for group in groups.values() if len({row["seed"] for row in group}) > 1]
    return Summary([run for run, *_ in summaries], [row for _, row, _ in summaries], means)


def _summarise_run(folder: Path) -> tuple[RunResults, Row, str]:
    """Return a run, its row, and its config without the seed; a damaged run has a row that says so."""
    try:
        with naming_damage(folder):
            run = read_run(folder)
            return run, _run_row(run), _config_without_seed(run)
    except (FERError, OSError) as error:
        run = damaged_run(folder, error)
        return run, _run_row(run), ""


def _run_row(run: RunResults) -> Row:
    split_metrics = run.split_metrics
    leak_free = split_metrics.get("leak_free") or {}
    row = dict.fromkeys(SUMMARY_KEYS) | {
        "kind": "run",
        "run": run.folder.name,
        "model": run.model,
        "seed": run.info.get("seed"),
        "state": run.state,
        "reason": run.info.get("reason"),
        "dataset": run.dataset,
        "synthetic": run.synthetic,
        "limited": " ".join(run.limited) or None,
        "split": run.split,
        "n": split_metrics.get("n"),
        "images": _images_digest(run),
        "no_answer": sum((split_metrics.get("no_answer") or {}).values()) or None,
        "val_acc": (run.metrics.get("val") or {}).get("acc"),
        **{metric.key: split_metrics.get(metric.key) for metric in METRICS},
        "leak_free_acc": leak_free.get("acc"),
        "leak_free_near_acc": (split_metrics.get("leak_free_near") or {}).get("acc"),
        "fit_s": (run.info.get("durations") or {}).get("fit_s"),
        "images_per_s": run.info.get("images_per_s"),
        "num_parameters": run.info.get("num_parameters"),
        "num_runs": 1,
        "folder": run.folder.as_posix(),
    }
    if row["acc"] is not None and row["n"]:
        row["acc_ci_low"], row["acc_ci_high"] = accuracy_interval(split_metrics)
    for key in ("n", "seed", "num_parameters", *_METRICS):
        if not isinstance(row[key], int | float | None):
            raise FERError(f"{run.folder}: {key} is {str(row[key])[:200]!r}, expected a number")
    return row


def _images_digest(run: RunResults) -> str | None:
    """Digest the ids of the reported images; without predictions only their number is known."""
    if not run.split_metrics.get("n"):
        return None
    path = path_inside(run.folder, f"predictions_{run.split}.npz")
    known = sorted(Predictions.load(path).ids.tolist()) if path.exists() else [str(run.split_metrics["n"])]
    fingerprint = str((run.info.get("data") or {}).get("fingerprint"))
    return hashlib.sha256("\n".join([fingerprint, *known]).encode()).hexdigest()[:12]


def _config_without_seed(run: RunResults) -> str:
    """Return the config without what differs between seeds: the seeds, folders and the run's name."""
    own_names = {run.folder.name, run.info.get("name")} - {None}

    def is_own(key: str, value: str) -> bool:
        """Return whether a setting holds the run's name, or a path with its folder as one of the parts."""
        parts = re.split(r"[/\\]", value)
        if len(parts) > 1:
            return run.folder.name in parts
        return value in own_names and key.endswith(("name", "id", "group"))

    def keep(node: Any, key: str = "") -> Any:
        if isinstance(node, dict):
            return {
                name: keep(value, str(name))
                for name, value in sorted(node.items(), key=lambda item: str(item[0]))
                if name != "seed" and not str(name).endswith("dir")
            }
        if isinstance(node, list):
            return [keep(value, key) for value in node]
        return None if isinstance(node, str) and is_own(key, node) else node

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
        "acc_ci_low": None,
        "acc_ci_high": None,
    }
    for key in _METRICS:
        values = [member[key] for member in group if member[key] is not None]
        row[key], row[f"{key}_sd"], _ = spread(values) if values else (None, None, 0)
    return row


def write_summary_csv(rows: Sequence[Row], path: Path) -> None:
    """Write rows of ``summarise_runs`` as CSV; a value that a run does not have is empty."""
    text = StringIO(newline="")
    writer = csv.DictWriter(text, SUMMARY_KEYS, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def common_split(rows: Sequence[Row]) -> str:
    """Return the split that all rows report, or "reported" if they differ."""
    splits = {row["split"] for row in rows if row["split"]}
    return str(splits.pop()) if len(splits) == 1 else "reported"


def cell(row: Row, key: str) -> str:
    """Format one value of a summary row, with its standard deviation if there is one."""
    value, sd = row[key], row.get(f"{key}_sd")
    if value is None:
        return "—" if key in _METRICS or key == "num_parameters" else ""
    if key == "fit_s":
        return duration(value)
    if key in ("images_per_s", "num_parameters"):
        return f"{value:,.0f}"
    if key == "state":
        shown = "pruned" if value == "finished" and row.get("pruned_after") else str(value)
        return f"{shown}, limited" if row.get("limited") else shown
    if key not in _METRICS:
        return str(value)
    unit = _UNITS[key]
    return metric_value(value, unit) + ("" if sd is None else f" ± {metric_value(sd, unit)}")
