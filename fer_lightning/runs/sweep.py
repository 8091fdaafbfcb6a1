"""A sweep's folder: its lock and record, how it is continued, and the summary over its jobs.

Hydra skips ``on_multirun_end`` when a job fails, so the summary is written when the command ends, however it
ends. Imported before hydra starts: nothing heavy at the top.
"""

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fer_lightning.config.resolve import CONF, KEYS_IGNORED_ON_RESUME, config_hash
from fer_lightning.core.errors import FERError, exit_with_error
from fer_lightning.core.files import write_json
from fer_lightning.core.signals import RunStopped, check_stopped, install_exit_handlers, stop_requested
from fer_lightning.runs.folder import now

SCHEMA = 1
RECORD = "sweep.json"
_LONGEST_STOP = 120.0  # seconds; a job that is stopped saves, tests nothing, and closes its W&B run

# What is followed of a record that may be a stranger's: no option (--config-dir), callback or search path.
_SETTING = re.compile(r"[+~]*(?!hydra\b)[A-Za-z_]\w*([./]\w+)*(=.*)?", re.DOTALL)
_ELSEWHERE = re.compile(r"(.*\.)?(\w*_dir|entity)")  # where a run writes, and to whom W&B shows it
_HARMLESS = re.compile(
    r"\+?hydra(/launcher|/sweeper|/sweeper/sampler"
    r"|\.launcher\.(n_jobs|timeout_min|mem_gb|cpus_per_task|gpus_per_node|tasks_per_node|nodes|partition)"
    r"|\.sweeper\.(n_trials|n_jobs|direction|max_batch_size|sampler\.seed|params\.[\w.]+))=[^{}$/\\]*"
)


def jobs_at_once(hydra: DictConfig, num_cores: int) -> int:
    """Count the jobs that run side by side: several under ``hydra/launcher=joblib``, else one.

    Args:
        hydra: Hydra's own config.
        num_cores: What ``n_jobs=-1`` stands for; -2 leaves one of them, and so on, as joblib has it.
    """
    if hydra.mode != RunMode.MULTIRUN or not str(hydra.launcher.get("_target_")).endswith(".JoblibLauncher"):
        return 1
    num_jobs = int(hydra.launcher.n_jobs)
    return max(1, num_jobs if num_jobs > 0 else num_cores + 1 + num_jobs)


