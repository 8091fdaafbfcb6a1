"""Results of a run, read from its folder, however early the run ended."""

import csv
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fer_lightning.config.stored import read_yaml
from fer_lightning.core.errors import FERError
from fer_lightning.core.files import naming, read_json_object
from fer_lightning.core.metrics import METRICS
from fer_lightning.runs.folder import check_record

# What malformed files in a run folder make code raise.
MALFORMED = (LookupError, RecursionError, TypeError, AttributeError, ValueError, ArithmeticError)
# A folder with any of these files is a run folder: a run that fails early leaves only the first ones.
RUN_FILES = ("config.yaml", "overrides.yaml", "run.json", "metrics.json")


@dataclass(frozen=True)
class RunResults:
    """The files of one run folder; the value of a missing file is empty.

    Attributes:
        folder: The run folder.
        info: Content of ``run.json``.
        metrics: Content of ``metrics.json``.
        overrides: Hydra overrides given on the command line.
        config: Text of ``config.yaml``.
        history: Columns of ``metrics.csv`` by name, NaN where a cell is empty.
    """

    folder: Path
    info: dict[str, Any]
    metrics: dict[str, Any]
    overrides: list[str]
    config: str
    history: dict[str, list[float]]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings in ``config.yaml``; none if there is no such file or it is damaged."""
        with suppress(FERError):
            found = read_yaml(path_inside(self.folder, "config.yaml"))
            if isinstance(found, dict):
                return found
        return {}

    @property
    def state(self) -> str:
        """The state in ``run.json``; without that file "finished" if there are metrics, else "unknown"."""
        return str(self.info.get("state") or ("finished" if self.metrics else "unknown"))

    @property
    def model(self) -> str:
        """The model's name; the run's or the folder's name if no model was recorded."""
        return str(self.info.get("model") or self.info.get("name") or self.folder.name)

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return str(self.metrics.get("dataset") or self.info.get("dataset") or "unknown data")

    @property
    def synthetic(self) -> bool:
        """Whether the run used the built-in synthetic faces."""
        return bool(self.metrics.get("synthetic") or self.info.get("synthetic"))

    @property
    def limited(self) -> list[str]:
        """The settings that left images out; empty for a whole run."""
        limits = self.metrics.get("limited") or self.info.get("limited")
        return [str(limit) for limit in limits] if isinstance(limits, list) else []

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the tested checkpoint, counted from 0."""
        epoch = self.metrics.get("best_epoch", self.info.get("best_epoch"))
        return None if epoch is None else int(epoch)

    @property
    def split(self) -> str | None:
        """The reported split, see ``reported_split``."""
        return reported_split(self.metrics)

    @property
    def split_metrics(self) -> dict[str, Any]:
        """The metrics of the reported split; empty if nothing was measured."""
        return self.metrics[self.split] if self.split else {}


def reported_split(metrics: dict[str, Any]) -> str | None:
    """Return the split in ``metrics.json`` that was least used for training, or None if there is none."""
    return next((split for split in ("test", "all", "val", "train") if metrics.get(split)), None)


def path_inside(folder: Path, name: str) -> Path:
    """Return the path of a file in a run folder, which may not be a link to a file outside of it.

    Run folders may come from other people: following such a link would copy private files into a page.
    """
    path = folder / name
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except RuntimeError as error:
        raise FERError(f"{path}: a symbolic link that leads to itself; put the file itself there") from error
    if not inside:
        raise FERError(
            f"{path}: a symbolic link that leads out of the run folder, and is not followed; put the file "
            "itself there"
        )
    if path.exists() and not path.is_file():  # opening a pipe would block
        raise FERError(f"{path}: a folder, a pipe or a device, expected a file; remove it")
    return path


def read_run(folder: Path) -> RunResults:
    """Read the files of a run folder; none of them has to exist, but at least one of ``RUN_FILES``."""
    if not _is_run_folder(folder):
        raise FERError(f"{folder}: not a run folder, expected at least one of {', '.join(RUN_FILES)} in it")
    info = read_json_object(path_inside(folder, "run.json")) or {}
    check_record(folder / "run.json", info)
    overrides = info.get("overrides")
    if overrides is None:
        overrides = read_yaml(path_inside(folder, "overrides.yaml")) or []
    metrics = read_json_object(path_inside(folder, "metrics.json")) or {}
    _check_metrics(folder / "metrics.json", metrics)
    path = path_inside(folder, "config.yaml")
    with naming(path):
        config = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return RunResults(
        folder=folder,
        info=info,
        metrics=metrics,
        overrides=[str(override) for override in overrides],
        config=config,
        history=_read_history(path_inside(folder, "metrics.csv")),
    )


def _check_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """Check the types in the content of ``metrics.json``.

    Raises:
        FERError: If one is wrong, with the key.
    """
    numbers = ("n", *(metric.key for metric in METRICS))
    for split in ("train", "val", "test", "all"):
        measured = metrics.get(split)
        if not isinstance(measured, dict | None):
            raise _wrong(path, split, measured, "results")
        for key, value in (measured or {}).items():
            name = f"{split}.{key}"
            if key in numbers and not isinstance(value, int | float | None):
                raise _wrong(path, name, value, "a number")
            if key in ("ci95", "leak_free", "leak_free_near", "no_answer") and not _is_table(value):
                raise _wrong(path, name, value, "numbers by name")
            if key == "per_class" and not (isinstance(value, dict) and all(map(_is_table, value.values()))):
                raise _wrong(path, name, value, "numbers by class")
            if key == "confusion" and not _is_matrix(value):
                raise _wrong(path, name, value, "rows of whole numbers of one length")
    calibration = metrics.get("calibration")
    if calibration is not None and not _is_calibration(calibration):
        raise _wrong(path, "calibration", calibration, "a temperature, and numbers by split")


def _wrong(path: Path, key: str, value: object, expected: str) -> FERError:
    return FERError(
        f"{path}: {key} is {str(value)[:100]!r}, expected {expected}; it was altered after the run; evaluate "
        "its checkpoint again with eval.py"
    )


def _is_table(value: object) -> bool:
    """Return whether a value is null, or a dict of numbers, of pairs of numbers, or of such dicts."""
    if value is None:
        return True
    return isinstance(value, dict) and all(
        isinstance(each, int | float | None)
        or _is_table(each)
        or (
            isinstance(each, list)
            and all(isinstance(bound, int | float) for bound in each)
            and len(each) == 2
        )
        for each in value.values()
    )


def _is_calibration(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("temperature"), int | float)
        and all(
            isinstance(each, int | float | None)
            for split in ("train", "val", "test", "all")
            for each in (value[split].values() if isinstance(value.get(split), dict) else [value.get(split)])
        )
    )


def _is_matrix(value: object) -> bool:
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        return False
    return len({len(row) for row in value}) <= 1 and all(
        isinstance(cell, int) for row in value for cell in row
    )


@contextmanager
def naming_damage(folder: object) -> Iterator[None]:
    """Describe what malformed files of a run folder make code raise, in a sentence.

    Raises:
        FERError: In place of such an error.
    """
    try:
        yield
    except FERError:
        raise
    except MALFORMED as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise FERError(f"{folder}: a file there was not written by this project ({reason})") from error


def damaged_run(folder: Path, error: Exception) -> RunResults:
    """Return a placeholder for a run whose files cannot be read."""
    reason = str(error) if isinstance(error, FERError) else f"{type(error).__name__}: {error}"
    return RunResults(folder, {"state": "damaged", "reason": reason}, {}, [], "", {})


def read_audit(folder: Path) -> dict[str, Any]:
    """Read a run's ``audit.json``; return an empty dict if there is none."""
    return read_json_object(path_inside(folder, "audit.json")) or {}


