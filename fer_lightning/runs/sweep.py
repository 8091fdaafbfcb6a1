"""A sweep's folder: its lock, its record, and which sweep a command continues.

Imported before Hydra starts: nothing heavy at the top.
"""

import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fer_lightning.config.compare import KEYS_IGNORED_ON_RESUME, config_hash
from fer_lightning.core.clock import now
from fer_lightning.core.errors import FERError, exit_with_error
from fer_lightning.core.files import (
    check_nothing_else,
    lock_folder,
    newest_unlocked,
    read_json_object,
    write_json,
)
from fer_lightning.core.program import pasteable, quoted_override
from fer_lightning.core.signals import check_stopped, install_exit_handlers
from fer_lightning.runs.placement import check_launcher, place_of
from fer_lightning.runs.workers import Worker

SCHEMA = 1
RECORD = "sweep.json"
SEARCH_RECORD = "search.json"  # what a search found so far
# The name by which Hydra knows the sweeper of hydra/sweeper=optuna.
SEARCH_SWEEPER = "hydra_plugins.fer_lightning.OptunaSweeper"
# Its settings that may differ when a search is continued.
_KEPT_OUT = ("n_trials", "n_jobs", "max_failure_rate")
_LONGEST_STOP = 120.0  # seconds; a job that is stopped saves, tests nothing, and closes its W&B run


def pruned_trials(folder: Path) -> dict[str, int]:
    """Return the jobs that a search in this folder ended early, and after how many epochs.

    Nothing if there was no search, or its record is damaged.
    """
    try:
        trials = (read_json_object(folder / SEARCH_RECORD) or {}).get("trials") or []
        pruned = {
            trial["number"]: int(trial["pruned_after"]) for trial in trials if trial["state"] == "pruned"
        }
    except (FERError, AttributeError, KeyError, TypeError, ValueError):
        return {}
    jobs = {path.parent.name for path in folder.glob("*/run.json")} if pruned else set()
    return {
        job: pruned[number]
        for job in jobs
        if (first := job.partition("_")[0]).isdigit() and (number := int(first)) in pruned
    }


def is_search(config: DictConfig) -> bool:
    """Return whether a command's sweeper is that of ``hydra/sweeper=optuna``."""
    return bool(config.hydra.sweeper.get("_target_") == SEARCH_SWEEPER)


def read_sweep(folder: Path) -> dict[str, Any] | None:
    """Read a sweep folder's record; None if there is none.

    Raises:
        FERError: If it is damaged.
    """
    remedy = f"remove that file, and repeat the sweep's command with resume=auto {sweep_dir_override(folder)}"
    try:
        record = read_json_object(folder / RECORD)
    except FERError as error:
        raise FERError(f"{error}; {remedy}") from error
    if record is None:
        return None
    if not isinstance(record.get("hash", ""), str):
        raise FERError(f"{folder / RECORD}: not the record of a sweep (hash is no text); {remedy}")
    for key in ("overrides", "hydra"):
        texts = record.get(key)
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise FERError(
                f"{folder / RECORD}: not the record of a sweep ({key} is no list of texts); {remedy}"
            )
    return record


def sweep_dir_override(folder: Path) -> str:
    """Return the override that names a sweep's folder, quoted as Hydra wants it."""
    return quoted_override("hydra.sweep.dir", str(folder))


def kept_overrides(overrides: Sequence[str]) -> list[str]:
    """Drop overrides that may differ when a sweep is continued; the order of the others matters."""
    return [
        override
        for override in overrides
        if not any(override.lstrip("+~").startswith((f"{key}=", f"{key}.")) for key in KEYS_IGNORED_ON_RESUME)
    ]


def sweep_hash(config: DictConfig) -> str:
    """Hash what defines a sweep's jobs: the common config, and the overrides in their order."""
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    common = config_hash({str(key): value for key, value in plain.items() if key != "hydra"})
    kept = [*kept_overrides(config.hydra.overrides.task), str(config.hydra.sweeper.get("_target_"))]
    if is_search(config):  # its space may come from a file
        sweeper = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
        assert isinstance(sweeper, dict)
        kept.append(json.dumps({key: value for key, value in sweeper.items() if key not in _KEPT_OUT}))
    return hashlib.sha256(json.dumps([common, kept]).encode()).hexdigest()[:16]


