"""Hashes, labels and splits of the published FER-2013, by which its images are recognised.

The file holds no image: 48 bits of a hash of each image's pixels, 40 bits of its coarse structure, its label
and its split. It was made from msambare/fer2013 of Kaggle (sha256 431dc77b...), and is made again by
``Published.of(faces).save(path)``.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.data.audit.near_duplicates import shrink
from fer_lightning.data.decode import chunks, to_grey_levels
from fer_lightning.data.faces import SPLITS, Faces

FILE = Path(__file__).with_name("fer2013_published.npz")
HASH_BITS, NUM_BITS = 48, 40  # of hashes and of codes
_MIN_SIDE = 12  # pixels; smaller images have too little structure
_SIDE = 48  # larger images are reduced to it

# The cosine frequencies (down, across) whose signs are the bits of a code: the lowest ones without the mean.
_FREQUENCIES = sorted(
    ((down, across) for down in range(9) for across in range(9) if down + across),
    key=lambda pair: (sum(pair), pair),
)[:NUM_BITS]


class Published(NamedTuple):
    """The published data set; an image with duplicates has one hash and several rows.

    Attributes:
        hashes: ``(U,)`` uint64 hashes of ``HASH_BITS`` bits, ascending.
        codes: ``(U,)`` uint64 codes of the coarse structure.
        image: ``(N,)`` int64 position in ``hashes`` of each row.
        labels: ``(N,)`` int64 positions in ``EXPRESSIONS``.
        splits: ``(N,)`` int64 positions in ``SPLITS``.
    """

    hashes: NDArray[np.uint64]
    codes: NDArray[np.uint64]
    image: NDArray[np.int64]
    labels: NDArray[np.int64]
    splits: NDArray[np.int64]

    @classmethod
    def of(cls, faces: Faces) -> "Published":
        """Describe a data set of 48 pixels whose classes are ``EXPRESSIONS``."""
        hashes, first, image = np.unique(short_hashes(faces.hashes), return_index=True, return_inverse=True)
        order = np.lexsort((faces.splits, faces.labels, image))
        return cls(
            hashes,
            structure_codes(faces.images[first]),
            image[order].astype(np.int64),
            faces.labels[order].astype(np.int64),
            faces.splits[order].astype(np.int64),
        )

    def save(self, path: Path) -> None:
        """Write the file that ``load_published`` reads."""
        np.savez_compressed(
            path,
            hashes=_to_bytes(self.hashes, HASH_BITS),
            codes=_to_bytes(self.codes, NUM_BITS),
            counts=np.bincount(self.image).astype(np.uint8),
            rows=(self.labels * len(SPLITS) + self.splits).astype(np.uint8),
        )


@cache
def load_published() -> Published:
    """Read the published FER-2013 that ships with the package."""
    with np.load(FILE, allow_pickle=False) as file:
        labels, splits = np.divmod(file["rows"].astype(np.int64), len(SPLITS))
        image = np.repeat(np.arange(len(file["counts"])), file["counts"])
        return Published(_from_bytes(file["hashes"]), _from_bytes(file["codes"]), image, labels, splits)


def _to_bytes(numbers: NDArray[np.uint64], num_bits: int) -> NDArray[np.uint8]:
    # Byte by byte, so that the high bytes of ascending numbers compress.
    return np.ascontiguousarray(numbers.astype(">u8").view(np.uint8).reshape(-1, 8)[:, -num_bits // 8 :].T)


def _from_bytes(columns: NDArray[np.uint8]) -> NDArray[np.uint64]:
    padded = np.zeros((columns.shape[1], 8), np.uint8)
    padded[:, -len(columns) :] = columns.T
    return padded.view(">u8").reshape(-1).astype(np.uint64)


def short_hashes(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Shorten hashes of pixels to ``HASH_BITS`` bits."""
    return hashes >> np.uint64(64 - HASH_BITS)


def structure_codes(images: NDArray[np.uint8], *, mirror: bool = False) -> NDArray[np.uint64]:
    """Compute the signs of the lowest cosine frequencies, which size, compression and noise hardly change.

    Args:
        images: ``(N, S, S)`` or ``(N, S, S, 3)`` uint8, S at least 12.
        mirror: Whether to compute them for the images mirrored left to right.

    Returns:
        ``(N,)`` uint64 of ``NUM_BITS`` bits.
    """
    size = min(images.shape[1], _SIDE)
    assert size >= _MIN_SIDE, size
    places = (np.arange(size) + 0.5) * np.pi / size
    waves = np.cos(np.arange(9)[:, None] * places).astype(np.float32)
    down, across = np.array(_FREQUENCIES).T
    codes = np.zeros(len(images), np.uint64)
    for part in chunks(images, len(images)):
        pixels = shrink(to_grey_levels(images[part]), size)
        found = (waves @ pixels @ waves.T)[:, down, across]
        if mirror:
            found = found * np.where(across % 2, -1, 1)
        bits = (found > 0).astype(np.uint64) << np.arange(NUM_BITS, dtype=np.uint64)
        codes[part] = bits.sum(axis=1, dtype=np.uint64)
    return codes


def has_structure(images: NDArray[np.uint8]) -> bool:
    """Return whether images are large enough for ``structure_codes``."""
    return bool(images.shape[1] >= _MIN_SIDE)
