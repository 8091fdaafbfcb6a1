"""A run's folder: its lock, its record, and the search for one to resume."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NoReturn

from filelock import FileLock, Timeout

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import remove_partials, write_json

SCHEMA = 1
_KINDS: dict[str, type] = {"overrides": list, "resumed": list, "durations": dict}  # read again by a run
_WRITTEN_IN_PLACE = (".lock", "metrics.csv", "train.log", "eval.log")
State = Literal["running", "finished", "failed", "interrupted"]


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read a folder's ``run.json``; None where there is none."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"), parse_constant=_refuse)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise FERError(f"{folder / 'run.json'}: unreadable ({error})") from error
    if not isinstance(record, dict):
        raise FERError(f"{folder / 'run.json'}: expected a JSON object")
    for key, kind in _KINDS.items():
        if not isinstance(record.get(key, kind()), kind):
            raise FERError(f"{folder / 'run.json'}: {key} is {record[key]!r}, expected a {kind.__name__}")
    if not all(isinstance(seconds, int | float) for seconds in record.get("durations", {}).values()):
        raise FERError(f"{folder / 'run.json'}: durations are {record['durations']!r}, expected seconds")
    return record


def now() -> str:
    """Give the time as an ISO date with its zone, to the millisecond."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


class Run:
    """A run's folder, locked for as long as the process lives.

    The lock is the operating system's, so it is free once the process is dead however it died; a
    ``run.json`` that says ``running`` beside a free lock means that the run was killed.

    Args:
        folder: Made if it does not exist.

    Raises:
        FERError: If another process works in the folder, or it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in _WRITTEN_IN_PLACE:  # a stranger's folder may lead them to any file of the user's
            if (folder / name).is_symlink():
                raise FERError(f"{folder / name}: a symbolic link; put the file itself there, or remove it")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / ".lock")
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise FERError(
                f"{folder}: another process is working in this folder; choose another hydra.run.dir"
            ) from error
        except (OSError, NotImplementedError) as error:  # NotImplementedError: a file system without locks
            reason = getattr(error, "strerror", None) or error
            raise FERError(f"{folder}: cannot be written ({reason}); choose another hydra.run.dir") from error
        remove_partials(folder)
        self.record: dict[str, Any] = read_record(folder) or {}
        self._started = time.perf_counter()

    @property
    def is_new(self) -> bool:
        """Whether no run has written its record here."""
        return not self.record

    def start(self, **facts: Any) -> None:
        """Write the first record."""
        self.update(
            schema=SCHEMA,
            state="running",
            reason=None,
            command=" ".join([Path(sys.executable).name, *sys.argv]),
            started=self.record.get("started", now()),
            resumed=[*self.record.get("resumed", []), now()] if self.record else [],
            **facts,
        )

    def update(self, **facts: Any) -> None:
        """Add facts to ``run.json``."""
        record = self.record | facts
        write_json(self.folder / "run.json", record)
        self.record = record

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage of the run into ``durations``; a resumed run adds to it."""
        started = time.perf_counter()
        try:
            yield
        except BaseException:
            with suppress(OSError):  # a full disk must not hide why the stage ended
                self._add_duration(name, started)
            raise
        self._add_duration(name, started)

    def _add_duration(self, name: str, started: float) -> None:
        durations = dict(self.record.get("durations", {}))
        durations[name] = round(durations.get(name, 0.0) + time.perf_counter() - started, 3)
        self.update(durations=durations)

    def release(self) -> None:
        """Free the folder and leave its record as it is; further calls do nothing."""
        self._lock.release()

    def end(self, state: State, reason: str | None = None) -> None:
        """Write how the run ended and free the folder; further calls do nothing."""
        if not self._lock.is_locked:
            return
        durations = dict(self.record.get("durations", {}))
        durations["total_s"] = round(durations.get("total_s", 0.0) + time.perf_counter() - self._started, 3)
        try:
            self.update(state=state, reason=reason, ended=now(), durations=durations)
        finally:
            self._lock.release()


def unfinished_runs(outputs: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Find the single runs below ``outputs`` that did not finish and are not at work, newest first."""
    records = sorted(outputs.glob("*/*/run.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in records:
        try:
            record = read_record(path.parent)
        except FERError:  # a damaged record is no candidate
            continue
        if record is None or record.get("state") == "finished":
            continue
        lock = FileLock(path.parent / ".lock")
        try:
            with lock.acquire(timeout=0):
                yield path.parent, record
        except (Timeout, OSError):
            continue
