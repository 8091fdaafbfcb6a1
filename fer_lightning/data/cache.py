"""Decoded faces on disk: every picture is decoded once, later starts map the result into memory.

A cache is a folder ``<source>-<key>/`` of plain ``.npy`` arrays and a ``meta.json``. It is built beside its
place and renamed into it, so that it is whole or absent; a lock keeps a second builder waiting.
"""

import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.core.parallel import available_cores, can_fork, map_forked
from fer_lightning.data.faces import SPLITS, Faces, Record, Source, pixel_digest, pixel_hash
from fer_lightning.data.labels import canonical_name

SCHEMA = 2  # part of the key: raise it when the files, or a pixel that decode or sources give, change

_ARRAYS = ("images", "labels", "splits", "hashes", "ids")
_WINDOW = 4096  # records in flight; those of a CSV carry their 9 kB of text
_TIMED = 32  # pictures decoded once more, to know what one takes
_WORTH_A_FORK = 0.2  # seconds of decoding in one process
_WORTH_A_THREAD = 1e-3  # seconds a picture
_LISTED = 10  # bad faces named in an error
_MOST_CHECKED = 1e9  # bytes of an array; FER-2013's 83 MB take 0.05 s, on a slow processor

Say = Callable[[str], None]
OnBad = Literal["error", "skip"]

_DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
)  # what reading an absent or broken cache raises


class _Face(NamedTuple):
    """A decoded record without its closure, in the order by which faces are sorted."""

    split: int
    digest: bytes
    label: int
    id: str
    pixels: NDArray[np.uint8]


def load_faces(source: Source, *, cache_dir: Path, on_bad: OnBad = "error", say: Say) -> Faces:
    """Read a data set from its cache, or decode it and leave a cache for the next time.

    Args:
        source: Where the faces come from.
        cache_dir: Where caches are kept; made if missing. Where it cannot be written, the faces are decoded
            in memory, which is said.
        on_bad: Whether faces that cannot be decoded are an error or left out.
        say: Takes a sentence for people, such as ``print``.

    Returns:
        The faces, in an order that depends on their content alone; arrays are read-only.

    Raises:
        FERError: If the source is at fault, if faces are bad and ``on_bad`` is ``error``, or if leaving them
            out empties a class or a split.
    """
    key = hashlib.blake2b(
        json.dumps([SCHEMA, source.cache_key(), [*source.classes], source.image_size, on_bad]).encode(),
        digest_size=8,
    ).hexdigest()
    folder = cache_dir.expanduser() / f"{source.name}-{key}"
    try:
        faces = _read(folder, source)
    except _DAMAGE:  # absent or damaged: looked at again under the lock
        faces = None
    if faces is None:
        faces = _load_locked(folder, source, on_bad, say)
    if faces.skipped:
        say(
            f"data.on_bad=skip: left out {len(faces.skipped):,} of {len(faces) + len(faces.skipped):,} faces "
            f"of {source.name}, the first: {faces.skipped[0]}"
        )
    return faces


def _load_locked(folder: Path, source: Source, on_bad: OnBad, say: Say) -> Faces:
    with ExitStack() as stack:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            # One lock for all caches: whoever holds it knows that every temporary folder is a dead builder's.
            lock = FileLock(folder.parent / ".lock")
            try:
                stack.enter_context(lock.acquire(timeout=0))
            except Timeout:
                say(f"{folder.parent}: waiting for another process to finish its cache")
                stack.enter_context(lock.acquire())
            for leftover in folder.parent.glob(".building-*"):
                shutil.rmtree(leftover)
        except (OSError, NotImplementedError) as error:  # NotImplementedError: a file system without locks
            say(_in_memory(folder.parent, error))
            return _build(source, on_bad, say)
        if folder.exists():
            try:
                return _read(folder, source)  # another process was faster
            except _DAMAGE as error:
                say(f"{folder}: damaged cache ({error}), building it anew")
        faces = _build(source, on_bad, say)
        try:
            _write(folder, faces, source)
            return _read(folder, source)
        except OSError as error:
            say(_in_memory(folder.parent, error))
            return faces


