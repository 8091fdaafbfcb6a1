"""Reading checkpoints from anywhere: nothing is executed, and memory is not exhausted."""

import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import check_not_special
from fer_lightning.training.checkpoint_metadata import KEY, SCHEMA, CheckpointMetadata

MAX_ELEMENTS = 1_000_000  # ours hold a few thousand
MAX_DEPTH = 50  # ours nest nine deep

# What zipfile and torch raise where a file is damaged.
_UNREADABLE = (
    RuntimeError,
    EOFError,
    ValueError,
    KeyError,
    AttributeError,
    TypeError,
    IndexError,
    AssertionError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    ImportError,
    UnicodeError,
    struct.error,
    zipfile.BadZipFile,
)


def _check_archive(path: Path) -> None:
    """Refuse a file whose parts would take more memory than the file has bytes.

    ``torch.save`` stores everything uncompressed. A compressed entry can be a thousand times as large, and
    torch would unpack it before checking it. Formats of torch before 1.6 do not state sizes.
    """
    check_not_special(path)
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise FERError(
                f"{path}: refused: it is no checkpoint, or holds more than weights and plain values"
            )
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _check_entries(path, entries)
            damaged = archive.testzip()  # torch reads past a wrong checksum
    if damaged is not None:
        raise FERError(f"{path}: damaged: the checksum of its part {damaged} is wrong")


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Refuse packed parts, and parts larger than the file."""
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or (
        sum(entry.file_size for entry in entries) > path.stat().st_size
    ):
        raise FERError(
            f"{path}: refused: its parts are packed, or larger than the file; torch.save packs nothing"
        )


def _check_sizes(content: Any, path: Path) -> None:
    """Refuse what is small on the disk and huge in memory: tensors that repeat one number, nested lists."""
    waiting, seen = [(content, 0)], 0
    while waiting:
        node, depth = waiting.pop()
        seen += 1
        if isinstance(node, Tensor):
            if node.layout != torch.strided or node.nbytes > node.untyped_storage().nbytes():
                raise FERError(
                    f"{path}: refused: it declares a tensor of {node.numel():,} numbers and stores fewer"
                )
            continue
        parts = node.values() if isinstance(node, Mapping) else node
        if isinstance(parts, Iterable) and not isinstance(parts, str | bytes):
            waiting += [(part, depth + 1) for part in parts]
        # Shared parts count each time: a few nested lists can mean billions of values.
        if seen + len(waiting) > MAX_ELEMENTS or depth > MAX_DEPTH:
            raise FERError(
                f"{path}: refused: it holds more, or more deeply nested, than a checkpoint of ours"
            )


def read_checkpoint(path: Path) -> tuple[dict[str, Any], CheckpointMetadata]:
    """Load a checkpoint without executing anything in it.

    Returns:
        Lightning's state, on the CPU, and the metadata.

    Raises:
        FERError: If the file is missing, damaged, hostile, or not of this project.
    """
    try:
        _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that torch did not write; they are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise FERError(f"{path}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise FERError(
            f"{path}: refused: it is no checkpoint, or holds more than weights and plain values"
        ) from error
    except FERError:
        raise
    except _UNREADABLE as error:
        raise FERError(f"{path}: damaged, or not a checkpoint ({brief(error, 40)})") from error
    _check_sizes(content, path)
    described = content.get(KEY) if isinstance(content, dict) else None
    if not isinstance(described, dict) or not isinstance(content.get("state_dict"), dict):
        raise FERError(f"{path}: not a checkpoint of fer_lightning (it has no entry {KEY!r})")
    if not all(isinstance(key, str) for key in content["state_dict"]):
        raise FERError(f"{path}: no state_dict found (its weights have no names)")
    schema = described.get("schema")
    if not isinstance(schema, int) or schema != SCHEMA:
        raise FERError(f"{path}: checkpoint schema {str(schema)[:40]}, expected {SCHEMA}")
    try:
        return content, CheckpointMetadata.from_plain(described)
    except (TypeError, KeyError, AttributeError, ValueError, RuntimeError) as error:
        raise FERError(f"{path}: its description is incomplete ({brief(error, 100)})") from error


def brief(error: Exception, length: int) -> str:
    """Return the first characters of an error's message on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else f"{text[:length]}..."
