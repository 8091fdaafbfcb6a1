"""Zips and tars, listed like a folder after checking that they are harmless."""

from collections.abc import Callable
from pathlib import Path

from fer_lightning.core.errors import FERError
from fer_lightning.core.text import writable
from fer_lightning.data.readers.files import MAX_DEPTH, File, Folder
from fer_lightning.data.readers.leftovers import is_ignored

MAX_MEMBERS = 2_000_000  # each takes memory; AffectNet has one million images


class Tree:
    """The tree of folders that the members of an archive make.

    Args:
        path: The archive.
        kind: ``zip`` or ``tar``.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self.where = writable(str(path))
        self.root = Folder(self.where)
        self._kind = kind
        self._seen: set[str] = set()

    def place(self, name: str) -> str:
        """Return the place of a member, to name in a message."""
        return f"{self.where}: {writable(name)}"

    def check_number(self, number: int) -> None:
        """Refuse an archive of more than ``MAX_MEMBERS`` members."""
        if number > MAX_MEMBERS:
            raise FERError(f"{self.where}: more than {MAX_MEMBERS:,} files; split it, or give a folder")

    def add(self, name: str, *, is_folder: bool, make: Callable[[str], File], harm: str = "") -> None:
        """Add a member.

        Args:
            name: Its path within the archive.
            is_folder: Whether it is a folder.
            make: Describes the file that is at the given place.
            harm: Why it is refused, whatever its name; empty if it is harmless.

        Raises:
            FERError: If the path leads out of the archive, is too deep or occurs twice, or if there is harm.
        """
        parts = [part for part in name.split("/") if part not in ("", ".")]
        where = self.place(name)
        if name.startswith("/") or ".." in parts or name[1:2] == ":":
            raise FERError(f"{where}: a path outside the {self._kind}; do not trust this file")
        if harm:
            raise FERError(f"{where}: {harm}")
        if len(parts) > MAX_DEPTH:
            raise FERError(
                f"{self.where}: {writable(name)[:60]}...: {len(parts):,} folders deep, expected at most "
                f"{MAX_DEPTH}"
            )
        if not parts:  # an empty name, or one that begins with a NUL byte
            return
        path = "/".join(parts)
        if path in self._seen and not is_folder:
            raise FERError(f"{where}: occurs twice in the {self._kind}; pack it again")
        self._seen.add(path)
        if any(is_ignored(part) for part in parts):
            return
        folder = self.root
        for level, part in enumerate(map(writable, parts if is_folder else parts[:-1]), 1):
            if part not in folder.folders:
                inside = writable("/".join(parts[:level]))
                folder.folders[part] = Folder(f"{self.where}: {inside}")
            folder = folder.folders[part]
        if not is_folder:
            folder.files[writable(parts[-1])] = make(where)
