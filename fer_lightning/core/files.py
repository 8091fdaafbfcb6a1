"""Files that are whole or absent, whatever kills the process or fills the disk."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_PARTIAL = re.compile(r"\.\w+\.(json|csv|jsonl|yaml|ckpt|npz|png|html)\.\d+")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make an ``OSError`` name the file that it is about: one raised while writing knows none."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file beside its place, and rename it there once the disk has it.

    A reader sees the old or the new file, never half of one; if writing fails, the old one stays and nothing
    else is left. Who is killed leaves a partial file, see ``remove_partials``.

    Raises:
        OSError: With the name of the file.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with naming(path):
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def remove_partials(folder: Path) -> None:
    """Remove what killed processes left half-written in a run's folder, while nobody else writes there."""
    if not (folder / "run.json").is_file():
        return  # somebody's home, perhaps, where .zcompdump-host-5.8 is whole
    for place in (folder, folder / "figures", folder / "epochs"):
        for path in place.glob(".*"):
            if _PARTIAL.fullmatch(path.name) and path.is_file():
                path.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a text as UTF-8, by ``replacing``."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain values as JSON, by ``replacing``; NaN is refused, since JSON has none."""
    write_atomically(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
