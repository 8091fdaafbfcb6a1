"""Files of plain arrays, from anybody: never pickled, of bounded size, of the expected kinds."""

import lzma
import tokenize
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.files import check_not_special

# What NumPy raises if a file is missing, damaged or of another kind, and what assertions about its arrays
# raise.
UNREADABLE = (
    AssertionError,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    NotImplementedError,
    BadZipFile,
    MemoryError,
    RecursionError,
    zlib.error,
    lzma.LZMAError,
    tokenize.TokenError,
    SyntaxError,
    SystemError,
)

# The arrays of a file of predictions, see evaluation.predictions.
PREDICTION_ARRAYS = {
    "ids": "U",
    "labels": "i",
    "probs": "f",
    "status": "U",
    "leaked": "b",
    "near_leaked": "b",
    "classes": "U",
}

MAX_COMPRESSED = 64 * 2**20  # bytes of arrays in a compressed file; FER-2013's predictions take 1.5 MB


def read_arrays(path: Path, kinds: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Read an ``.npz``: an uncompressed one of any size, or one whose arrays take at most ``MAX_COMPRESSED``.

    Args:
        path: The file; a pipe or a device is refused.
        kinds: Array name -> NumPy's kind: U text, i and u integers, f floats, b booleans.

    Raises:
        Exception: One of ``UNREADABLE``.
    """
    check_not_special(path)
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise TypeError("a single array")
        assert archive.zip is not None
        size = sum(entry.file_size for entry in archive.zip.infolist())
        if size > max(path.stat().st_size, MAX_COMPRESSED):
            raise ValueError(f"its arrays take {size:,} bytes, more than the file and {MAX_COMPRESSED:,}")
        arrays = {name: archive[name] for name in archive.files}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name[:60]} is no array")
        if array.dtype.kind not in kinds[name]:
            raise TypeError(f"{name} holds {array.dtype}")
    return arrays
