"""The files of a cache: written whole, private to the user, and checked when they are read.

A cache decides what a network is trained on, so one that another user could have written is not trusted, and
its fingerprint is computed from its pixels, labels and splits whenever it is read.
"""

import hashlib
import json
import os
import shutil
import stat
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from fer_lightning.data.faces import SPLITS, Faces, Source, pixel_digest, pixel_hash
from fer_lightning.data.labels import canonical_name

SCHEMA = 4  # part of the key: raise it when the files change, or a pixel that sources decode

_ARRAYS = ("images", "labels", "splits", "hashes", "ids")
_OPTIONAL = ("targets", "groups")  # arrays that not every data set has
_MAX_CHECKED_BYTES = 1e9  # of an array; larger ones are not compared with their checksum and fingerprint
_BUILDING = ".building-"
DECODING = ".decoding-"  # folders of data/decoded_parts.py
_KEPT_SECONDS = 24 * 3600  # what a killed process has decoded for another cache; it may go on with it
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class UntrustedError(ValueError):
    """A cache that another user could have written."""


CACHE_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    EOFError,
)  # raised for an absent or damaged cache


def channels_of(source: Source) -> int:
    """Return the channels of a source; one that does not say has grey images."""
    return getattr(source, "channels", 1)


def bytes_of_image(source: Source) -> int:
    """Return the bytes of a decoded image of a source."""
    return source.image_size**2 * channels_of(source)


def private_folder(cache_dir: Path) -> Path:
    """Return the folder below which this user's caches are, made if it is missing.

    That is the folder itself, or one of this user in it if other users own it or can write to it.

    Raises:
        OSError: If it cannot be made, or is not private either.
    """
    if not cache_dir.is_dir():
        cache_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _fault_of_owner(cache_dir, cache_dir):
        return cache_dir
    own = cache_dir / f"user-{os.geteuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    if fault := _fault_of_owner(own, cache_dir):
        raise OSError(0, f"{own} {fault}")
    return own


def audit_folder(cache_dir: Path) -> Path:
    """Return where audits are kept: with this user's caches, or in the folder itself if it has none."""
    try:
        return private_folder(cache_dir.expanduser())
    except OSError:
        return cache_dir


def _fault_of_owner(path: Path, cache_dir: Path) -> str:
    """Say why a file or folder is not trusted; empty if only this user or root could have written it.

    Root also trusts the owner of the folder that it names: a container's root with the folder of a user.
    """
    if not hasattr(os, "geteuid"):  # Windows
        return ""
    status, trusted = path.lstat(), {0, os.geteuid()}
    if os.geteuid() == 0:
        trusted.add(cache_dir.stat().st_uid)
    if stat.S_ISLNK(status.st_mode) and path != cache_dir:
        return "is a link"
    if path == cache_dir:
        status = path.stat()
    if status.st_uid not in trusted:
        return f"belongs to another user, {status.st_uid}"
    if status.st_mode & _OTHERS_WRITE:
        return "can be changed by other users"
    return ""


def check_private(folder: Path, *, within: bool = True) -> None:
    """Refuse a folder that another user could have written.

    Args:
        folder: In the folder of all caches.
        within: Whether each file in it is looked at.
    """
    for path in (folder, *(sorted(folder.iterdir()) if within else ())):
        if fault := _fault_of_owner(path, folder.parent):
            raise UntrustedError(f"{path.name} {fault}")


