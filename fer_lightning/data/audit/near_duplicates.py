"""Near-duplicates: one photograph in another crop, light or size."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.files import replacing
from fer_lightning.data.decode import chunks, to_grey_levels
from fer_lightning.data.faces import Log

# Candidates are pairs with similar thumbnails; gradients confirm them. Both bounds come from inspecting pairs
# of FER-2013: thumbnails alone also match different people in the same light, while all 72 inspected pairs
# with a gradient cosine of 0.60 to 0.62 were one photograph in another crop, light or watermark.
THUMBNAIL_SIDE = 12
MIN_THUMBNAIL_CORRELATION = 0.93
COMPARED_SIDE = 48  # larger images are reduced to this side, so that the bound is comparable
MIN_GRADIENT_CORRELATION = 0.6
# Of images at half this side, which a shift by a pixel or two hardly changes: frames of one video that are
# less alike than near-duplicates. On FER-2013 this adds 1,200 pairs, and no set that they join exceeds 24
# images.
HALF_SIDE = COMPARED_SIDE // 2
MIN_HALF_SIDE_CORRELATION = 0.7
MAX_IMAGES = 100_000  # the search is quadratic
MAX_CANDIDATES = 500_000  # faces aligned on one backdrop all have similar thumbnails
_VERSION = 1  # part of the cached file's name: raise it when a bound or the search changes
_SLOW_FROM = 10_000  # images; a shorter search ends before a message about it could be read
_TILE = 2048  # side of the part of the correlation matrix in memory, which takes 16 MB

DEFINITION = (
    f"Two images that are not pixel-identical and not constant, whose {THUMBNAIL_SIDE} x {THUMBNAIL_SIDE} "
    f"block averages have a Pearson correlation of at least {MIN_THUMBNAIL_CORRELATION} and whose "
    "differences between neighbouring pixels, rightwards and downwards, have a cosine of at least "
    f"{MIN_GRADIENT_CORRELATION} (at {COMPARED_SIDE} x {COMPARED_SIDE} pixels if they are larger), possibly "
    "after one is mirrored left to right. Groups join pairs that share an image; the number of images "
    "includes their duplicates."
)


class NearDuplicates(NamedTuple):
    """Pairs of near-duplicates, each once; those of ``find_similar`` include ones that are only alike.

    Attributes:
        first: ``(P,)`` int64 row of one image of each pair.
        second: ``(P,)`` int64 row of the other image, greater than the first.
        mirrored: ``(P,)`` bool, True if one is similar only to the mirror image of the other.
        gradient: ``(P,)`` float32 cosine of their gradients.
        left_out: Why pairs may be missing; empty if the search was complete.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    mirrored: NDArray[np.bool_]
    gradient: NDArray[np.float32]
    left_out: str

    def confirmed(self) -> "NearDuplicates":
        """Keep the near-duplicates, without pairs that are only alike."""
        kept = self.gradient >= MIN_GRADIENT_CORRELATION
        return NearDuplicates(
            self.first[kept], self.second[kept], self.mirrored[kept], self.gradient[kept], self.left_out
        )