def find_run_folders(paths: Iterable[Path]) -> list[Path]:
    """Replace each sweep folder by the run folders in it, in the order of their job numbers."""
    found: list[Path] = []
    for path in paths:
        if _is_run_folder(path):
            jobs = [path]
        else:
            jobs = sorted(filter(_is_run_folder, path.glob("*/")), key=_job_order)
        if not jobs:
            raise FERError(
                f"{path}: no run in it; name a folder that train.py or eval.py wrote, or a sweep's"
            )
        found += jobs
    return found


def _is_run_folder(folder: Path) -> bool:
    return any((folder / name).is_file() for name in RUN_FILES)


def _job_order(folder: Path) -> tuple[float, str]:
    number = folder.name.split("_")[0]
    return (int(number) if number.isdecimal() else math.inf, folder.name)


def _read_history(path: Path) -> dict[str, list[float]]:
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            reader = csv.DictReader(file)
            names, rows = reader.fieldnames or (), list(reader)  # an empty file has no field names
    except (OSError, csv.Error) as error:
        raise FERError(f"{path}: not readable as CSV ({error})") from error
    return {name: [_number(row[name]) for row in rows] for name in names}


def _number(cell: str | None) -> float:
    """Convert a cell; the last line of a killed run may end anywhere."""
    try:
        return float(cell or "nan")
    except ValueError:
        return math.nan
