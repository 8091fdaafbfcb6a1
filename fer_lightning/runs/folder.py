"""A run's folder: its lock and its record."""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from fer_lightning.core.clock import now
from fer_lightning.core.errors import FERError
from fer_lightning.core.files import (
    check_not_special,
    check_nothing_else,
    lock_folder,
    read_json_object,
    remove_partials,
    write_json,
)
from fer_lightning.core.program import pasteable, typed_command

log = logging.getLogger(__name__)

SCHEMA = 1
# What others read, a resumed run and pages; null is allowed.
_TYPES: dict[str, type] = dict.fromkeys(
    ("state", "reason", "started", "ended", "name", "command", "dataset", "selected_by", "checkpoint"), str
) | {
    "overrides": list,
    "resumed": list,
    "durations": dict,
    "segments": list,
    "wandb": dict,
    "choices": dict,
    "data": dict,
    "machine": dict,
    "git": dict,
    "versions": dict,
    "limited": list,
    "ensemble": dict,
}
_NEVER_NULL = ("overrides", "resumed", "durations", "segments", "wandb", "choices")
_NUMBERS = ("num_parameters", "images_per_s", "best_epoch", "best_score", "seed", "job_num", "num_threads")
_WRITTEN_IN_PLACE = (".lock", "metrics.csv", "train.log", "eval.log")
State = Literal["running", "finished", "failed", "interrupted"]


# What one process contributes to a run.
SEGMENT_KEYS = {"git": "commit", "versions": "version of a package", "machine": "machine"}


def _differing(one: Any, other: Any) -> tuple[str, str]:
    """Describe two dicts by the values in which they differ."""
    pair = [each if isinstance(each, dict) else {"": each} for each in (one, other)]
    keys = [key for key in {**pair[0], **pair[1]} if pair[0].get(key) != pair[1].get(key)]
    before, after = (", ".join(f"{key} {each.get(key)}".strip() for key in keys) for each in pair)
    return before, after


def _check_contents(folder: Path) -> None:
    """Refuse a run folder that leads elsewhere, since a run writes into it: it may be another user's.

    What W&B keeps in ``wandb/`` has links of its own.

    Raises:
        FERError: If it holds a link that leads out of it, a pipe, a socket or a device.
    """
    home, waiting = folder.resolve(), [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                path = Path(entry.path)
                if entry.is_symlink():
                    if not Path(os.path.realpath(path)).is_relative_to(home):
                        raise FERError(
                            f"{path}: a symbolic link that leads out of the run folder; put what it leads to "
                            "there, or remove it"
                        )
                elif entry.is_dir():
                    waiting += [] if path == folder / "wandb" else [path]
                else:
                    check_not_special(path)


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read a folder's ``run.json``; None if there is none.

    Raises:
        FERError: If it is damaged.
    """
    path = folder / "run.json"
    record = read_json_object(path)
    if record is not None:
        check_record(path, record)
    return record


def check_record(path: Path, record: Mapping[str, Any]) -> None:
    """Check the types in the content of ``run.json``.

    Raises:
        FERError: If one is wrong, with the key.
    """
    for key, kind in _TYPES.items():
        value = record.get(key, kind())
        if not isinstance(value, kind) and (value is not None or key in _NEVER_NULL):
            names: dict[Any, str] = {str: "text", list: "a list", dict: "a dict"}
            raise FERError(f"{path}: {key} is {str(record[key])[:200]!r}, expected {names[kind]}")
    for key in _NUMBERS:
        if not isinstance(record.get(key), int | float | None):
            raise FERError(f"{path}: {key} is {str(record[key])[:200]!r}, expected a number")
    if not all(isinstance(segment, dict) for segment in record.get("segments", [])):
        raise FERError(f"{path}: segments are {str(record['segments'])[:200]!r}, expected dicts")
    if not all(isinstance(seconds, int | float) for seconds in (record.get("durations") or {}).values()):
        raise FERError(f"{path}: durations are {record['durations']!r}, expected seconds")


class RunFolder:
    """A run's folder, locked until the run ends or the process dies.

    A ``run.json`` that says ``running`` in a folder that is not locked means that the run was killed.

    Args:
        folder: Made if it does not exist.

    Raises:
        FERError: If another process works in the folder, or it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in _WRITTEN_IN_PLACE:  # a link could lead to any file of the user's
            if (folder / name).is_symlink():
                raise FERError(f"{folder / name}: a symbolic link; put the file itself there, or remove it")
        self._lock = lock_folder(
            folder,
            busy="another process is working in this folder; choose another hydra.run.dir",
            hint="choose another hydra.run.dir",
        )
        try:
            if any((folder / name).exists() for name in ("run.json", "config.yaml")):
                _check_contents(folder)
            remove_partials(folder)
            self.record: dict[str, Any] = self._read_record()
        except FERError:
            self._lock.release()
            raise
        self._started = time.perf_counter()

    def _read_record(self) -> dict[str, Any]:
        try:
            return read_record(self.folder) or {}
        except FERError as error:
            raise FERError(
                f"{error}; remove that file, and continue with {pasteable('resume', self.folder)}: weights "
                "and metrics are in other files"
            ) from error

    @property
    def is_new(self) -> bool:
        """Whether no run has written its record here."""
        return not self.record

    def claim(self) -> None:
        """Write the beginning of a record into a new folder, so that a killed start is known as ours.

        Raises:
            FERError: If the folder holds other files.
        """
        if self.is_new:
            try:
                check_nothing_else(self.folder, setting="hydra.run.dir")
            except FERError:
                self.discard()
                raise
            self.update(schema=SCHEMA, state="running", reason=None, started=now())

    def start(self, **facts: Any) -> None:
        """Write the record of a start: the first, or that of a continuation.

        Each is a segment of the run, with the code, versions and machine that ran it. Those of the record
        itself are the first segment's.

        Args:
            **facts: Of the run; ``git``, ``versions`` and ``machine`` of this segment.
        """
        segment = {key: facts[key] for key in SEGMENT_KEYS if key in facts}
        segments = [*self.record.get("segments", []), {"started": now(), **segment}]
        facts |= {key: segments[0][key] for key in SEGMENT_KEYS if key in segments[0]}
        for key, what in SEGMENT_KEYS.items():
            if len(segments) > 1 and segments[-1].get(key) != segments[-2].get(key):
                log.warning(
                    "WARNING: continued with another %s than before: %s, now %s (run.json lists both)",
                    what,
                    *_differing(segments[-2].get(key), segments[-1].get(key)),
                )
        self.update(
            segments=segments,
            schema=SCHEMA,
            state="running",
            reason=None,
            command=typed_command(),
            started=self.record.get("started", now()),
            resumed=[*self.record.get("resumed", []), now()] if "command" in self.record else [],
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

    def try_update(self, **facts: Any) -> None:
        """Add facts to ``run.json`` while something fails; a full disk must not hide why."""
        with suppress(OSError):
            self.update(**facts)

    def discard(self) -> None:
        """Free the folder of a run that did not start, and leave nothing in a new one."""
        self._lock.release()
        if self.is_new or "command" not in self.record:
            with suppress(OSError):
                (self.folder / "run.json").unlink(missing_ok=True)
                (self.folder / ".lock").unlink(missing_ok=True)

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