def read_sweep(folder: Path) -> dict[str, Any] | None:
    """Read a sweep folder's record; None where there is none.

    Raises:
        FERError: If it is damaged.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise FERError(f"{path}: unreadable ({error})") from error
    lists = (record.get(key) for key in ("overrides", "hydra")) if isinstance(record, dict) else (None,)
    if not all(isinstance(part, list) and all(isinstance(text, str) for text in part) for part in lists):
        raise FERError(f"{path}: not the record of a sweep")
    assert isinstance(record, dict)
    return record


def expand_resume(arguments: Sequence[str]) -> list[str]:
    """Turn ``resume=FOLDER`` of a sweep into the command that began it, to be continued.

    Args:
        arguments: Of the command.

    Ends the command with a sentence where further overrides are given, which the sweep may not have had.
    """
    named = [
        argument.partition("=")[2].strip("'\"") for argument in arguments if argument.startswith("resume=")
    ]
    folder = Path(named[-1]).expanduser() if named else Path()
    try:
        record = read_sweep(folder) if named else None
    except FERError as error:
        exit_with_error(error)
    if record is None:
        return list(arguments)
    others = [
        argument
        for argument in arguments
        if argument not in ("-m", "--multirun") and not argument.startswith(("resume=", "hydra.", "hydra/"))
    ]
    if others and _kept(others) != _kept(record["overrides"]):
        begun = " ".join(record["overrides"])
        exit_with_error(
            FERError(
                f"resume={folder}: a sweep goes on as it was begun ({begun}); leave out {' '.join(others)}"
            )
        )
    hydra = [argument for argument in arguments if argument.startswith(("hydra.", "hydra/"))]
    try:
        _check_followed(folder, record["overrides"], [] if hydra else record["hydra"])
    except FERError as error:
        exit_with_error(error)
    return ["-m", *record["overrides"], *(hydra or record["hydra"]), _in_folder(folder), "resume=auto"]


def _check_followed(folder: Path, overrides: Sequence[str], hydra: Sequence[str]) -> None:
    """Refuse what a stranger's record would have this machine run, or read out of its environment.

    Raises:
        FERError: If an override is no setting of ours, or one of hydra's that can name a program.
    """
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        option_elsewhere = (CONF / key).is_dir() and ("/" in value or "\\" in value)  # model=../../evil
        led = not _SETTING.fullmatch(override) or _ELSEWHERE.fullmatch(key)
        if led or "${" in override or option_elsewhere:
            raise FERError(
                f"{folder / RECORD}: {override} is not followed out of a file; if this sweep is yours, "
                f"repeat its command with resume=auto and {_in_folder(folder)}"
            )
    for override in hydra:
        if not _HARMLESS.fullmatch(override):
            raise FERError(
                f"{folder / RECORD}: {override} can name a program to run, and is not followed out of a "
                f"file; if this sweep is yours, repeat its command with resume=auto and {_in_folder(folder)}"
            )


def _in_folder(folder: Path) -> str:
    quoted = str(folder).replace("\\", "\\\\").replace('"', '\\"')
    return f'hydra.sweep.dir="{quoted}"'


def _kept(overrides: Sequence[str]) -> list[str]:
    """Leave out the overrides that may differ when a sweep is continued; the order numbers the jobs."""
    return [
        override
        for override in overrides
        if not any(override.lstrip("+~").startswith((f"{key}=", f"{key}.")) for key in KEYS_IGNORED_ON_RESUME)
    ]


def sweep_hash(config: DictConfig) -> str:
    """Hash what a sweep's jobs are: the config around them, and the overrides in their order."""
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    common = config_hash({str(key): value for key, value in plain.items() if key != "hydra"})
    kept = [*_kept(config.hydra.overrides.task), str(config.hydra.sweeper.get("_target_"))]
    return hashlib.sha256(json.dumps([common, kept]).encode()).hexdigest()[:16]


