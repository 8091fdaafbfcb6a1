"""The cache of decoded images: each image is decoded once, later runs map the result into memory.

A cache is a folder ``<source>-<key>/`` of plain ``.npy`` arrays and a ``meta.json``. It is built under a
temporary name and renamed, so it is complete or absent; a lock makes a second builder of it wait.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from filelock import Timeout
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.core.memory import available_memory
from fer_lightning.core.parallel import available_cores, can_fork, map_forked
from fer_lightning.data.cache_files import (
    CACHE_ERRORS,
    SCHEMA,
    UntrustedError,
    channels_of,
    fingerprint_of,
    freeze,
    lock_of,
    private_folder,
    read_cache,
    remove_abandoned,
    write_cache,
)
from fer_lightning.data.faces import SPLITS, Faces, Log, Record, Source, pixel_digest, pixel_hash
from fer_lightning.data.targets import label_and_target

DEFAULT_CACHE_DIR = Path("~/.cache/fer_lightning")  # as in conf/data

_WINDOW = 4096  # records in memory at a time; those of a CSV hold 9 kB of text each
_NUM_TIMED = 32  # images decoded twice, to measure the time for one
MIN_SECONDS_TO_FORK = 0.2  # of decoding in one process
MIN_SECONDS_TO_THREAD = 1e-3  # of decoding one image
_MAX_LISTED = 10  # bad images listed in an error

OnBad = Literal["error", "skip"]


class _Decoded(NamedTuple):
    """A decoded record; the first four fields give the order of the images."""

    split: int
    digest: bytes
    label: int
    id: str
    pixels: NDArray[np.uint8]
    target: NDArray[np.float32] | None = None


def load_faces(source: Source, *, cache_dir: Path, on_bad: OnBad = "error", log: Log) -> Faces:
    """Read a data set from its cache, or decode it and write the cache.

    Args:
        source: The source of the images.
        cache_dir: The folder of all caches, created if missing. If it cannot be written, the images are kept
            in memory and a warning is logged.
        on_bad: Whether images that cannot be decoded raise an error or are skipped.
        log: Receives sentences about progress and problems.

    Returns:
        The data set, in an order that depends only on its content; the arrays are read-only.

    Raises:
        FERError: If the source or a target has a fault, if images are bad and ``on_bad`` is ``error``, or if
            skipping them leaves a class without images in a split.
    """
    key = hashlib.blake2b(
        json.dumps(
            [SCHEMA, source.cache_key(), [*source.classes], source.image_size, channels_of(source), on_bad]
        ).encode(),
        digest_size=8,
    ).hexdigest()
    try:
        folder = private_folder(cache_dir.expanduser()) / f"{source.name}-{key}"
    except OSError as error:
        log(_in_memory(cache_dir.expanduser(), error))
        faces = _build(source, on_bad, log)
        _log_skipped(faces, source, log)
        return faces
    try:
        faces = read_cache(folder, source)
    except CACHE_ERRORS:  # absent, damaged or not trusted: checked again under the lock
        faces = _load_locked(folder, source, on_bad, log)
    _log_skipped(faces, source, log)
    return faces


def _log_skipped(faces: Faces, source: Source, log: Log) -> None:
    if faces.skipped:
        log(
            f"data.on_bad=skip: skipped {len(faces.skipped):,} of {len(faces) + len(faces.skipped):,} images "
            f"of {source.name}; the first: {faces.skipped[0]}"
        )


def _check_memory(source: Source, num_images: int) -> None:
    """Refuse images that do not fit into memory, in which they are decoded and then arranged.

    Args:
        source: The source of the images.
        num_images: How many are known of.
    """
    total = num_images * source.image_size**2 * channels_of(source)
    available = available_memory()
    if available is not None and 2 * total > available:
        raise FERError(
            f"data.image_size={source.image_size}: {num_images:,} images of {source.name} take "
            f"{2 * total / 1e9:,.1f} GB while they are decoded, and {available / 1e9:,.1f} GB of memory are "
            "free; choose a smaller data.image_size or fewer images"
        )


def _load_locked(folder: Path, source: Source, on_bad: OnBad, log: Log) -> Faces:
    with ExitStack() as stack:
        try:
            lock = lock_of(folder)
            try:
                stack.enter_context(lock.acquire(timeout=0))
            except Timeout:
                log(f"Waiting for another process that is building the data cache in {folder.parent}")
                stack.enter_context(lock.acquire())
            remove_abandoned(folder)
        except (OSError, NotImplementedError) as error:  # NotImplementedError: a file system without locks
            log(_in_memory(folder.parent, error))
            return _build(source, on_bad, log)
        if os.path.lexists(folder):
            try:
                return read_cache(folder, source)  # another process was faster
            except UntrustedError as error:
                log(f"{folder}: this cache is not trusted ({error}), building it again")
            except CACHE_ERRORS as error:
                log(f"{folder}: damaged cache ({error}), building it again")
        faces = _build(source, on_bad, log)
        try:
            write_cache(folder, faces, source)
            return read_cache(folder, source)
        except (OSError, UntrustedError) as error:
            log(_in_memory(folder.parent, error))
            return faces


def _in_memory(cache_dir: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or error
    return (
        f"data.cache_dir={cache_dir}: cannot be written ({reason}); the images are kept in memory and will "
        "be decoded again by the next run; choose a folder with free space"
    )


def _build(source: Source, on_bad: OnBad, log: Log) -> Faces:
    _check_memory(source, getattr(source, "num_images", 0))
    log(f"decoding the images of {source.name}, once")
    started = time.monotonic()
    faces, bad, held = _decode_all(source, on_bad)
    assert faces or held, f"{source.name} gave no records"
    for split, label in sorted(held - {(face.split, face.label) for face in faces}):
        raise FERError(
            f"data.on_bad=skip: no image of class {source.classes[label]} is left in the {SPLITS[split]} "
            f"split of {source.name}; the first of {len(bad):,} bad images is {bad[0]}"
        )
    log(f"decoded {len(faces):,} images in {time.monotonic() - started:.1f} s")
    return _arrange(faces, bad, source)


def _decode_all(source: Source, on_bad: OnBad) -> tuple[list[_Decoded], list[str], set[tuple[int, int]]]:
    """Decode every record.

    Returns:
        The good images, the bad ones as ``where: reason``, and each (split, label) that has records.
    """
    faces: list[_Decoded] = []
    bad: list[str] = []
    held: set[tuple[int, int]] = set()
    with ExitStack() as stack:
        decode_all: Callable[..., Iterator[_Decoded | str]] | None = None
        try:
            for window in _windows(source.records()):
                if decode_all is None:
                    strategy, num_workers = _decode_strategy(window, source)
                    decode_all = map
                    if strategy == "forks":
                        decode_all = partial(map_forked, num_processes=num_workers)
                    elif strategy == "threads":
                        decode_all = stack.enter_context(ThreadPoolExecutor(num_workers)).map
                for record, outcome in zip(window, decode_all(_decode, window), strict=True):
                    label, target = label_and_target(record, len(source.classes))
                    if label >= 0:
                        held.add((SPLITS.index(record.split), label))
                    if isinstance(outcome, _Decoded):
                        faces.append(outcome._replace(label=label, target=target))
                    else:
                        bad.append(f"{record.where}: {outcome}")
                _check_memory(source, len(faces))
        except FERError:
            if on_bad == "skip" or not bad:
                raise  # otherwise report the bad images, which may well be the cause
    if bad and on_bad == "error":
        raise _bad_images_error(bad, source.name)
    return faces, bad, held


def _bad_images_error(bad: list[str], name: str) -> FERError:
    listed = "".join(f"\n  {line}" for line in bad[:_MAX_LISTED])
    if len(bad) > _MAX_LISTED:
        listed += f"\n  and {len(bad) - _MAX_LISTED:,} more"
    found, them = (f"{len(bad):,} bad images", "them") if len(bad) > 1 else ("1 bad image", "it")
    return FERError(f"{found} in {name}; fix {them}, or skip {them} with data.on_bad=skip:{listed}")


def _decode_strategy(
    records: list[Record], source: Source
) -> tuple[Literal["forks", "threads", "serial"], int]:
    """Choose how to decode, and the number of workers, from the time that a few images take.

    Threads serve only large images: around Pillow and hashlib, which release the GIL, each image takes 0.1 ms
    of Python, and threads that contend for the GIL are slower than one (benchmarks/README.md).
    """
    if len(records) < 2:
        return "serial", 1
    _decode(records[0])  # Pillow imports its decoders
    timed = records[1 : _NUM_TIMED + 1]
    started = time.perf_counter()
    for record in timed:
        _decode(record)
    seconds = (time.perf_counter() - started) / len(timed)
    cores = available_cores()
    if cores > 1 and can_fork() and seconds * len(records) > MIN_SECONDS_TO_FORK:
        return "forks", min(cores, 16)
    if cores > 1 and source.parallel and seconds > MIN_SECONDS_TO_THREAD:
        return "threads", min(cores, 8)
    return "serial", 1


def _windows(records: Iterator[Record]) -> Iterator[list[Record]]:
    """Cut the records into lists; raise a fault of the source after the records that precede it."""
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


def _decode(record: Record) -> _Decoded | str:
    try:
        pixels = record.pixels()
    except FERError as error:
        return str(error)
    return _Decoded(SPLITS.index(record.split), pixel_digest(pixels), record.label, record.id, pixels)


def _arrange(faces: list[_Decoded], bad: list[str], source: Source) -> Faces:
    size = source.image_size
    shape = (size, size) if channels_of(source) == 1 else (size, size, channels_of(source))
    for face in faces:
        if face.pixels.shape != shape or face.pixels.dtype != np.uint8:
            raise FERError(
                f"{source.name}: {face.id}: pixels of shape {face.pixels.shape} and type "
                f"{face.pixels.dtype}, expected {shape} and uint8 in [0, 255]"
            )
    assert len({face.id for face in faces}) == len(faces), f"{source.name}: image ids are not unique"
    faces.sort(key=lambda face: face[:4])
    targets = _stack_targets(faces, source.name)
    return freeze(
        Faces(
            images=np.stack([face.pixels for face in faces]),
            labels=np.array([face.label for face in faces], np.int64),
            splits=np.array([face.split for face in faces], np.uint8),
            hashes=np.array([pixel_hash(face.digest) for face in faces], np.uint64),
            ids=np.array([face.id for face in faces]),
            classes=tuple(source.classes),
            fingerprint=fingerprint_of(
                [face.digest for face in faces],
                [face.split for face in faces],
                [face.label for face in faces],
                targets,
                source,
            ),
            skipped=tuple(bad),
            targets=targets,
        )
    )


def _stack_targets(faces: list[_Decoded], name: str) -> NDArray[np.float32] | None:
    """Stack the targets to ``(N, C)`` float32; None if there are none."""
    targets = [face.target for face in faces if face.target is not None]
    if not targets:
        return None
    if len(targets) < len(faces):
        without = next(face.id for face in faces if face.target is None)
        raise FERError(
            f"{name}: {len(targets):,} of {len(faces):,} images have a soft target and the others, such as "
            f"{without}, have none; give one to every image, or to none"
        )
    return np.stack(targets)
