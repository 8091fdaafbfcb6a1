"""The folder of an export: complete or absent, never over files of the user."""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import check_not_special, naming

CARD = "README.md"
_MARK = "library_name: fer_lightning"  # in the head of every card


@contextmanager
def export_folder(folder: Path, names: Collection[str]) -> Iterator[Path]:
    """Give a folder to write to, whose files get their place at the end, if nothing fails.

    Args:
        folder: It may hold an earlier export of the same kind, which is replaced.
        names: The files of the export.

    Raises:
        FERError: If the folder holds other files, is a file, or cannot be written.
    """
    check_writable(folder, names)
    waiting = folder.with_name(f".{folder.name}.{os.getpid()}")
    with naming(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(waiting, ignore_errors=True)
        waiting.mkdir()
    try:
        yield waiting
        with naming(folder):
            _move(waiting, folder, names)
    finally:
        shutil.rmtree(waiting, ignore_errors=True)


def check_writable(folder: Path, names: Collection[str]) -> None:
    """Refuse a folder with files that an export of this kind would not write.

    Raises:
        FERError: With the first names.
    """
    check_not_special(folder, given=f"--out {folder}")
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise FERError(f"--out {folder}: a file, expected a folder")
    found = sorted(path.name for path in folder.iterdir())
    foreign = [name for name in found if name not in names]
    if not foreign and found and not _is_marked(folder / CARD):
        foreign = found
    if foreign:
        more = f" and {len(foreign) - 3:,} more" if len(foreign) > 3 else ""
        raise FERError(
            f"--out {folder}: holds files that are not of such an export "
            f"({', '.join(foreign[:3])}{more}); choose an "
            "empty or new folder"
        )


def _is_marked(card: Path) -> bool:
    try:
        with card.open(encoding="utf-8", errors="replace") as file:
            return _MARK in file.read(500)
    except OSError:
        return False


def _move(waiting: Path, folder: Path, names: Collection[str]) -> None:
    """Put the files in their place: by one renaming if the folder is new."""
    if not folder.exists():
        waiting.rename(folder)
        return
    folder.joinpath(CARD).unlink(
        missing_ok=True
    )  # the new one comes last: it says that the others belong together
    for name in sorted(names, key=lambda name: name == CARD):
        if (waiting / name).exists():
            (waiting / name).replace(folder / name)
