"""Copy what is needed of finished runs: their records and predictions, without images, weights and paths."""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fer_lightning.config.stored import read_yaml
from fer_lightning.core.errors import FERError
from fer_lightning.data.audit.quality import FER2013_FINGERPRINT
from fer_lightning.report.run_results import RunResults, find_run_folders, path_inside, read_run

HERE = Path(__file__).parent
TEXTS = ("config.yaml", "overrides.yaml", "run.json", "metrics.json", "metrics.csv")
PREDICTIONS = "predictions_test.npz"
# Overrides that decide nothing about the result, or that are in the name of its record.
_NAMED = (
    "experiment",
    "model",
    "seed",
    "data",
    "data.protocol",
    "data.root",
    "data.soft_targets",
    "num_threads",
    "logger",
    "resume",
)
_ABSOLUTE_PATH = re.compile(r"(?<![\w.~$}:/])/(?!/)[\w.-]+/[^\s\"',]*")


def collect(folders: Iterable[Path], into: Path = HERE) -> list[Path]:
    """Copy the records of all runs in some folders, each to a folder with the name of its run.

    Args:
        folders: Run folders and sweep folders.
        into: Where the records go; a record of the same name is replaced.

    Returns:
        The folders of the records.

    Raises:
        FERError: If a run is not finished, left images out, has other images than FER-2013 or was trained by
            code that is in no commit; or if its record contains a path of this machine.
    """
    runs = [read_run(folder) for folder in find_run_folders(folders)]
    for run in runs:
        _check_result(run)
    names = [record_name(run) for run in runs]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise FERError(
            f"{', '.join(sorted(repeated))}: several of these runs have this name; name one of them"
        )
    return [_copy(run, into / name) for run, name in zip(runs, names, strict=True)]


def record_folders(where: Path = HERE) -> list[Path]:
    """Return the folders of all records, sorted by name."""
    return sorted(path.parent for path in where.glob("*/run.json"))


def record_name(run: RunResults) -> str:
    """Return the name of a run's record, such as ``improved_resnet_official_seed0``."""
    experiments = [each.partition("=")[2] for each in run.overrides if each.startswith("experiment=")]
    words = [*(experiments or ["default"])]
    if run.model not in words[0]:
        words.append(run.model)
    if (protocol := (run.info.get("data") or {}).get("protocol")) != "paper":
        words.append(str(protocol))
    return "_".join([*words, f"seed{run.info.get('seed')}"])


def _check_result(run: RunResults) -> None:
    fingerprint = (run.info.get("data") or {}).get("fingerprint")
    if run.state != "finished":
        raise FERError(f"{run.folder}: state {run.state}, expected finished; continue it with resume=auto")
    if others := [each for each in run.overrides if each.partition("=")[0] not in _NAMED]:
        raise FERError(f"{run.folder}: has {', '.join(others)}, which the name of a record does not say")
    if run.limited:
        raise FERError(f"{run.folder}: limited by {', '.join(run.limited)}; its numbers are not results")
    segments = run.info.get("segments") or [run.info]
    if any((segment.get("git") or {}).get("dirty") is not False for segment in [run.info, *segments]):
        raise FERError(f"{run.folder}: trained by code that is in no commit; train from a clean checkout")
    if fingerprint != FER2013_FINGERPRINT:
        raise FERError(f"{run.folder}: trained on data with fingerprint {fingerprint}, expected FER-2013's")


def _copy(run: RunResults, record: Path) -> Path:
    texts = {name: path_inside(run.folder, name).read_text(encoding="utf-8") for name in TEXTS}
    for name, text in texts.items():
        texts[name] = _without_paths(text, run, record.name)
        if found := _ABSOLUTE_PATH.search(texts[name]):
            raise FERError(f"{run.folder / name}: contains {found[0]}, a path of this machine")
    with np.load(path_inside(run.folder, PREDICTIONS)) as file:
        arrays = dict(file)
    new = record.with_name(f".{record.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for name, text in texts.items():
        (new / name).write_text(text, encoding="utf-8")
    np.savez_compressed(new / PREDICTIONS, **arrays)
    shutil.rmtree(record, ignore_errors=True)
    new.rename(record)
    return record


def _without_paths(text: str, run: RunResults, name: str) -> str:
    """Replace the run's folder, the root of its data set and its teacher by names that hold anywhere."""
    config = read_yaml(run.folder / "config.yaml") or {}
    known = {str(run.folder.resolve()): f"outputs/{name}", str(run.folder.resolve().parent): "outputs"}
    data = config.get("data") or {}
    if (root := str(data.get("root"))).startswith("/"):
        known[root] = "data/fer2013"
    if (teacher := Path(str(data.get("soft_targets")))).is_absolute():
        known[str(teacher)] = f"outputs/{teacher.parent.name}/{teacher.name}"
    for path in sorted(known, key=len, reverse=True):  # one may lie within another
        text = text.replace(path, known[path])
    return text
