"""Terminal output and the run's log: lines and tables."""

import logging
import multiprocessing
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import lightning.pytorch  # noqa: F401 - sets its loggers' levels when first imported; ours must come after
from rich.console import Console, RenderableType
from rich.text import Text

from fer_lightning.core.errors import printable
from fer_lightning.core.progress import clear_progress
from fer_lightning.core.stdio import make_stdio_robust

log = logging.getLogger("fer_lightning")


class _Formatter(logging.Formatter):
    """Escapes control characters, for the terminal now and for a reader of the log later."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


_FORMAT = _Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")


def _make_console() -> Console:
    # Away from a terminal rich would fold lines at 80 columns.
    return Console(width=None if sys.stdout.isatty() else 120, highlight=False)


console = _make_console()

COMMAND = "  "  # how a line begins that holds a command alone


class _TerminalHandler(logging.Handler):
    """Prints log lines through rich, so that they appear above a progress bar."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(_Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else ""
        clear_progress()
        for line in self.format(record).split("\n"):
            # Words are not broken, and neither is a command, which is indented: it is to be pasted.
            is_wrapped = console.is_terminal and not line.startswith(COMMAND)
            console.print(Text(line, style=style, overflow="ignore"), soft_wrap=not is_wrapped)


def start_terminal() -> None:
    """Send the package's log lines to the terminal, and Lightning's own only where they warn."""
    logging.raiseExceptions = False  # W&B's log on a full disk would print a traceback for each of its lines
    log.setLevel(logging.INFO)
    log.propagate = False
    if not any(isinstance(handler, _TerminalHandler) for handler in log.handlers):
        log.addHandler(_TerminalHandler())
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning 2.6 calls torch's pytree in a way that torch 2.14 deprecates.
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*", category=FutureWarning)
    # Repeated in each process of ddp_spawn; it is about temporary checkpoints of Lightning.
    warnings.filterwarnings("ignore", message=".*weights_only. was not set.*")
    # trainer=cpu is a choice.
    warnings.filterwarnings("ignore", message="GPU available but not used")
    # On the login node of a cluster; docs/scaling.md says how to use srun.
    warnings.filterwarnings("ignore", message="The `srun` command is available")
    # We log by epoch on purpose.
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")


class _LogFile(logging.FileHandler):
    """A log that a full disk ends, in one line on the terminal, and not the run."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(_FORMAT)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - logging's
        """Say it once, and write no more."""
        error = sys.exc_info()[1]
        log.removeHandler(self)
        log.warning("%s is not written any more: %s", self.baseFilename, getattr(error, "strerror", error))

    def close(self) -> None:
        """Close the file, whatever could not be written to it."""
        with suppress(OSError):
            super().close()


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Append the package's log lines, with times, to a file."""
    handler = _LogFile(path)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


def follow_run(folder: Path) -> None:
    """Print and log in a process that ddp_spawn started: it inherits no handler."""
    if log.handlers or multiprocessing.parent_process() is None:
        return
    make_stdio_robust()
    start_terminal()
    log.addHandler(_LogFile(folder / "train.log"))  # for the whole process


def show(renderable: RenderableType) -> None:
    """Show a table on the terminal, and write it to the log as plain text."""
    clear_progress()
    console.print(renderable)
    plain = Console(width=120, highlight=False, no_color=True)
    with plain.capture() as capture:
        plain.print(renderable)
    write_to_log(f"\n{capture.get()}")


def write_to_log(text: str) -> Path | None:
    """Write a text to the run's log alone; return its file, None if there is none or its disk is full."""
    files = [handler for handler in log.handlers if isinstance(handler, logging.FileHandler)]
    for handler in files:
        handler.emit(log.makeRecord(log.name, logging.INFO, "", 0, text, (), None))
    written = [Path(handler.baseFilename) for handler in files if handler in log.handlers]
    return written[-1] if written else None
