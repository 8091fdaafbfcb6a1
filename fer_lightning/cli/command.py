"""Around ``main`` of train.py and eval.py: whatever a user mistyped ends as one sentence on stderr.

And no time goes into collecting garbage where there is none, while they import and when they end.

Imported before anything else by the commands, so it must stay cheap: hydra and omegaconf only.
"""

import gc
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_lightning.config.resolve import CONF
from fer_lightning.core.errors import FERError, exit_with_error
from fer_lightning.core.signals import check_stopped

_FULL_ERROR = "HYDRA_FULL_ERROR"


@contextmanager
def command(config_name: str) -> Iterator[None]:
    """Run a hydra command; a mistake in it becomes ``error: ...`` and exit code 1.

    Hydra would print its own words, of the config's inside, and hints that lead a user astray (``modle=cnn``:
    "To append to your config use +modle=cnn"). Where HYDRA_FULL_ERROR is set everything is raised as it is.

    Args:
        config_name: Of the command's config, such as ``train``.
    """
    make_stdio_robust()
    if {"-h", "--help"} & {*sys.argv[1:]}:
        sys.stdout.write(f"{help_text(config_name)}\n")
        sys.exit()
    # argparse takes no override after -m where others stand before it.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in ("-m", "--multirun"))
    if os.environ.get(_FULL_ERROR) == "1":
        yield
        return
    try:
        os.getcwd()  # noqa: PTH109 - hydra asks it like this
        os.environ[_FULL_ERROR] = "1"  # hydra then raises instead of printing
        yield
    except Exception as error:
        check_stopped()
        sentence = _put(error, config_name)
        if sentence is None:
            raise  # a bug of ours, which wants its traceback
        exit_with_error(FERError(sentence))
    finally:
        os.environ.pop(_FULL_ERROR, None)


@contextmanager
def gc_paused() -> Iterator[None]:
    """Collect no garbage before ``resume_gc``, nor at the interpreter's end.

    Both times Python would search all that torch and Lightning consist of, over and over, and find nothing:
    two seconds of a command on a slow machine.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # hidden from the last search
        gc.enable()


def resume_gc() -> None:
    """Collect garbage from here on, but for what a command has imported so far, which stays."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def help_text(config_name: str) -> str:
    """Write what ``--help`` prints.

    Hydra would compose the config for it and list every group there is, its own too: a second more.

    Args:
        config_name: Of the command's config, such as ``train``.
    """
    settings = OmegaConf.load(CONF / "hydra" / "help" / f"{config_name}.yaml")
    return str(OmegaConf.create({"hydra": {"help": settings}}).hydra.help.template)


def _put(error: Exception, config_name: str) -> str | None:
    """Put an error in a sentence; None where it is not of a user's making."""
    if isinstance(error, FERError):
        return str(error)
    if isinstance(error, FileNotFoundError) and error.filename is None:
        return "the folder in which this command was started does not exist any more; change to another (cd)"
    if isinstance(error, HydraException | OmegaConfBaseException | ValueError):
        from fer_lightning.config.overrides import explain_override  # needed by mistakes alone

        return explain_override(error, config_name)
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"{error.filename}: {error.strerror}; choose another folder, with hydra.run.dir= (a sweep's with "
            "hydra.sweep.dir=)"
        )
    if type(error).__name__ == "TerminatedWorkerError":  # joblib's, which is not imported for this
        return (
            "a process of the sweep was killed, as the system does where memory runs out; take a smaller "
            "hydra.launcher.n_jobs, and go on with the same command and resume=auto"
        )
    return None


class _BrokenPipeSafeIO(io.FileIO):
    """Drops what cannot be printed: nobody reads the pipe any more, or the disk below it is full."""

    def write(self, data: Any) -> int:
        """Write, or seem to."""
        try:
            return super().write(data)
        except OSError:
            return len(data)


def make_stdio_robust() -> None:
    """Make a command outlive those who read it.

    A run is worth more than its lines: what ``| head -1`` or ``>&-`` cuts off is dropped (train.log has it;
    rich would end the run), and letters that the terminal's encoding lacks are escaped.
    """
    for fd, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell: the next file opened would be printed into
            os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
        else:
            stream.flush()
        raw = io.BufferedWriter(_BrokenPipeSafeIO(fd, "w", closefd=False))
        encoding = "utf-8" if stream is None else stream.encoding
        at_once = name == "stderr" or raw.isatty()
        setattr(
            sys,
            name,
            io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace", line_buffering=at_once),
        )
