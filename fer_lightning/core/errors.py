"""What goes wrong by a user's hand."""

import gc
import re
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from hydra.errors import CompactHydraException

# What drives a terminal, or turns its text around; lines and tabs are left.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


# CUDA's words, and what a user can do.
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
    """A mistake in a command, a config, a file or a folder, told in one sentence.

    The sentence names the argument or the file (and line), what was found, what was expected and what to do.
    Hydra prints an exception of this family without its traceback, ends with exit code 1, and goes on with
    the other jobs of a sweep.
    """


def as_user_error(error: Exception, folder: Path, data: Mapping[str, Any]) -> Exception:
    """Turn what the machine, and not the code, is to blame for into a sentence.

    Args:
        error: Whatever ended a run.
        folder: Of the run.
        data: The run's plain data node, for the sizes of its batches.

    Returns:
        A ``FERError``, or the error itself where it is a bug that wants its traceback.
    """
    if isinstance(error, OSError) and error.filename is not None:
        return FERError(
            f"{error.filename}: {error.strerror}; what was written before is kept: mend this, and go on with "
            f"resume={folder}"
        )
    if isinstance(error, FERError):
        return error
    told = re.search(rf"{FERError.__module__}.FERError: (.*)", str(error))
    if told:  # in a process of ddp_spawn, whose traceback is this error's text
        return FERError(told[1])
    if "Expected more than 1 value per channel when training" in str(error):  # torch's words
        return FERError(
            f"data.batch_size={data['batch_size']}: batch normalisation cannot train on a single image; set "
            "it to 2 or more, and see that the train split holds as many"
        )
    if "could not create a primitive" in str(error):  # oneDNN's words, of an LSTM in bf16 without AVX-512
        return FERError(
            "trainer.precision: torch cannot compute this network so on this processor; leave it auto, or "
            "set trainer.precision=32-true"
        )
    for words, sentence in _OF_THE_GPU.items():
        if words in str(error):
            return FERError(sentence)
    if type(error).__name__ == "MisconfigurationException":  # Lightning's, which is too heavy to import here
        return FERError(f"trainer: {' '.join(str(error).split())}")
    wanted = _requested_memory(error)
    if wanted is None:
        return error
    return FERError(
        f"out of memory{wanted}: lower data.batch_size={data['batch_size']} (in training) or "
        f"data.eval_batch_size={data['eval_batch_size']}, take a smaller network or data.image_size="
        f"{data['image_size']}, or look for what else fills the memory"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one behind it, says that there is too little memory."""
    return _requested_memory(error) is not None


def _requested_memory(error: BaseException | None) -> str | None:
    """Say how much memory was wanted where an error, or one behind it, tells of too little; else None."""
    while error is not None:
        text = str(error)
        # torch tells by a class of its own on a GPU, and by a RuntimeError on a CPU.
        if isinstance(error, MemoryError) or re.search(
            r"out of memory|t allocate memory|bad_alloc|ALLOC_FAILED", text
        ):
            wanted = re.search(r"(?:tried|[Uu]nable) to allocate ([\d.]+ \w+)", text, re.IGNORECASE)
            return f" ({wanted[1]} wanted)" if wanted else ""
        error = error.__cause__
    return None


def release_frames(error: BaseException) -> None:
    """Drop the local variables of the frames that an error, and the errors behind it, came through.

    Hydra keeps the error of a failed job until its sweep ends. With it would stay what the frames refer to:
    the network, its activations and the data, and on a GPU their memory.
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
    """Escape what would drive a terminal; strangers name files with it."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def exit_with_error(error: FERError) -> NoReturn:
    """End the command with a sentence on stderr and exit code 1."""
    print(printable(f"error: {error}"), file=sys.stderr)  # noqa: T201 - where a shell expects it
    sys.exit(1)
