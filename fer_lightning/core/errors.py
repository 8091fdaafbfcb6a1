"""Errors that a user can fix."""

import gc
import re
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from hydra.errors import CompactHydraException

from fer_lightning.core.program import pasteable
from fer_lightning.core.text import escape_surrogates

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


class FERError(CompactHydraException, ValueError):
    """A mistake in a command, a config, a file or a folder, described in one sentence.

    The sentence names the argument or the file (and line), what was found, what was expected and what to do.
    Hydra prints an exception of this family without its traceback, ends with exit code 1, and goes on with
    the other jobs of a sweep.
    """


def as_user_error(error: Exception, folder: Path, data: Mapping[str, Any]) -> Exception:
    """Describe an error that the user or the machine caused in one sentence.

    Args:
        error: The error that ended a run.
        folder: The run folder.
        data: The run's plain data node, for the sizes of its batches.

    Returns:
        A ``FERError``, or the error itself if it is a bug, whose traceback is needed.
    """
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
        return error
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


def exit_with_error(error: FERError) -> NoReturn:
    """End the command with one sentence on stderr and exit code 1."""
    print(printable(f"error: {error}"), file=sys.stderr)  # noqa: T201 - where a shell expects it
    sys.exit(1)
