"""Errors that a user can fix."""

import functools
import gc
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, ParamSpec

from hydra.errors import CompactHydraException

from fer_lightning.core.program import pasteable
from fer_lightning.core.progress import clear_progress
from fer_lightning.core.text import escape_surrogates

P = ParamSpec("P")

# Characters that control a terminal or reverse its text; line feeds and tabs are kept.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


# Messages of CUDA, and what a user can do.
_OF_THE_GPU = {
    "no kernel image is available": (
        "trainer.accelerator: this build of torch has no code for this GPU; install a torch build that "
        "supports it, or set trainer=cpu"
    ),
    "devices are busy or unavailable": (
        "trainer.accelerator: the GPU is busy or unavailable: another process may hold it in exclusive mode; "
        "wait for it, or set trainer=cpu"
    ),
}


FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra's own variable, which people of it know
FULL_ERROR_HINT = f"{FULL_ERROR}=1 in the environment shows the traceback"


class FERError(CompactHydraException, ValueError):
    """A mistake in a command, a config, a file or a folder, described in one sentence.

    The sentence names the argument or the file (and line), what was found, what was expected and what to do.
    Hydra prints an exception of this family without its traceback, ends with exit code 1, and goes on with
    the other jobs of a sweep.
    """


# What code raises where it is wrong itself, not where it is given something wrong.
_BUGS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    NotImplementedError,
    TypeError,
)
_PACKAGE = Path(__file__).parents[1]
_LIBRARIES = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))


def is_bug(error: BaseException) -> bool:
    """Return whether an error is a mistake in this package, whose traceback is needed.

    Everything else was caused by a setting, a file, the machine, or code of the user or of a library that a
    setting chose, and is described in a sentence.
    """
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, _BUGS) and bool(frames) and Path(frames[-1].filename).is_relative_to(_PACKAGE)


def describe_error(error: BaseException) -> str:
    """Describe an error that this package does not know: its type, its words, and where it was raised.

    The place is the innermost line of the user's own code, if there is one, else of a library.
    """
    frames = traceback.extract_tb(error.__traceback__)
    users = [
        frame
        for frame in frames
        if Path(frame.filename).is_file()
        and not any(Path(frame.filename).is_relative_to(place) for place in (_PACKAGE, *_LIBRARIES))
    ]
    words = " ".join(str(error).split())
    words = f"{type(error).__name__}: {words[:500]}" if words else type(error).__name__
    if not frames:
        return words
    place = (users or frames)[-1]
    return f"{words} ({Path(place.filename).name}, line {place.lineno}, in {place.name})"


def as_user_error(
    error: Exception, folder: Path, data: Mapping[str, Any], *, log_file: Path | None = None
) -> Exception:
    """Describe an error that the user or the machine caused in one sentence.

    Args:
        error: The error that ended a run.
        folder: The run folder.
        data: The run's plain data node, for the sizes of its batches.
        log_file: The file to which the traceback was written.

    Returns:
        A ``FERError``, or the error itself if it is a bug, whose traceback is needed.
    """
    known = _known_error(error, folder, data)
    if known is not None or is_bug(error):
        return known or error
    where = f"the traceback is in {log_file}" if log_file else FULL_ERROR_HINT
    return FERError(f"{describe_error(error)}; {where}")


