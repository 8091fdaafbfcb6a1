"""Files of plain arrays, from anybody: never pickled, never larger than they look, of the expected kinds."""

import lzma
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
)


def read_arrays(path: Path, kinds: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Read an uncompressed ``.npz``.

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
        if sum(entry.file_size for entry in archive.zip.infolist()) > path.stat().st_size:
            raise ValueError("its arrays are packed, or larger than the file")
        arrays = {name: archive[name] for name in archive.files}
    for name, array in arrays.items():
        if array.dtype.kind not in kinds[name]:
            raise TypeError(f"{name} holds {array.dtype}")
    return arrays