def lock_of(folder: Path) -> FileLock:
    """Return the lock of one cache: caches of different data sets are built side by side."""
    return FileLock(folder.with_name(f".{folder.name}.lock"))


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left half-built: of this cache, whose lock is held, or of others."""
    for leftover in folder.parent.glob(f"{_BUILDING}*"):
        name = leftover.name.removeprefix(_BUILDING)
        if name == folder.name:
            _remove(leftover)
            continue
        with suppress(Timeout), lock_of(folder.with_name(name)).acquire(timeout=0):
            _remove(leftover)
    for leftover in folder.parent.glob(f"{DECODING}*"):
        name = leftover.name.removeprefix(DECODING)
        if name == folder.name or time.time() - leftover.lstat().st_mtime < _KEPT_SECONDS:
            continue
        with suppress(Timeout), lock_of(folder.with_name(name)).acquire(timeout=0):
            _remove(leftover)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path)


def fingerprint_of(
    digests: Sequence[bytes],
    splits: Sequence[int],
    labels: Sequence[int],
    targets: NDArray[np.float32] | None,
    source: Source,
) -> str:
    """Hash pixels, splits, class names and targets, whatever the order of images and of the class list.

    Args:
        digests: Of the pixels of each image, see ``pixel_digest``.
        splits: Positions in ``SPLITS``.
        labels: Positions in the class list of the source.
        targets: ``(N, C)``; None if the data set has labels only.
        source: With the class list and the side of the images.
    """
    names = [canonical_name(name) for name in source.classes]
    by_name = np.argsort(names)
    ends = (
        [b""] * len(digests) if targets is None else [row[by_name].astype("<f4").tobytes() for row in targets]
    )
    rows = [
        digest + f"{SPLITS[split]}/{names[label]};".encode() + end
        for digest, split, label, end in zip(digests, splits, labels, ends, strict=True)
    ]
    size = b"%d;" % source.image_size
    return hashlib.blake2b(size + b"".join(sorted(rows)), digest_size=16).hexdigest()


def _arrays(faces: Faces) -> dict[str, NDArray[Any]]:
    """Name the arrays of a data set that its cache stores."""
    arrays = {name: getattr(faces, name) for name in (*_ARRAYS, *_OPTIONAL)}
    return {name: array for name, array in arrays.items() if array is not None}


def freeze(faces: Faces) -> Faces:
    """Make the arrays of a data set read-only."""
    for array in _arrays(faces).values():
        array.flags.writeable = False
    return faces


def write_cache(folder: Path, faces: Faces, source: Source) -> None:
    """Build the folder under a temporary name, and rename it once it is on the disk."""
    building = folder.with_name(f"{_BUILDING}{folder.name}")
    try:
        building.mkdir(mode=0o700)
        arrays = _arrays(faces)
        for name, array in arrays.items():
            if isinstance(array, np.memmap):  # of data/decoded_parts.py, on this disk and in this form
                Path(str(array.filename)).rename(building / f"{name}.npy")
                continue
            with _create(building / f"{name}.npy") as file:
                _save(file, array)
                _sync(file)
        meta = {
            "schema": SCHEMA,
            "source": source.name,
            "classes": faces.classes,
            "image_size": source.image_size,
            "channels": channels_of(source),
            "num_faces": len(faces),
            "bytes": {name: (building / f"{name}.npy").stat().st_size for name in arrays},
            "crc32": {name: _checksum(array) for name, array in arrays.items()},
            "fingerprint": faces.fingerprint,
            "skipped": faces.skipped,
            "notes": faces.notes,
        }
        with _create(building / "meta.json") as file:
            file.write(json.dumps(meta, indent=1).encode())
            _sync(file)
        _give_to_owner(building)
        if os.path.lexists(folder):  # a damaged one
            _remove(folder)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _create(path: Path) -> IO[bytes]:
    """Create a file that only this user can read and write; a link of its name is not followed."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _give_to_owner(building: Path) -> None:
    """Let root's cache in the folder of a user be the user's, as where a container writes to it."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        owner = building.parent.stat()
        for path in (*building.iterdir(), building):
            with suppress(OSError):  # a file system without owners
                os.chown(path, owner.st_uid, owner.st_gid)


def _save(file: IO[bytes], array: NDArray[Any]) -> None:
    """Write an array like np.save, whose error for a full disk does not name the cause."""
    array = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    file.write(array.reshape(-1).view(np.uint8).data)


def _checksum(array: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def read_cache(folder: Path, source: Source) -> Faces:
    """Map a cache into memory; raise one of ``CACHE_ERRORS`` if it is absent, damaged or not trusted."""
    check_private(folder)
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA:
        raise ValueError("meta.json has another schema")
    names = [*_ARRAYS, *(name for name in _OPTIONAL if name in meta["bytes"])]
    for name in names:
        found, expected = (folder / f"{name}.npy").stat().st_size, meta["bytes"][name]
        if found != expected:
            raise ValueError(f"{name}.npy has {found:,} bytes, expected {expected:,}")
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    rest = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in names[1:]}
    for name, array in {"images": images, **rest}.items():
        if array.nbytes <= _MAX_CHECKED_BYTES and _checksum(array) != meta["crc32"][name]:
            raise ValueError(f"{name}.npy was altered: its checksum differs")
    faces = Faces(
        images=images,
        **rest,
        classes=tuple(source.classes),
        fingerprint=meta["fingerprint"],
        skipped=tuple(meta["skipped"]),
        notes=tuple(meta["notes"]),
    )
    if images.nbytes <= _MAX_CHECKED_BYTES:
        _check_fingerprint(faces, source)
    return freeze(faces)


def _check_fingerprint(faces: Faces, source: Source) -> None:
    """Compare hashes and fingerprint with the pixels, which takes 0.14 s for FER-2013."""
    digests = [pixel_digest(image) for image in faces.images]
    if [pixel_hash(digest) for digest in digests] != faces.hashes.tolist():
        raise ValueError("hashes.npy was altered: it does not fit the images")
    found = fingerprint_of(digests, faces.splits.tolist(), faces.labels.tolist(), faces.targets, source)
    if found != faces.fingerprint:
        raise ValueError("its content was altered: the fingerprint differs")
