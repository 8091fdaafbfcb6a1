"""Decoded images on the disk, part by part, of a data set that is too large to be decoded in memory.

The folder is next to the cache that is being built. Each part is written whole, so that a build which is
killed goes on with the next part. It is removed once the cache is complete.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import replacing
from fer_lightning.data.arrange import Decoded
from fer_lightning.data.cache_files import CACHE_ERRORS, DECODING, bytes_of_image, check_private
from fer_lightning.data.faces import SPLITS, Record, Source, pixel_digest

MIN_BYTES = 1e9  # of images; fewer are decoded in memory
_GATHERED = 4096  # images copied together

Outcome = Decoded | str  # an image, or why it is bad


class _Part(NamedTuple):
    """One window of records: the pixels of its good images, and why the others are bad."""

    pixels: NDArray[np.uint8]
    reasons: list[str | None]


class DecodedParts:
    """The parts of one cache that is being built, whose lock is held.

    Args:
        cache: The folder of the cache.

    Attributes:
        folder: Of the parts; it exists only while there are some.
    """

    def __init__(self, cache: Path) -> None:
        self.folder = cache.with_name(f"{DECODING}{cache.name}")

    def __bool__(self) -> bool:
        """Whether there are parts."""
        return self.folder.is_dir()

    def read(self, number: int, records: Sequence[Record]) -> list[Outcome] | None:
        """Read what an earlier build decoded of some records; None if it did not, or the files are damaged.

        Args:
            number: Of the part.
            records: Of the part, as listed now.
        """
        if not self:
            return None
        try:
            return _outcomes(self._read(number, records), records)
        except CACHE_ERRORS:
            return None

    def _read(self, number: int, records: Sequence[Record]) -> _Part:
        check_private(self.folder, within=False)
        described = json.loads(self._path(number, "json").read_text(encoding="utf-8"))
        if described["records"] != _hash_of(records):
            raise ValueError("of other records")
        pixels = np.load(self._path(number, "npy"), mmap_mode="r", allow_pickle=False).view(np.ndarray)
        reasons = described["reasons"]
        digests = [bytes.fromhex(text) for text in described["digests"]]
        if len(reasons) != len(records) or not len(pixels) == len(digests) == reasons.count(None):
            raise ValueError("incomplete")
        if [pixel_digest(image) for image in pixels] != digests:
            raise ValueError("altered")
        return _Part(pixels, reasons)

    def write(self, number: int, records: Sequence[Record], outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Write a part; return its outcomes, with their pixels mapped from the disk.

        Raises:
            FERError: If it cannot be written.
        """
        try:
            return self._write(number, records, outcomes)
        except OSError as error:
            raise FERError(
                f"data.cache_dir={self.folder.parent}: cannot be written ({error.strerror or error}), "
                "and the images are too many to be decoded in memory; choose a folder with free space"
            ) from error

    def _write(self, number: int, records: Sequence[Record], outcomes: Sequence[Outcome]) -> list[Outcome]:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        good = [outcome for outcome in outcomes if isinstance(outcome, Decoded)]
        path = self._path(number, "npy")
        with replacing(path) as file:
            np.save(file, np.stack([face.pixels for face in good]) if good else np.empty(0, np.uint8))
        described = {
            "records": _hash_of(records),
            "reasons": [None if isinstance(outcome, Decoded) else outcome for outcome in outcomes],
            "digests": [face.digest.hex() for face in good],
        }
        with replacing(self._path(number, "json")) as file:
            file.write(json.dumps(described).encode())
        pixels = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
        mapped = iter(pixels)
        return [
            outcome if isinstance(outcome, str) else outcome._replace(pixels=next(mapped))
            for outcome in outcomes
        ]

    def check_space(self, source: Source, num_images: int) -> None:
        """Refuse images for which the disk has no space: they are there twice while they are put in order.

        Args:
            source: The source of the images.
            num_images: How many it has.
        """
        needed = 2 * num_images * bytes_of_image(source)
        free = shutil.disk_usage(self.folder.parent).free
        if needed > free:
            raise FERError(
                f"data.image_size={source.image_size}: {num_images:,} images of {source.name} take "
                f"{needed / 1e9:,.1f} GB in data.cache_dir={self.folder.parent} while they are decoded, and "
                f"{free / 1e9:,.1f} GB are free there; choose another folder, a smaller data.image_size or "
                "fewer images"
            )

    def gather(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Copy images to one file of the folder, in their order, and map it into memory."""
        shape = (len(images), *images[0].shape)
        path = self.folder / "images.npy"
        gathered = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        path.chmod(0o600)
        for first in range(0, len(images), _GATHERED):
            gathered[first : first + _GATHERED] = np.stack(images[first : first + _GATHERED])
        gathered.flush()
        return gathered

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int, suffix: str) -> Path:
        return self.folder / f"{number:06d}.{suffix}"


def _hash_of(records: Iterable[Record]) -> str:
    """Hash which records these are; the cache's key says that their content is the same."""
    names = "\n".join(f"{record.id}\t{record.where}" for record in records)
    return hashlib.blake2b(names.encode(errors="surrogateescape"), digest_size=8).hexdigest()


def _outcomes(part: _Part, records: Sequence[Record]) -> list[Outcome]:
    pixels = iter(part.pixels)
    return [
        _decoded(record, next(pixels)) if reason is None else reason
        for record, reason in zip(records, part.reasons, strict=True)
    ]


def _decoded(record: Record, pixels: NDArray[np.uint8]) -> Decoded:
    return Decoded(SPLITS.index(record.split), pixel_digest(pixels), record.label, record.id, pixels)
