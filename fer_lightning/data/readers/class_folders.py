"""Class folders of image files, on disk or in an archive: what the folder forms of data sets share."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.data.decode import decode
from fer_lightning.data.labels import class_index
from fer_lightning.data.readers.files import (
    File,
    Folder,
    check_place,
    disk_file,
    is_image_name,
    reading,
    scan_folder,
)
from fer_lightning.data.readers.packed import describe_kind, kind_of
from fer_lightning.data.readers.tars import scan_tar
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


def scan(path: Path, *, depth: int = 3) -> Folder:
    """List a data set, folder, zip or tar, from its first folder that has more than one folder in it.

    Args:
        path: The folder or archive.
        depth: Levels of sub-folders to list of a folder: splits, classes, and what is too deep; more if
            these contain folders.

    Raises:
        FERError: If it cannot be read, or is a file of another kind.
    """
    return enter(scan_root(path, depth=depth))


def scan_root(path: Path, *, depth: int = 3) -> Folder:
    """List a data set, folder, zip or tar, as it is."""
    check_place(path, "a folder, zip or tar of images")
    if path.is_dir():
        return scan_folder(path, depth=depth)
    file = disk_file(path)
    match kind_of(file):
        case "zip":
            return scan_zip(path)
        case "tar":
            return scan_tar(path)
    found = describe_kind(file)
    with reading(f"{file.where}: "), file.open():
        pass
    raise FERError(
        f"{file.where}: {found or 'neither a folder nor an archive'}; expected a folder, or a zip or tar of "
        "it (.zip, .tar, .tar.gz, .tar.bz2, .tar.xz)"
    )


def enter(folder: Folder) -> Folder:
    """Enter folders that hold one folder alone, which packers like to add; a split is not entered."""
    while (inner := lone_folder(folder)) is not None and inner.folders:
        folder = inner
    return folder


def lone_folder(folder: Folder) -> Folder | None:
    """Return the only folder in a folder without images, if it is not a split."""
    inner = folder.only_folder()
    return None if inner is None or is_split_name(next(iter(folder.folders))) else inner


def is_split_name(name: str) -> bool:
    """Return whether a folder is named as a split, such as ``Training``."""
    return name.lower() in SPLIT_FOLDERS


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


def class_folders(
    folder: Folder, classes: Sequence[str], *, nested: bool = False, left_out: list[str] | None = None
) -> dict[int, Folder]:
    """Match the sub-folders of a folder with the classes by name, each exactly once.

    Args:
        folder: The folder of the class folders. Other files in it are ignored, except images.
        classes: The class list of the data config.
        nested: Whether the class folders may contain folders of images.
        left_out: Takes a sentence for each class folder that is missing, unknown or empty, and is then left
            out; None for an error.

    Returns:
        One folder of files for each label, in the order of the labels.

    Raises:
        FERError: If a class folder is missing, unknown, duplicated or empty, or contains folders.
    """
    folder = enter(folder)
    found: dict[int, Folder] = {}
    for name, below in folder.folders.items():
        try:
            label = class_index(name, classes)
        except FERError as error:
            if left_out is None:
                raise FERError(f"{below.where}: {error}; rename or remove the folder") from error
            num_images = sum(is_image_name(path) for path, _ in below.paths())
            left_out.append(f"{below.where}: {num_images:,} images of an unknown class, left out")
            continue
        if label in found:
            raise FERError(
                f"{below.where}: a second folder of class {classes[label]}, after {found[label].where}"
            )
        if below.folders and not nested:
            raise FERError(
                f"{next(iter(below.folders.values())).where}: a folder, expected the files of one class"
            )
        if not any(True for _ in below.walk()):
            if left_out is None:
                raise FERError(f"{below.where}: an empty class folder, expected images")
            continue
        found[label] = below
    for name, file in folder.files.items():
        if is_image_name(name):
            raise FERError(f"{file.where}: an image outside the class folders, expected it in one of them")
    missing = [name for label, name in enumerate(classes) if label not in found]
    if missing and left_out is not None and found:
        left_out.append(f"{folder.where}: no images of class {', '.join(missing)}")
    elif missing:
        expected = "one for each class" if left_out is None else "at least one of them"
        raise FERError(f"{folder.where}: no folder of class {', '.join(missing)}; expected {expected}")
    return dict(sorted(found.items()))


def decode_file(file: File, *, size: int, exact: bool, channels: int = 1) -> NDArray[np.uint8]:
    """Read and decode an image file; the text of a ``FERError`` is the reason alone."""
    return decode(file.read(), size=size, exact=exact, channels=channels)
