"""The decoded data set (``Faces``), and the interface of a source of images."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "val", "test")  # FER-2013: Training, PublicTest, PrivateTest

Log = Callable[[str], None]  # receives a sentence for people, such as print or log.info


def pixel_digest(pixels: NDArray[np.uint8]) -> bytes:
    """Hash the pixels of an image to 32 bytes: equal for pixel-identical images of one size.

    A colour image of equal channels has the hash of its grey levels, so a grey data set has the same hashes
    and the same fingerprint whether it is read as grey or as colour.

    Args:
        pixels: ``(S, S)`` grey levels or ``(S, S, 3)`` colours.
    """
    if pixels.ndim == 3 and (pixels == pixels[:, :, :1]).all():
        pixels = pixels[:, :, 0]
    return hashlib.blake2b(pixels.tobytes(), digest_size=32).digest()


def pixel_hash(digest: bytes) -> int:
    """Shorten a digest to the 64 bits by which duplicates are found."""
    return int.from_bytes(digest[:8])


class Record(NamedTuple):
    """One image of a source, not yet decoded.

    Attributes:
        id: ``split/class/name``, unique within the source.
        split: A name in ``SPLITS``.
        label: Position in the class list of the source; -1 if label or split are invalid. It has no effect
            if there is a ``target``.
        where: The file (and line) to name in a message.
        pixels: Decodes the image to ``(S, S)`` uint8 grey levels, or to ``(S, S, 3)`` uint8 colours if the
            source has 3 channels, and is safe to call from threads and forks. The text of its ``FERError`` is
            the reason alone ("truncated image"); the caller adds ``where``.
        target: A soft target: ``(C,)`` votes or probabilities of the classes, of at least 0, divided by their
            sum later. The label is then the class with most of them, the first of equals. Either all records
            of a source have one, or none has.
        group: What the image belongs to, such as a person or a video, none of which may be in two splits.
            Either all records of a source have one, or none has.
    """

    id: str
    split: str
    label: int
    where: str
    pixels: Callable[[], NDArray[np.uint8]]
    target: NDArray[np.float32] | None = None
    group: str | None = None


class Holdout(NamedTuple):
    """The splits that are split off from the train images of a source, after these are decoded.

    Attributes:
        ratios: The part of each class that a split gets, by split; not empty.
        seed: The seed of the choice.
        where: The source, to name in a message.
    """

    ratios: Mapping[str, float]
    seed: int
    where: str


class Source(Protocol):
    """A source of images: one class for each published form, and one for the synthetic faces.

    Attributes:
        name: A short name such as ``fer2013``, used in messages and in the folder names of the cache.
        classes: The class list that labels refer to.
        image_size: Side of every image, in pixels.
        parallel: Whether threads speed up its decoding; False if it holds the GIL.

    A source of colour images also has ``channels``, 3; without it, its images are grey. One whose images are
    not all assigned to splits has ``holdout()``, which returns a ``Holdout``, or None if all are. One that
    knows how many images it has before it lists them says so in ``num_images``; too many for the memory are
    then refused before the first is decoded. One that does not use all of its images says so in ``left_out``,
    sentences that become ``Faces.notes``. One with soft targets may say in ``draws_labels`` that a class is
    drawn from the target of each image for each training batch.
    """

    name: str
    classes: Sequence[str]
    image_size: int
    parallel: bool

    def cache_key(self) -> str:
        """Hash what changes with the content (path, size, time, settings), without decoding anything."""
        ...

    def records(self) -> Iterator[Record]:
        """List every image; raise ``FERError`` for a fault of the source as a whole."""
        ...


@dataclass(frozen=True)
class Faces:
    """A whole decoded data set, in an order that depends only on its content.

    Rows are sorted by (split, hash of the pixels, label), so a zip, a folder and a CSV of the same images
    give the same rows.

    Attributes:
        images: ``(N, S, S)`` uint8 grey levels or ``(N, S, S, 3)`` uint8 colours, usually memory-mapped.
        labels: ``(N,)`` int64 positions in ``classes``.
        splits: ``(N,)`` uint8 positions in ``SPLITS``.
        hashes: ``(N,)`` uint64, equal for pixel-identical images.
        ids: ``(N,)`` str ``split/class/name``, unique.
        classes: The class list.
        fingerprint: Hash of pixels, labels (or targets) and splits: equal for every form of the same images.
        skipped: The images left out by ``on_bad=skip``, each as ``where: reason``.
        targets: ``(N, C)`` float32 soft targets that sum to 1; None if the data set has labels only.
        groups: ``(N,)`` str group of each image, such as a person; None if the source knows of none.
        notes: Sentences for people on how the splits were made, where that was not as asked for.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    splits: NDArray[np.uint8]
    hashes: NDArray[np.uint64]
    ids: NDArray[np.str_]
    classes: tuple[str, ...]
    fingerprint: str
    skipped: tuple[str, ...] = ()
    targets: NDArray[np.float32] | None = None
    groups: NDArray[np.str_] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)
