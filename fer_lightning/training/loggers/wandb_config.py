"""What W&B's config columns and headline numbers say of a run."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_GROUPS = ("model", "optimizer", "scheduler", "data", "trainer", "loss", "experiment")
_MEASURES = ("acc", "acc_macro", "f1_macro", "ece")


def flatten_config(config: Mapping[str, Any], choices: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Flatten a config to the columns of a dashboard, spelled as overrides are.

    ``{"model": {"_target_": "a.b.CNN", "width": 32}}`` becomes ``{"model": "cnn", "model.width": 32}``. A
    column has the key of the override that sets it, because a W&B sweep's parameters are overrides, too, and
    W&B puts them into the config under their own names. Left out are the logger itself, Hydra's directives,
    and the folders of this machine: absolute paths, ``root`` and ``*_dir``.

    Args:
        config: The resolved config as plain containers.
        choices: The chosen option of each group; a group without one shows the name of its class.

    Returns:
        Numbers, strings, lists and nulls by name.
    """
    columns = {}
    for key, value in flatten({group: value for group, value in config.items() if group != "logger"}):
        parent, _, name = key.rpartition(".")
        if name == "_target_":
            columns[parent] = value.rpartition(".")[2]
        elif not (name.startswith("_") or _is_folder(name, value)):
            columns[key] = value
    for group in _GROUPS:
        if choices is not None and choices.get(group) is not None:
            columns[group] = choices[group]
    if columns.get("data") == "auto":
        columns["data"] = columns.get("data.name")
    return columns


def record_columns(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that describe code, data and network.

    Args:
        record: The content of ``run.json``; missing parts give no column.
    """
    columns: dict[str, Any] = {}
    git, data = record.get("git") or {}, record.get("data") or {}
    for key in ("commit", "dirty"):
        if key in git:
            columns[f"git.{key}"] = git[key]
    if "fingerprint" in data:
        columns["data.fingerprint"] = data["fingerprint"]
    for split, counts in (data.get("counts") or {}).items():
        columns[f"data.num_{split}"] = sum(counts.values())
    if "num_parameters" in record:
        columns["num_parameters"] = record["num_parameters"]
    return columns


def headline_numbers(metrics: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, int | float]:
    """Return the numbers that the table of runs shows.

    Args:
        metrics: The content of ``metrics.json``.
        record: The content of ``run.json``.

    Returns:
        About ten finite numbers: ``test/acc`` with its interval ``test/acc_ci_low`` and ``_high``,
        ``test/acc_macro``, ``test/f1_macro``, ``test/ece``, ``test/leak_free_acc``,
        ``test/leak_free_near_acc``, ``val/acc`` of the best checkpoint, ``best_epoch``,
        ``num_parameters`` and ``images_per_s``.
    """
    test, val = metrics.get("test") or {}, metrics.get("val") or {}
    low, high = (test.get("ci95") or {}).get("acc") or (None, None)
    numbers = {f"test/{measure}": test.get(measure) for measure in _MEASURES}
    numbers |= {
        "test/acc_ci_low": low,
        "test/acc_ci_high": high,
        "test/leak_free_acc": (test.get("leak_free") or {}).get("acc"),
        "test/leak_free_near_acc": (test.get("leak_free_near") or {}).get("acc"),
        "val/acc": val.get("acc"),
        "best_epoch": metrics.get("best_epoch"),
        "num_parameters": record.get("num_parameters"),
        "images_per_s": record.get("images_per_s"),
    }
    return {key: value for key, value in numbers.items() if value is not None}


def result_rows(metrics: Mapping[str, Any]) -> list[list[Any]]:
    """List every scalar of ``metrics.json``: split, images, metric, value, interval, number of images."""
    rows = []
    for split, result in metrics.items():
        if not isinstance(result, Mapping):
            continue
        parts = {"all": result} | {
            key.replace("_", "-"): result.get(key) or {} for key in ("leak_free", "leak_free_near")
        }
        for images, scalars in parts.items():
            intervals = scalars.get("ci95") or {}
            for name, value in scalars.items():
                if isinstance(value, int | float) and not isinstance(value, bool) and name != "n":
                    low, high = intervals.get(name) or (None, None)
                    rows.append([split, images, name, float(value), low, high, scalars.get("n")])
    return rows


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested dicts with their keys joined by dots."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_folder(name: str, value: object) -> bool:
    if name == "root" or name.endswith("_dir"):
        return True
    return isinstance(value, str | Path) and (Path(value).is_absolute() or str(value).startswith("~/"))