def shrink(images: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Average blocks of ``(N, S, S)`` images with S of at least ``side``: ``(N, side, side)`` float32."""
    size = images.shape[1]
    if size == side:
        return images.astype(np.float32)
    edges = np.arange(side) * size // side
    sums = np.add.reduceat(np.add.reduceat(images, edges, axis=1, dtype=np.float32), edges, axis=2)
    heights = np.diff(edges, append=size)
    return np.divide(sums, np.outer(heights, heights), dtype=np.float32)


def _normalise(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(vectors, np.maximum(lengths, 1e-6))
    return unit


def _thumbnails(images: NDArray[np.uint8], rows: NDArray[np.int64], *, mirror: bool) -> NDArray[np.float32]:
    """Standardise thumbnails, so that the product of two is their correlation: ``(M, side ** 2)``."""
    step = -1 if mirror else 1
    parts = [
        shrink(to_grey_levels(images[rows[part], :, ::step]), THUMBNAIL_SIDE)
        for part in chunks(images, len(rows))
    ]
    flat = np.concatenate(parts).reshape(len(rows), -1)
    return _normalise(flat - flat.mean(axis=1, keepdims=True))


def _gradients(images: NDArray[np.uint8], side: int = COMPARED_SIDE) -> NDArray[np.float32]:
    """Compute the differences between neighbouring pixels, as one unit vector per image."""
    pixels = shrink(images, min(images.shape[1], side))
    across = np.diff(pixels, axis=2).reshape(len(pixels), -1)
    return _normalise(np.concatenate([across, np.diff(pixels, axis=1).reshape(len(pixels), -1)], axis=1))


def _candidates(
    images: NDArray[np.uint8], rows: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], bool]]:
    """Find pairs with similar thumbnails among some rows; yield some at a time: rows, rows, mirrored."""
    if not len(rows):
        return
    plain = _thumbnails(images, rows, mirror=False)
    for mirrored in (False, True):
        others = _thumbnails(images, rows, mirror=True) if mirrored else plain
        for top in range(0, len(rows), _TILE):
            for left in range(top, len(rows), _TILE):
                similar = (
                    plain[top : top + _TILE] @ others[left : left + _TILE].T >= MIN_THUMBNAIL_CORRELATION
                )
                above, across = np.divmod(np.flatnonzero(similar), similar.shape[1])
                one, other = above + top, across + left
                once = one < other
                first, second = rows[one[once]], rows[other[once]]
                for part in chunks(images, len(first)):
                    yield first[part], second[part], mirrored


def load_near_duplicates(
    images: NDArray[np.uint8], hashes: NDArray[np.uint64], *, cache_dir: Path, log: Log
) -> NearDuplicates:
    """Read the near-duplicates of a data set from the cache, or search for them and write them there.

    The file depends on the pixels alone, so the same images in other splits need no search.

    Args:
        images: ``(N, S, S)`` or ``(N, S, S, 3)`` uint8.
        hashes: ``(N,)`` uint64, equal for pixel-identical images.
        cache_dir: The folder of the data cache; if it cannot be written, the search is made each time.
        log: Receives a sentence if the search takes seconds.

    Returns:
        The result of ``find_similar``.
    """
    known, rows = np.unique(hashes, return_index=True)
    digest = hashlib.blake2b(known.astype("<u8").tobytes(), digest_size=8)
    digest.update(repr([_VERSION, images.shape[1:3]]).encode())
    path = cache_dir / f"near-{digest.hexdigest()}.npz"
    try:
        return _read(path, known, rows)
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile):  # absent or damaged
        if len(known) > _SLOW_FROM:
            log(f"comparing {len(known):,} images to find near-duplicates, once")
        near = find_similar(images, hashes)
        with suppress(OSError):  # load_faces has already logged it
            cache_dir.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                np.savez(
                    file,
                    first=hashes[near.first],
                    second=hashes[near.second],
                    mirrored=near.mirrored,
                    gradient=near.gradient,
                    left_out=np.array(near.left_out),
                )
        return near


def _read(path: Path, known: NDArray[np.uint64], rows: NDArray[np.int64]) -> NearDuplicates:
    """Read a file of ``load_near_duplicates``, and look up the first row of each hash.

    Args:
        path: The file.
        known: ``(U,)`` uint64 hashes of the data set, ascending.
        rows: ``(U,)`` int64 first row of each.
    """
    with np.load(path, allow_pickle=False) as archive:
        ends = [archive[name].astype(np.uint64, casting="safe") for name in ("first", "second")]
        mirrored, gradient = archive["mirrored"].astype(bool), archive["gradient"].astype(np.float32)
        left_out = str(archive["left_out"])
    if not len(ends[0]) == len(ends[1]) == len(mirrored) == len(gradient) or not np.isin(ends, known).all():
        raise ValueError(path)
    one, other = (rows[np.searchsorted(known, end)] for end in ends)
    return NearDuplicates(np.minimum(one, other), np.maximum(one, other), mirrored, gradient, left_out)


def find_near_duplicates(images: NDArray[np.uint8], hashes: NDArray[np.uint64]) -> NearDuplicates:
    """Compare every image with every other, see ``find_similar``; return near-duplicates only."""
    return find_similar(images, hashes).confirmed()


def find_similar(images: NDArray[np.uint8], hashes: NDArray[np.uint64]) -> NearDuplicates:
    """Compare every image with every other.

    A pair is returned if its images are near-duplicates as ``DEFINITION`` says, or if the cosine of their
    gradients is at least ``MIN_HALF_SIDE_CORRELATION`` at ``HALF_SIDE`` x ``HALF_SIDE`` pixels.

    Only the first of pixel-identical images is compared; a blank image has no near-duplicates, since it
    has no gradient. Each pair is found once, as not mirrored if it is similar both ways.
    """
    size = images.shape[1]
    unique = np.sort(np.unique(hashes, return_index=True)[1])
    none = np.empty(0, np.int64)
    found = [(none, none, none.astype(bool), none.astype(np.float32))]
    left_out = ""
    if len(unique) > MAX_IMAGES:
        left_out = (
            f"near-duplicates were not searched: {len(unique):,} different images exceed the limit of "
            f"{MAX_IMAGES:,} for pairwise comparison. Pixel-identical duplicates were counted."
        )
    elif size < THUMBNAIL_SIDE:
        left_out = (
            f"near-duplicates were not searched: images of {size} pixels a side are too small, at least "
            f"{THUMBNAIL_SIDE} are needed. Pixel-identical duplicates were counted."
        )
    else:
        num_candidates = 0
        for first, second, mirrored in _candidates(images, unique):
            others = to_grey_levels(images[second, :, :: -1 if mirrored else 1])
            ones = to_grey_levels(images[first])
            cosine = (_gradients(ones) * _gradients(others)).sum(axis=1)
            halved = (_gradients(ones, HALF_SIDE) * _gradients(others, HALF_SIDE)).sum(axis=1)
            near = (cosine >= MIN_GRADIENT_CORRELATION) | (halved >= MIN_HALF_SIDE_CORRELATION)
            found.append((first[near], second[near], np.full(near.sum(), mirrored), cosine[near]))
            num_candidates += len(first)
            if num_candidates > MAX_CANDIDATES:
                left_out = (
                    f"near-duplicates were searched only in part: more than {MAX_CANDIDATES:,} pairs have "
                    "similar thumbnails, and only the first of them were compared. There may be more than "
                    "counted."
                )
                break
    one, other, mirror_images, cosines = (np.concatenate(part) for part in zip(*found, strict=True))
    pair = one * len(hashes) + other
    kept = ~(mirror_images & np.isin(pair, pair[~mirror_images]))
    return NearDuplicates(one[kept], other[kept], mirror_images[kept], cosines[kept], left_out)
