"""What goes wrong by a user's hand, and how a stopped run ends."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig

T = TypeVar("T")


class FERError(CompactHydraException, ValueError):
    """A mistake in a command, a config, a file or a folder, told in one sentence.

    The sentence names the argument or the file (and line), what was found, what was expected and what to do.
    Hydra prints an exception of this family without its traceback, ends with exit code 1, and goes on with
    the other jobs of a sweep.
    """


class RunStopped(SystemExit):
    """A signal ended the run after its checkpoint was written.

    Not an ``Exception``, so that it ends a whole sweep; the exit code is 128 plus the signal's number, as
    shells expect: 143 for SIGTERM, 130 for SIGINT.

    Args:
        signal_number: The signal that asked the run to stop.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(128 + signal_number)
        self.signal_number = signal_number


def explain(error: Exception, folder: Path) -> Exception:
    """Turn what the machine, and not the code, is to blame for into a sentence.

    Args:
        error: Whatever ended a run.
        folder: Of the run.

    Returns:
        A ``FERError``, or the error itself where it is a bug that wants its traceback.
    """
    if isinstance(error, OSError) and error.filename is not None:
        return FERError(
            f"{error.filename}: {error.strerror}; what was written before is kept: mend this, and go on with "
            f"resume={folder}"
        )
    return error


def check_seed(seed: object) -> None:
    """Refuse a seed that NumPy's and Lightning's generators would not take."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise FERError(f"seed={seed}: expected a whole number from 0 to {2**32 - 1:,}")


def tell(error: FERError) -> NoReturn:
    """End the command with a sentence on stderr and exit code 1."""
    print(f"error: {error}", file=sys.stderr)  # noqa: T201 - where a shell expects it
    sys.exit(1)


def tell_mistakes(task: Callable[[DictConfig], T]) -> Callable[[DictConfig], T]:
    """Decorate a hydra task so that a single run's ``FERError`` is one line on stderr, and exit code 1.

    Hydra would add a line before it and a hint at tracebacks after it. In a sweep the error goes on to hydra,
    which then runs the other jobs.
    """

    @functools.wraps(task)
    def told(config: DictConfig) -> T:
        try:
            return task(config)
        except FERError as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            tell(error)

    return told
