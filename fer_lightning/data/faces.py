"""Faces in memory, and what a source of faces must offer."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "val", "test")  # FER-2013: Training, PublicTest, PrivateTest


def pixel_digest(pixels: NDArray[np.uint8]) -> bytes:
    """Hash an image's grey levels to 32 bytes: equal for pixel-identical images of one size."""
    return hashlib.blake2b(pixels.tobytes(), digest_size=32).digest()


def pixel_hash(digest: bytes) -> int:
    """Shorten a digest to the 64 bits by which copies are found; among 35,887 images none should collide."""
    return int.from_bytes(digest[:8])


class Record(NamedTuple):
    """One face of a source, not yet decoded.

    Attributes:
        id: ``split/class/name``, unique within the source.
        split: A name of ``SPLITS``.
        label: Position in the source's class list.
        where: The file (and line) to name in a message.
        pixels: Decodes the face to ``(S, S)`` uint8 grey levels; raises ``FERError`` whose text is the
            reason alone ("truncated image"), the caller adds ``where``. Must be safe to call from
            threads and forks.
    """

    id: str
    split: str
    label: int
    where: str
    pixels: Callable[[], NDArray[np.uint8]]


class Source(Protocol):
    """Where faces come from: one class for each published form, and one that draws them.

    Attributes:
        name: A short name such as ``fer2013``, used in messages and in the cache's folder names.
        classes: The class list that labels point into.
        image_size: Side of every face, in pixels.
        parallel: Whether threads speed its decoding up, or only wait for the interpreter's lock.
    """

    name: str
    classes: Sequence[str]
    image_size: int
    parallel: bool

    def cache_key(self) -> str:
        """Hash what would change if the source changed (path, size, time, settings), without decoding it."""
        ...

    def records(self) -> Iterator[Record]:
        """List every face; raise ``FERError`` for a fault of the source as a whole."""
        ...


@dataclass(frozen=True)
class Faces:
    """A whole data set, decoded, in an order that depends on its content alone.

    Rows are sorted by (split, pixels' hash, label), so a zip, a folder and a CSV of the same images give
    the same rows.

    Attributes:
        images: ``(N, S, S)`` uint8 grey levels, usually memory-mapped.
        labels: ``(N,)`` int64, positions in ``classes``.
        splits: ``(N,)`` uint8, positions in ``SPLITS``.
        hashes: ``(N,)`` uint64, equal for pixel-identical images.
        ids: ``(N,)`` str, ``split/class/name``, unique.
        classes: The class list.
        fingerprint: Hash of pixels, labels and splits: equal for every form of the same images.
        skipped: Images left out by ``on_bad=skip``, each as ``where: reason``.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    splits: NDArray[np.uint8]
    hashes: NDArray[np.uint64]
    ids: NDArray[np.str_]
    classes: tuple[str, ...]
    fingerprint: str
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)