class _Sweep:
    """The sweep of this process: its locked folder and record.

    Raises:
        FERError: If another process works in the folder, or it holds another sweep.
    """

    def __init__(self, folder: Path, config: DictConfig, *, resume: bool) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / ".lock")
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise FERError(
                f"{folder}: another process runs this sweep; wait for it, or choose another hydra.sweep.dir"
            ) from error
        except (OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or error
            raise FERError(
                f"{folder}: cannot be written ({reason}); choose another hydra.sweep.dir"
            ) from error
        before = read_sweep(folder)
        overrides = list(config.hydra.overrides.task)
        if before is not None and not resume:
            raise FERError(
                f"{folder}: already holds a sweep ({before.get('state')}); continue it with resume=auto, "
                "or choose another hydra.sweep.dir"
            )
        if before is not None and before.get("hash") != sweep_hash(config):
            raise FERError(
                f"{folder}: holds another sweep ({' '.join(before['overrides'])}); repeat that, or give "
                f"resume={folder} alone"
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
        write_json(folder / RECORD, self.record)

    def wait_for_jobs(self) -> None:
        """Wait until no job is at work: stopped, they save, and joblib would kill them before that."""
        deadline = time.monotonic() + _LONGEST_STOP
        for lock in self.folder.glob("*/.lock"):
            with (
                suppress(Timeout, OSError),
                FileLock(lock).acquire(timeout=max(0, deadline - time.monotonic())),
            ):
                pass

    def end(self, state: str) -> None:
        """Write how it ended, and free the folder."""
        self.record |= {"state": state, "ended": now()}
        try:
            write_json(self.folder / RECORD, self.record)
        finally:
            self._lock.release()


_sweep: _Sweep | None = None  # hydra hands nothing from a callback to the command


def _unfinished_sweep(wanted: str) -> Path | None:
    """Find the newest sweep of a hash below ``outputs`` that did not finish and is not at work."""
    records = Path("outputs/sweeps").glob(f"*/{RECORD}")
    for path in sorted(records, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            record = read_sweep(path.parent)
        except FERError:  # a damaged record is no candidate
            continue
        if record is None or record.get("hash") != wanted or record.get("state") == "finished":
            continue
        try:
            with FileLock(path.parent / ".lock").acquire(timeout=0):
                return path.parent
        except (Timeout, OSError):
            continue
    return None


class SweepWatcher(Callback):
    """Hydra callback: opens a sweep's folder, new or to be continued, and records jobs that could not."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002 - hydra's signature
        """Choose the folder, before hydra writes to it.

        Hydra makes a warning of what a callback raises, so a mistake is told here and ends the command.
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
                if (before.get("state"), before.get("hash")) == ("finished", sweep_hash(config)):
                    print(f"{folder}: this sweep is finished, there is nothing to do")  # noqa: T201 - no log yet
                    sys.exit(0)
            _sweep = _Sweep(folder, config, resume=resume == "auto")
            if jobs_at_once(config.hydra, os.cpu_count() or 1) > 1:
                install_exit_handlers(first=_sweep.wait_for_jobs)
        except FERError as error:
            exit_with_error(error)
        # Jobs are composed anew from these overrides.
        config.hydra.sweep.dir = str(folder)
        config.hydra.overrides.hydra.append(_in_folder(folder))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:  # noqa: ARG002
        """Write a record for a job that failed before it could write one."""
        check_stopped()
        folder = Path(config.hydra.runtime.output_dir)
        error = job_return._return_value
        if (
            config.hydra.mode != RunMode.MULTIRUN
            or not isinstance(error, Exception)
            or (folder / "run.json").exists()
        ):
            return
        folder.mkdir(parents=True, exist_ok=True)
        record: Mapping[str, Any] = {
            "schema": 1,
            "state": "failed",
            "reason": str(error),
            "overrides": list(job_return.overrides or []),
            "model": config.hydra.runtime.choices.get("model"),
            "job_num": config.hydra.job.num,
        }
        write_json(folder / "run.json", record)


@contextmanager
def recorded_sweep() -> Iterator[None]:
    """Around the command: record how its sweep ended, if it ran one, and summarise what its jobs left."""
    state = "failed"
    try:
        yield
        state = "finished"
    except BaseException as error:
        if stop_requested() or isinstance(error, RunStopped):
            state = "interrupted"
        raise
    finally:
        if _sweep is not None:
            try:
                summarise_sweep(_sweep.folder)
                _sweep.end(state)
            except (FERError, OSError) as error:
                exit_with_error(FERError(f"the sweep's summary could not be written: {error}"))
            if state == "interrupted":
                print(f"stopped; to continue: python train.py resume={_sweep.folder}")  # noqa: T201


def summarise_sweep(folder: Path) -> None:
    """Write ``summary.csv`` and the page that compares a sweep's jobs; show the table."""
    jobs = [path.parent for path in folder.glob("*/run.json")]
    if not jobs:
        return
    from fer_lightning.core.terminal import log, show, start_terminal
    from fer_lightning.report.page import write_comparison
    from fer_lightning.report.tables import summarise_runs, summary_table, write_summary_csv

    start_terminal()
    jobs.sort(key=lambda job: int(job.name.split("_")[0]) if job.name.split("_")[0].isdigit() else -1)
    rows = summarise_runs(jobs)
    write_summary_csv(rows, folder / "summary.csv")
    page = write_comparison(jobs, folder / "report.html")
    show(summary_table(rows))
    log.info("sweep report: %s", page)
