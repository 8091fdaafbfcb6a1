"""The cache of decoded images: each image is decoded once, later runs map the result into memory.

A cache is a folder ``<source>-<key>/`` of plain ``.npy`` arrays and a ``meta.json``. It is built under a
temporary name and renamed, so it is complete or absent; a lock makes a second builder of it wait.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from filelock import Timeout

from fer_lightning.core.errors import FERError
from fer_lightning.core.memory import available_memory
from fer_lightning.core.parallel import available_cores, can_fork, map_forked
from fer_lightning.core.progress import show_progress
from fer_lightning.data.arrange import Decoded, arrange, split_off_open
from fer_lightning.data.audit.near_duplicates import load_near_duplicates
from fer_lightning.data.cache_files import (
    CACHE_ERRORS,
    SCHEMA,
    UntrustedError,
    bytes_of_image,
    channels_of,
    freeze,
    lock_of,
    private_folder,
    read_cache,
    remove_abandoned,
    write_cache,
)
from fer_lightning.data.decoded_parts import MIN_BYTES, DecodedParts, Outcome
from fer_lightning.data.faces import SPLITS, Faces, Log, Record, Source, pixel_digest
from fer_lightning.data.targets import label_and_target

DEFAULT_CACHE_DIR = Path("~/.cache/fer_lightning")  # as in conf/data

_WINDOW = 4096  # records in memory at a time; those of a CSV hold 9 kB of text each
_NUM_TIMED = 32  # images decoded twice, to measure the time for one
MIN_SECONDS_TO_FORK = 0.2  # of decoding in one process
MIN_SECONDS_TO_THREAD = 1e-3  # of decoding one image
_MAX_LISTED = 10  # bad images listed in an error

OnBad = Literal["error", "skip"]
Nearness = Literal["together", "ignore"]


def load_faces(
    source: Source,
    *,
    cache_dir: Path,
    on_bad: OnBad = "error",
    near_duplicates: Nearness = "together",
    log: Log,
) -> Faces:
    """Read a data set from its cache, or decode it and write the cache.

    Args:
        source: The source of the images.
        cache_dir: The folder of all caches, created if missing. If it cannot be written, the images are kept
            in memory and a warning is logged.
        on_bad: Whether images that cannot be decoded raise an error or are skipped.
        near_duplicates: Whether near-duplicates get the same split, where the source leaves splits open.
        log: Receives sentences about progress and problems.

    Returns:
        The data set, in an order that depends only on its content; the arrays are read-only.

    Raises:
        FERError: If the source or a target has a fault, if images are bad and ``on_bad`` is ``error``, if
            skipping them leaves a class without images in a split, or if the images are too few for the
            splits.
    """
    try:
        own = private_folder(cache_dir.expanduser())
    except OSError as error:
        log(_in_memory(cache_dir.expanduser(), error))
        faces = _build(source, on_bad, near_duplicates, cache_dir.expanduser(), log)
        _log_skipped(faces, source, log)
        return faces
    folder = own / f"{source.name}-{_key(source, on_bad, near_duplicates)}"
    try:
        faces = read_cache(folder, source)
    except CACHE_ERRORS:  # absent, damaged or not trusted: checked again under the lock
        build = partial(_build, source, on_bad, near_duplicates, own, log)
        faces = _load_locked(folder, source, build, log)
    _log_skipped(faces, source, log)
    return faces


def _key(source: Source, on_bad: OnBad, near_duplicates: Nearness) -> str:
    """Hash what the cache of a source depends on."""
    settings = [
        SCHEMA,
        source.cache_key(),
        [*source.classes],
        source.image_size,
        channels_of(source),
        on_bad,
    ]
    if hasattr(source, "holdout"):
        settings.append(near_duplicates)
    return hashlib.blake2b(json.dumps(settings).encode(), digest_size=8).hexdigest()


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
    total = num_images * bytes_of_image(source)
    available = available_memory()
    if available is not None and 2 * total > available:
        raise FERError(
            f"data.image_size={source.image_size}: {num_images:,} images of {source.name} take "
            f"{2 * total / 1e9:,.1f} GB while they are decoded, and {available / 1e9:,.1f} GB of memory are "
            "free; choose a smaller data.image_size or fewer images"
        )


def _load_locked(folder: Path, source: Source, build: Callable[..., Faces], log: Log) -> Faces:
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
            return build()
        if os.path.lexists(folder):
            try:
                return read_cache(folder, source)  # another process was faster
            except UntrustedError as error:
                log(f"{folder}: this cache is not trusted ({error}), building it again")
            except CACHE_ERRORS as error:
                log(f"{folder}: damaged cache ({error}), building it again")
        parts = DecodedParts(folder)
        try:
            faces = build(parts)
            try:
                write_cache(folder, faces, source)
                faces = read_cache(folder, source)
            except (OSError, UntrustedError) as error:
                log(_in_memory(folder.parent, error))
        except Exception:  # but not a signal, after which another process goes on with the parts
            parts.remove()
            raise
        parts.remove()
        return faces


def _in_memory(cache_dir: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or error
    return (
        f"data.cache_dir={cache_dir}: cannot be written ({reason}); the images are kept in memory and will "
        "be decoded again by the next run; choose a folder with free space"
    )


def _build(
    source: Source,
    on_bad: OnBad,
    near_duplicates: Nearness,
    cache_dir: Path,
    log: Log,
    parts: DecodedParts | None = None,
) -> Faces:
    """Decode and arrange a data set; a large one in parts on the disk, if there are to be any."""
    known = getattr(source, "num_images", 0)
    if parts is None or known * bytes_of_image(source) <= MIN_BYTES:
        _check_memory(source, known)
    else:
        parts.check_space(source, known)
    log(f"decoding the images of {source.name}, once")
    started = time.monotonic()
    faces, bad, held = _decode_all(source, on_bad, parts)
    assert faces or held, f"{source.name} gave no records"
    for split, label in sorted(held - {(face.split, face.label) for face in faces}):
        raise FERError(
            f"data.on_bad=skip: no image of class {source.classes[label]} is left in the {SPLITS[split]} "
            f"split of {source.name}; the first of {len(bad):,} bad images is {bad[0]}"
        )
    log(f"decoded {len(faces):,} images in {time.monotonic() - started:.1f} s")
    notes: tuple[str, ...] = ()
    left_out = tuple(getattr(source, "left_out", ()))
    stack = parts.gather if parts else np.stack
    if (holdout := getattr(source, "holdout", lambda: None)()) is not None:
        find = partial(load_near_duplicates, cache_dir=cache_dir, log=log)
        together = near_duplicates == "together"
        faces, notes = split_off_open(faces, source, holdout, find if together else None, stack)
    return freeze(arrange(faces, bad, (*left_out, *notes), source, stack))


def _decode_all(
    source: Source, on_bad: OnBad, parts: DecodedParts | None
) -> tuple[list[Decoded], list[str], set[tuple[int, int]]]:
    """Decode every record.

    Returns:
        The good images, the bad ones as ``where: reason``, and each (split, label) that has records.
    """
    faces: list[Decoded] = []
    bad: list[str] = []
    held: set[tuple[int, int]] = set()
    known = getattr(source, "num_images", 0)
    with ExitStack() as stack:
        decode = _Decoder(source, stack)
        try:
            for number, window in enumerate(_windows(source.records())):
                outcomes = parts.read(number, window) if parts else None
                if outcomes is None:
                    outcomes = decode(window)
                    if parts is not None and max(known, len(faces)) * bytes_of_image(source) > MIN_BYTES:
                        outcomes = parts.write(number, window, outcomes)
                    else:
                        _check_memory(source, len(faces) + len(outcomes))
                for record, outcome in zip(window, outcomes, strict=True):
                    label, target = label_and_target(record, len(source.classes))
                    if label >= 0:
                        held.add((SPLITS.index(record.split), label))
                    if isinstance(outcome, Decoded):
                        faces.append(outcome._replace(label=label, target=target, group=record.group))
                    else:
                        bad.append(f"{record.where}: {outcome}")
                show_progress("decoding images", len(faces) + len(bad), known or None)
        except FERError:
            if on_bad == "skip" or not bad:
                raise  # otherwise report the bad images, which may well be the cause
    if bad and on_bad == "error":
        raise _bad_images_error(bad, source.name)
    return faces, bad, held


class _Decoder:
    """Decodes windows of records, as suits the time that the images of the first one take."""

    def __init__(self, source: Source, stack: ExitStack) -> None:
        self._source = source
        self._stack = stack  # ends the threads
        self._map: Callable[..., Iterable[Outcome]] | None = None

    def __call__(self, window: list[Record]) -> list[Outcome]:
        if self._map is None:
            strategy, num_workers = _decode_strategy(window, self._source)
            self._map = map
            if strategy == "forks":
                self._map = partial(map_forked, num_processes=num_workers)
            elif strategy == "threads":
                self._map = self._stack.enter_context(ThreadPoolExecutor(num_workers)).map
        return list(self._map(_decode, window))


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


def _decode(record: Record) -> Decoded | str:
    try:
        pixels = record.pixels()
    except FERError as error:
        return str(error)
    return Decoded(SPLITS.index(record.split), pixel_digest(pixels), record.label, record.id, pixels)
