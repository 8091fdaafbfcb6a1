"""Run folders as data: what a run left behind, however early it ended."""

import csv
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_lightning.config.stored import read_yaml
from fer_lightning.core.errors import FERError
from fer_lightning.core.files import naming

# Any of these makes a folder a run folder: a run that dies early leaves only the first ones.
RUN_FILES = ("config.yaml", "overrides.yaml", "run.json", "metrics.json")


@dataclass(frozen=True)
class Run:
    """One run folder; what its files lack is empty here.

    Attributes:
        folder: The run folder.
        info: ``run.json``.
        metrics: ``metrics.json``.
        overrides: What was typed after the command.
        config: The text of ``config.yaml``.
        history: The columns of ``metrics.csv``, NaN where a cell is empty.
    """

    folder: Path
    info: dict[str, Any]
    metrics: dict[str, Any]
    overrides: list[str]
    config: str
    history: dict[str, list[float]]

    @property
    def state(self) -> str:
        """The state of ``run.json``; a folder without one has "finished" if it holds metrics."""
        return str(self.info.get("state") or ("finished" if self.metrics else "unknown"))

    @property
    def model(self) -> str:
        """The model's name, or the folder's where none was recorded."""
        return str(self.info.get("model") or self.info.get("name") or self.folder.name)

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return str(self.metrics.get("dataset") or self.info.get("dataset") or "unknown data")

    @property
    def synthetic(self) -> bool:
        """Whether the faces were drawn by this package."""
        return bool(self.metrics.get("synthetic") or self.info.get("synthetic"))

    @property
    def best_epoch(self) -> int | None:
        """The epoch that was kept, counted from 0."""
        epoch = self.metrics.get("best_epoch", self.info.get("best_epoch"))
        return None if epoch is None else int(epoch)

    @property
    def split(self) -> str | None:
        """The split this run reports: the least used for training among those measured."""
        return reported_split(self.metrics)

    @property
    def measured(self) -> dict[str, Any]:
        """The metrics of the reported split, empty if nothing was measured."""
        return self.metrics[self.split] if self.split else {}


def reported_split(metrics: dict[str, Any]) -> str | None:
    """Pick the split that ``metrics.json`` is chiefly about: the one least used for training."""
    return next((split for split in ("test", "all", "val", "train") if metrics.get(split)), None)


def within(folder: Path, name: str) -> Path:
    """Give the path of a run's file, which a stranger's link may not lead to a reader's own files.

    Raises:
        FERError: If it leads out of the folder, or is something that is not read as a file is.
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
    if path.exists() and not path.is_file():  # a pipe would block its reader
        raise FERError(f"{path}: a folder, a pipe or a device, expected a file; remove it")
    return path


def read_run(folder: Path) -> Run:
    """Read a run folder, whatever of it exists.

    Raises:
        FERError: If the folder is no run folder, or a file in it is damaged.
    """
    if not _is_run(folder):
        raise FERError(f"{folder}: not a run folder, expected at least one of {', '.join(RUN_FILES)} in it")
    info = _read_json(within(folder, "run.json"))
    overrides = info.get("overrides")
    if overrides is None:
        overrides = read_yaml(within(folder, "overrides.yaml")) or []
    path = within(folder, "config.yaml")
    with naming(path):
        config = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return Run(
        folder,
        info,
        _read_json(within(folder, "metrics.json")),
        [str(override) for override in overrides],
        config,
        _read_history(within(folder, "metrics.csv")),
    )


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Replace each sweep folder by the run folders in it, by job number.

    Raises:
        FERError: If a path is neither a run folder nor a folder of them.
    """
    found: list[Path] = []
    for path in paths:
        jobs = [path] if _is_run(path) else sorted(filter(_is_run, path.glob("*/")), key=_job_order)
        if not jobs:
            raise FERError(
                f"{path}: no run in it; name a folder that train.py or eval.py wrote, or a sweep's"
            )
        found += jobs
    return found


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in RUN_FILES)


def _job_order(folder: Path) -> tuple[float, str]:
    number = folder.name.split("_")[0]
    return (int(number) if number.isdecimal() else math.inf, folder.name)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FERError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise FERError(f"{path}: holds a {type(content).__name__}, expected an object as train.py writes it")
    return content


def _read_history(path: Path) -> dict[str, list[float]]:
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            reader = csv.DictReader(file)
            names, rows = reader.fieldnames or (), list(reader)  # no names in an empty file
    except (OSError, csv.Error) as error:
        raise FERError(f"{path}: not readable as CSV ({error})") from error
    return {name: [_number(row[name]) for row in rows] for name in names}


def _number(cell: str | None) -> float:
    """Read a cell; the last line of a killed run may be cut anywhere."""
    try:
        return float(cell or "nan")
    except ValueError:
        return math.nan
