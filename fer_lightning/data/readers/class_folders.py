"""Class folders of image files, on disk or in a zip: what the folder forms of data sets share."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.data.decode import decode
from fer_lightning.data.labels import class_index
from fer_lightning.data.readers.files import File, Folder, scan_folder
from fer_lightning.data.readers.zips import scan_zip

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def scan(path: Path, *, depth: int = 3) -> Folder:
    """List a data set, folder or zip; enter a lone top folder, which packers like to add.

    Args:
        path: The folder or zip.
        depth: Levels of sub-folders to list of a folder: the lone folder, splits, classes; more if these
            contain folders.
    """
    root = scan_folder(path, depth=depth) if path.is_dir() else scan_zip(path)
    while (inner := lone_folder(root)) is not None and inner.folders:
        root = inner
    return root


def lone_folder(folder: Folder) -> Folder | None:
    """Return the only content of a folder if that is a folder and not a split."""
    if folder.files or len(folder.folders) != 1:
        return None
    ((name, inner),) = folder.folders.items()
    return None if name.lower() in SPLIT_FOLDERS else inner


def listing_key(path: Path, root: Folder | None, *settings: object) -> str:
    """Hash what changes when a data set changes, without reading its files.

    Args:
        path: A file, hashed by size and time, or a folder.
        root: The listing of the folder, hashed by names, sizes and times.
        *settings: Other JSON values that the records depend on.

    Returns:
        Hexadecimal digits.
    """
    if root is None:
        status = path.stat()
        listing = [(str(path), status.st_size, status.st_mtime_ns)]
    else:
        listing = sorted((file.where, *file.stamp) for file in root.walk())
    text = json.dumps([str(path.resolve()), listing, settings])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def class_folders(folder: Folder, classes: Sequence[str], *, nested: bool = False) -> dict[int, Folder]:
    """Match the sub-folders of a folder with the classes by name, each exactly once.

    Args:
        folder: The folder of the class folders. Other files in it are ignored, except images.
        classes: The class list of the data config.
        nested: Whether the class folders may contain folders of images.

    Returns:
        One folder of files for each label, in the order of the labels.

    Raises:
        FERError: If a class folder is missing, unknown, duplicated or empty, or contains folders.
    """
    found: dict[int, Folder] = {}
    for name, below in folder.folders.items():
        try:
            label = class_index(name, classes)
        except FERError as error:
            raise FERError(f"{below.where}: {error}; rename or remove the folder") from error
        if label in found:
            raise FERError(
                f"{below.where}: a second folder of class {classes[label]}, after {found[label].where}"
            )
        if below.folders and not nested:
            raise FERError(
                f"{next(iter(below.folders.values())).where}: a folder, expected the files of one class"
            )
        if not any(True for _ in below.walk()):
            raise FERError(f"{below.where}: an empty class folder, expected images")
        found[label] = below
    missing = [name for label, name in enumerate(classes) if label not in found]
    if missing:
        raise FERError(
            f"{folder.where}: no folder of class {', '.join(missing)}; expected one for each class"
        )
    for name, file in folder.files.items():
        if name.lower().endswith(_IMAGE_SUFFIXES):
            raise FERError(f"{file.where}: an image outside the class folders, expected it in one of them")
    return dict(sorted(found.items()))


def decode_file(file: File, *, size: int, exact: bool, channels: int = 1) -> NDArray[np.uint8]:
    """Read and decode an image file; the text of a ``FERError`` is the reason alone."""
    return decode(file.read(), size=size, exact=exact, channels=channels)