def _in_memory(cache_dir: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or error
    return (
        f"data.cache_dir={cache_dir}: cannot be written ({reason}), so the faces stay in memory and the next "
        "start decodes them again; name a folder with room"
    )


def _build(source: Source, on_bad: OnBad, say: Say) -> Faces:
    say(f"decoding the faces of {source.name}, once")
    started = time.monotonic()
    faces, bad, held = _decode_all(source, on_bad)
    assert faces or held, f"{source.name} gave no records"
    for split, label in sorted(held - {(face.split, face.label) for face in faces}):
        raise FERError(
            f"data.on_bad=skip: no face of class {source.classes[label]} is left in the {SPLITS[split]} "
            f"split of {source.name}; the first of {len(bad):,} bad ones is {bad[0]}"
        )
    say(f"decoded {len(faces):,} faces in {time.monotonic() - started:.1f} s")
    return _arrange(faces, bad, source)


def _decode_all(source: Source, on_bad: OnBad) -> tuple[list[_Face], list[str], set[tuple[int, int]]]:
    """Decode every record.

    Returns:
        Good faces, bad ones as ``where: reason``, and each (split, label) that had records.
    """
    faces: list[_Face] = []
    bad: list[str] = []
    held: set[tuple[int, int]] = set()
    with ExitStack() as stack:
        decode_all: Callable[..., Iterator[_Face | str]] | None = None
        try:
            for window in _windows(source.records()):
                if decode_all is None:
                    way, number = _fastest_way(window, source)
                    decode_all = map
                    if way == "forks":
                        decode_all = partial(map_forked, num_processes=number)
                    elif way == "threads":
                        decode_all = stack.enter_context(ThreadPoolExecutor(number)).map
                for record, outcome in zip(window, decode_all(_decode, window), strict=True):
                    if record.label >= 0:
                        held.add((SPLITS.index(record.split), record.label))
                    if isinstance(outcome, _Face):
                        faces.append(outcome)
                    else:
                        bad.append(f"{record.where}: {outcome}")
        except FERError:
            if on_bad == "skip" or not bad:
                raise  # else the bad faces are told first: they may well be the cause
    if bad and on_bad == "error":
        listed = "".join(f"\n  {line}" for line in bad[:_LISTED])
        more = f"\n  and {len(bad) - _LISTED:,} more" if len(bad) > _LISTED else ""
        raise FERError(
            f"{len(bad):,} bad face{'s' * (len(bad) > 1)} in {source.name}; mend or leave out with "
            f"data.on_bad=skip:{listed}{more}"
        )
    return faces, bad, held


def _fastest_way(records: list[Record], source: Source) -> tuple[Literal["forks", "threads", "alone"], int]:
    """Choose how to decode, and how many at once, from what a few pictures take.

    Pillow and hashlib work outside the interpreter's lock, but around them a picture takes 0.1 ms of Python,
    and threads that all want the lock lose more than they share: where there are no forks, the 35,887 of
    FER-2013 take 13 s in two threads and 6 s in one. More threads than a few wait even for photographs.
    """
    if len(records) < 2:
        return "alone", 1
    _decode(records[0])  # Pillow imports its decoders
    few = records[1 : _TIMED + 1]
    started = time.perf_counter()
    for record in few:
        _decode(record)
    each = (time.perf_counter() - started) / len(few)
    cores = available_cores()
    if cores > 1 and can_fork() and each * len(records) > _WORTH_A_FORK:
        return "forks", min(cores, 16)
    if cores > 1 and source.parallel and each > _WORTH_A_THREAD:
        return "threads", min(cores, 8)
    return "alone", 1


def _windows(records: Iterator[Record]) -> Iterator[list[Record]]:
    """Cut the records into lists; a fault of the source comes after all that it gave before."""
    window: list[Record] = []
    fault = None
    try:
        for record in records:
            window.append(record)
            if len(window) == _WINDOW:
                yield window
                window = []
    except FERError as error:
        fault = error
    yield window
    if fault is not None:
        raise fault


def _decode(record: Record) -> _Face | str:
    try:
        pixels = record.pixels()
    except FERError as error:
        return str(error)
    return _Face(SPLITS.index(record.split), pixel_digest(pixels), record.label, record.id, pixels)


def _arrange(faces: list[_Face], bad: list[str], source: Source) -> Faces:
    size = source.image_size
    assert all(face.pixels.shape == (size, size) and face.pixels.dtype == np.uint8 for face in faces)
    assert len({face.id for face in faces}) == len(faces), f"{source.name}: image ids are not unique"
    faces.sort(key=lambda face: face[:4])
    # Classes enter by name and rows in the order of these, so that the class list may be in any order.
    names = [canonical_name(name) for name in source.classes]
    rows = sorted(face.digest + f"{SPLITS[face.split]}/{names[face.label]};".encode() for face in faces)
    return _freeze(
        Faces(
            images=np.stack([face.pixels for face in faces]),
            labels=np.array([face.label for face in faces], np.int64),
            splits=np.array([face.split for face in faces], np.uint8),
            hashes=np.array([pixel_hash(face.digest) for face in faces], np.uint64),
            ids=np.array([face.id for face in faces]),
            classes=tuple(source.classes),
            fingerprint=hashlib.blake2b(b"%d;" % size + b"".join(rows), digest_size=16).hexdigest(),
            skipped=tuple(bad),
        )
    )


def _freeze(faces: Faces) -> Faces:
    for name in _ARRAYS:
        getattr(faces, name).flags.writeable = False
    return faces


def _write(folder: Path, faces: Faces, source: Source) -> None:
    """Build the folder beside its place, and rename it there once the disk has it."""
    building = folder.with_name(f".building-{folder.name}")
    try:
        building.mkdir()
        for name in _ARRAYS:
            with (building / f"{name}.npy").open("wb") as file:
                _save(file, getattr(faces, name))
                _sync(file)
        meta = {
            "schema": SCHEMA,
            "source": source.name,
            "classes": faces.classes,
            "image_size": source.image_size,
            "num_faces": len(faces),
            "bytes": {name: (building / f"{name}.npy").stat().st_size for name in _ARRAYS},
            "crc32": {name: _checksum(getattr(faces, name)) for name in _ARRAYS},
            "fingerprint": faces.fingerprint,
            "skipped": faces.skipped,
        }
        with (building / "meta.json").open("w", encoding="utf-8") as file:
            json.dump(meta, file, indent=1)
            _sync(file)
        if folder.exists():  # a damaged one
            shutil.rmtree(folder)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _save(file: IO[bytes], array: NDArray[Any]) -> None:
    """Write as np.save does, which makes of a full disk an error that does not say so."""
    array = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    file.write(array.reshape(-1).view(np.uint8).data)


def _checksum(array: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _read(folder: Path, source: Source) -> Faces:
    """Map a cache into memory.

    Raises:
        OSError, ValueError, KeyError, TypeError, EOFError: If it is absent or not whole.
    """
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA:
        raise ValueError("meta.json is of another schema")
    for name in _ARRAYS:
        found, expected = (folder / f"{name}.npy").stat().st_size, meta["bytes"][name]
        if found != expected:
            raise ValueError(f"{name}.npy has {found:,} bytes, expected {expected:,}")
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    rest = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in _ARRAYS[1:]}
    for name, array in {"images": images, **rest}.items():
        if array.nbytes <= _MOST_CHECKED and _checksum(array) != meta["crc32"][name]:
            raise ValueError(f"{name}.npy is not what was written: its checksum differs")
    return _freeze(
        Faces(
            images=images,
            **rest,
            classes=tuple(source.classes),
            fingerprint=meta["fingerprint"],
            skipped=tuple(meta["skipped"]),
        )
    )