class Sweep:
    """The sweep of this process: its locked folder and record.

    Several processes may work on one search. Each locks the folder while it writes the record.

    Attributes:
        folder: The sweep folder.
        record: The content of ``sweep.json``.
        worker: This process among those of a search; None for other sweeps.

    Raises:
        FERError: If another process works in the folder, or it holds another sweep.
    """

    def __init__(self, folder: Path, config: DictConfig, *, resume: bool) -> None:
        self.folder = folder
        self._lock = self._lock_folder()
        before = read_sweep(folder)
        if before is None and not (resume and (folder / "multirun.yaml").is_file()):
            check_nothing_else(folder, setting="hydra.sweep.dir")
        overrides = list(config.hydra.overrides.task)
        if before is not None and not resume:
            raise FERError(
                f"{folder}: already holds a sweep ({before.get('state')}); continue it with resume=auto, "
                "or choose another hydra.sweep.dir"
            )
        if before is not None and before.get("hash") != sweep_hash(config):
            raise FERError(
                f"{folder}: holds another sweep ({' '.join(before['overrides'])}); repeat that, or give "
                f"{pasteable('resume', folder)} alone"
            )
        self.record = (before or {"schema": SCHEMA, "started": now()}) | {
            "state": "running",
            "overrides": [override for override in overrides if not override.startswith("resume=")],
            "hydra": [
                override
                for override in config.hydra.overrides.hydra
                if not override.startswith(("hydra.mode", "hydra.sweep."))
            ],
            "hash": sweep_hash(config),
            "resumed": [*before.get("resumed", []), now()] if before else [],
        }
        self.worker: Worker | None = None
        if is_search(config):
            self.record["n_trials"] = config.hydra.sweeper.n_trials
            self.worker = Worker(folder)
        write_json(folder / RECORD, self.record)
        if self.worker is not None:
            self._lock.release()

    def _lock_folder(self) -> FileLock:
        return lock_folder(
            self.folder,
            busy="another process runs this sweep; wait for it, or choose another hydra.sweep.dir",
            hint="choose another hydra.sweep.dir",
        )

    def wait_for_jobs(self) -> None:
        """Wait until no job runs: when stopped they save, and joblib would kill them first."""
        deadline = time.monotonic() + _LONGEST_STOP
        for lock in self.folder.glob("*/.lock"):
            with (
                suppress(Timeout, OSError),
                FileLock(lock).acquire(timeout=max(0, deadline - time.monotonic())),
            ):
                pass

    def leave(self) -> bool:
        """End this process's part; return whether the sweep is at its end, or other processes work on it."""
        if self.worker is None:
            return True
        self._lock.acquire()
        others = self.worker.others()
        self.worker.leave()
        if others:
            self._lock.release()
        return not others

    def end(self, state: str) -> None:
        """Record the final state, and unlock the folder; after ``leave``."""
        self.record |= {"state": state, "ended": now()}
        try:
            write_json(self.folder / RECORD, self.record)
        finally:
            self._lock.release()


_sweep: Sweep | None = None  # Hydra passes nothing from a callback to the command


def current_sweep() -> Sweep | None:
    """Return the sweep that this process runs."""
    return _sweep


def _unfinished_sweep(wanted: str) -> Path | None:
    """Find the newest sweep of a hash below ``outputs`` that did not finish and that no process runs."""
    unfinished = newest_unlocked(Path("outputs/sweeps").glob(f"*/{RECORD}"))
    return next((folder for folder, record in unfinished if record.get("hash") == wanted), None)


class SweepWatcher(Callback):
    """Hydra callback: opens a sweep's folder, new or to be continued, and records jobs that could not."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002 - hydra's signature
        """Choose the folder, before hydra writes to it.

        Hydra turns what a callback raises into a warning, so a mistake ends the command here.
        """
        global _sweep
        given = any(override.startswith("hydra.sweep.dir=") for override in config.hydra.overrides.hydra)
        resume = config.get("resume")
        try:
            folder = Path(config.hydra.sweep.dir)
            if resume == "auto":
                if not given:
                    folder = _unfinished_sweep(sweep_hash(config)) or folder
                before = read_sweep(folder) or {}
                wanted = config.hydra.sweeper.n_trials if is_search(config) else 0
                had = before.get("n_trials")
                grown = isinstance(wanted, int) and isinstance(had, int) and wanted > had
                if (before.get("state"), before.get("hash")) == (
                    "finished",
                    sweep_hash(config),
                ) and not grown:
                    print(f"{folder}: this sweep is finished, there is nothing to do")  # noqa: T201 - no log yet
                    sys.exit(0)
            check_launcher(config.hydra)
            _sweep = Sweep(folder, config, resume=resume == "auto")
            if place_of(config.hydra) == "joblib":
                install_exit_handlers(before_exit=_sweep.wait_for_jobs)
        except FERError as error:
            exit_with_error(error)
        # Jobs are composed again from these overrides.
        config.hydra.sweep.dir = str(folder)
        config.hydra.overrides.hydra.append(sweep_dir_override(folder))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:  # noqa: ARG002
        """Write a record for a job that failed before it could write one."""
        check_stopped()
        if config.hydra.mode == RunMode.MULTIRUN and isinstance(job_return._return_value, Exception):
            record_failed_job(config, job_return, config.hydra.job.num)


def record_failed_job(config: DictConfig, job_return: JobReturn, number: int) -> None:
    """Write the record of a job that failed, unless it has one.

    Args:
        config: The job's, with Hydra's own.
        job_return: With its error.
        number: The job's.
    """
    hydra = config.hydra
    if OmegaConf.is_missing(hydra.job, "num"):  # of a job that did not begin
        known: Any = HydraConfig.instance()  # that which ${hydra:...} refers to
        before = known.cfg
        with read_write(hydra), open_dict(hydra):
            hydra.job.num = number
            known.cfg = config
            hydra.runtime.output_dir = str(Path(hydra.sweep.dir, hydra.sweep.subdir).absolute())
            known.cfg = before
    folder = Path(hydra.runtime.output_dir)
    if (folder / "run.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    record: Mapping[str, Any] = {
        "schema": 1,
        "state": "failed",
        "reason": str(job_return._return_value),
        "overrides": list(job_return.overrides or []),
        "model": hydra.runtime.choices.get("model"),
        "job_num": number,
    }
    write_json(folder / "run.json", record)
