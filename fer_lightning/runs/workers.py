"""Processes that share one sweep folder, as in a search: who takes part, and who is dead."""

from pathlib import Path
from secrets import token_hex

from filelock import FileLock, Timeout

from fer_lightning.core.files import lock_file

_FOLDER = ".workers"


class Worker:
    """This process, as one of those that work in a folder.

    Attributes:
        name: Of no other process.

    Raises:
        FERError: If the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.name = token_hex(4)
        self._folder = folder / _FOLDER
        self._lock = lock_file(
            self._folder / self.name,
            guards=folder,
            busy="another process has this process's name",
            hint="choose another hydra.sweep.dir",
        )

    def is_alive(self, name: str) -> bool:
        """Return whether the process of this name still works; a killed one does not."""
        path = self._folder / name
        if name == self.name:
            return True
        if not path.is_file() or path.is_symlink():
            return False
        try:
            with FileLock(path).acquire(timeout=0):
                return False
        except Timeout:
            return True

    def others(self) -> list[str]:
        """List the other processes that still work."""
        names = sorted(path.name for path in self._folder.glob("*"))
        return [name for name in names if name != self.name and self.is_alive(name)]

    def leave(self) -> None:
        """End this process's part."""
        self._lock.release()
        (self._folder / self.name).unlink(missing_ok=True)
        for path in self._folder.glob("*"):
            if not self.is_alive(path.name):
                path.unlink(missing_ok=True)
        if not any(self._folder.glob("*")):
            self._folder.rmdir()