def _known_error(error: Exception, folder: Path, data: Mapping[str, Any]) -> FERError | None:
    """Describe an error whose cause and remedy are known; None for others."""
    if isinstance(error, OSError) and error.filename is not None:
        return FERError(
            f"{error.filename}: {error.strerror}; earlier output is intact; fix this, then continue with "
            f"{pasteable('resume', folder)}"
        )
    if isinstance(error, FERError):
        return error
    spawned = re.search(rf"{FERError.__module__}.FERError: (.*)", str(error))
    if spawned:  # in a process of ddp_spawn, whose traceback is the text of this error
        return FERError(spawned[1])
    if "Expected more than 1 value per channel when training" in str(error):  # torch's words
        return FERError(
            f"data.batch_size={data['batch_size']}: batch normalisation cannot train on a single image; set "
            "it to 2 or more, and see that the train split holds as many"
        )
    if "could not create a primitive" in str(error):  # oneDNN's words, of an LSTM in bf16 without AVX-512
        return FERError(
            "trainer.precision: this precision is not supported for this network on this processor; leave it "
            "auto, or set trainer.precision=32-true"
        )
    for words, sentence in _OF_THE_GPU.items():
        if words in str(error):
            return FERError(sentence)
    if str(error).startswith("Early stopping conditioned on metric"):  # Lightning's EarlyStopping
        return FERError(f"callbacks: {' '.join(str(error).split())}")
    if isinstance(error, ModuleNotFoundError) and "install" in str(error):  # an optional package of Lightning
        return FERError(" ".join(str(error).split()))
    if type(error).__name__ == "MisconfigurationException":  # Lightning's, which is too heavy to import here
        return FERError(f"trainer: {' '.join(str(error).split())}")
    wanted = _requested_memory(error)
    if wanted is None:
        return None
    return FERError(
        f"out of memory{wanted}: lower data.batch_size={data['batch_size']} (in training) or "
        f"data.eval_batch_size={data['eval_batch_size']}, take a smaller network or data.image_size="
        f"{data['image_size']}, or free memory that other programs use"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, or one of its causes, reports too little memory."""
    return _requested_memory(error) is not None


def _requested_memory(error: BaseException | None) -> str | None:
    """Return the amount that could not be allocated, as text; None for another error."""
    while error is not None:
        text = str(error)
        # torch raises OutOfMemoryError on a GPU and RuntimeError on a CPU.
        if isinstance(error, MemoryError) or re.search(
            r"out of memory|t allocate memory|bad_alloc|ALLOC_FAILED", text
        ):
            wanted = re.search(r"(?:tried|[Uu]nable) to allocate ([\d.]+ \w+)", text, re.IGNORECASE)
            return f" ({wanted[1]} wanted)" if wanted else ""
        error = error.__cause__
    return None


def release_frames(error: BaseException) -> None:
    """Drop the local variables in the traceback of an error and of its causes.

    Hydra keeps the error of a failed job until its sweep ends, and with it whatever its frames refer to: the
    network, its activations and the data, and on a GPU their memory.
    """
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        link = waiting.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            traceback.clear_frames(link.__traceback__)
            waiting += [link.__cause__, link.__context__]
    gc.collect()


def printable(text: str) -> str:
    """Escape what the names of files can contain: control characters, and bytes that are not UTF-8."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], escape_surrogates(text))


def as_command_error(error: Exception) -> Exception:
    """Describe an error that ended a command outside of any run in one sentence; see ``as_user_error``."""
    if isinstance(error, FERError) or is_bug(error):
        return error
    if isinstance(error, OSError) and error.strerror is not None:
        place = f"{error.filename}: " if error.filename is not None else ""
        return FERError(f"{place}{error.strerror}; fix this, then repeat the command")
    return FERError(f"{describe_error(error)}; {FULL_ERROR_HINT}")


def sentences_for_errors(main: Callable[P, int]) -> Callable[P, int]:
    """Decorate the main function of a command: whatever the user can have caused is one sentence on stderr.

    The exit code is then 1. With HYDRA_FULL_ERROR=1 in the environment every error is raised as it is.
    """

    @functools.wraps(main)
    def reporting(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except Exception as error:
            reported = as_command_error(error)
            if os.environ.get(FULL_ERROR) == "1" or not isinstance(reported, FERError):
                raise
            _print_error(reported)
            return 1

    return reporting


def _print_error(error: FERError) -> None:
    clear_progress()
    print(printable(f"error: {error}"), file=sys.stderr)  # noqa: T201 - where a shell expects it


def exit_with_error(error: FERError) -> NoReturn:
    """End the command with one sentence on stderr and exit code 1."""
    _print_error(error)
    sys.exit(1)
