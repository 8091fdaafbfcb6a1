"""Files that are whole or absent, whatever kills the process or fills the disk; locks; JSON."""

import json
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from filelock import FileLock, Timeout

from fer_lightning.core.errors import FERError

log = logging.getLogger(__name__)

_PARTIAL = re.compile(r"\.\w+\.(json|csv|jsonl|yaml|ckpt|npz|png|svg|pdf|html)\.\d+")


_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}  # what may block its reader for ever, or never end


def special_kind(path: Path) -> str:
    """Name what is neither a file nor a folder, such as ``a named pipe``; empty if the path is not special.

    A link counts as what it leads to; a path that does not exist or cannot be looked at is not special.
    """
    try:
        return _SPECIAL.get(stat.S_IFMT(path.stat().st_mode), "")
    except (OSError, ValueError):
        return ""


def check_not_special(path: Path, *, given: str = "") -> None:
    """Refuse a pipe, a socket or a device wherever a path is given.

    Args:
        path: Of a file or a folder; it may be missing.
        given: How the message names it, such as ``data.root=x``; empty for the path.

    Raises:
        FERError: With what it is.
    """
    if kind := special_kind(path):
        raise FERError(
            f"{given or path}: {kind}, expected a file or a folder; save its content to a file first"
        )


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the name of the file to an ``OSError``, which has none if it was raised by a write."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file, and give it the name once the disk has it.

    A reader sees the old or the new file, never half of one. If writing fails, the old one stays and nothing
    else is left. A killed process leaves a partial file, see ``remove_partials``.

    Raises:
        OSError: With the name of the file.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with naming(path):
        try:
            partial.unlink(missing_ok=True)
            with partial.open("xb") as file:  # follows no link of this name
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def remove_partials(folder: Path) -> None:
    """Remove files that killed processes left half-written in a run folder, which must be locked."""
    if not (folder / "run.json").is_file():
        return  # not a run folder: leave foreign dotfiles alone
    for place in (folder, folder / "figures", folder / "epochs"):
        for path in place.glob(".*"):
            if _PARTIAL.fullmatch(path.name) and path.is_file():
                path.unlink(missing_ok=True)


def check_nothing_else(folder: Path, *, setting: str) -> None:
    """Refuse a folder that holds files of the user, which a new run would overwrite.

    Args:
        folder: Without a record of ours; its ``.lock`` is ours.
        setting: What chooses another folder, for the message.

    Raises:
        FERError: With the first names.
    """
    names = sorted(path.name for path in folder.iterdir() if path.name != ".lock")
    if names:
        more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
        raise FERError(
            f"{folder}: not empty, and no run of this project ({', '.join(names[:3])}{more}); choose an "
            f"empty or new folder with {setting}=..."
        )


def write_atomically(path: Path, text: str) -> None:
    r"""Write a text as UTF-8, by ``replacing``; what has no UTF-8 is escaped as in JSON, ``\udce9``."""
    with replacing(path) as file:
        file.write(text.encode(errors="backslashreplace"))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain values as JSON, by ``replacing``; NaN is refused, since JSON has none."""
    write_atomically(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def read_json_object(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None if there is no such file.

    Raises:
        FERError: If the file cannot be read, or holds something else.
    """
    check_not_special(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise FERError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise FERError(f"{path}: holds a {type(content).__name__}, expected a JSON object")
    return content


def lock_file(path: Path, *, guards: Path, busy: str, hint: str) -> FileLock:
    """Lock a file for this process, without waiting; its folder is made if it does not exist.

    The lock belongs to the operating system: it is free once the process is dead, however it died.

    Args:
        path: The lock file.
        guards: The file or folder that it guards, which the messages name.
        busy: What to say if another process holds the lock.
        hint: What the user can do if the lock file cannot be written.

    Raises:
        FERError: If another process holds the lock, or the lock file cannot be written.
    """
    if path.is_symlink():  # opening a lock empties the file
        raise FERError(f"{path}: a symbolic link; put the file itself there, or remove it")
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FERError(f"{guards}: {busy}") from error
    except (OSError, NotImplementedError) as error:  # NotImplementedError: a file system without locks
        reason = getattr(error, "strerror", None) or error
        raise FERError(f"{guards}: cannot be written ({reason}); {hint}") from error
    return lock


def lock_folder(folder: Path, *, busy: str, hint: str) -> FileLock:
    """Make a folder and lock it by ``.lock`` in it; see ``lock_file``."""
    return lock_file(folder / ".lock", guards=folder, busy=busy, hint=hint)


def newest_unlocked(records: Iterable[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Read the unfinished records in folders that no process has locked, newest first.

    Args:
        records: JSON files with the key ``state``; damaged and finished ones are skipped.

    Returns:
        Each folder, locked while the caller looks at it, and its record.
    """
    for path in sorted(records, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            record = read_json_object(path)
        except FERError as error:
            log.warning("WARNING: %s; it is passed over", error)
            continue
        if record is None or record.get("state") == "finished" or (path.parent / ".lock").is_symlink():
            continue
        try:
            with FileLock(path.parent / ".lock").acquire(timeout=0):
                yield path.parent, record
        except (Timeout, OSError):
            continue
