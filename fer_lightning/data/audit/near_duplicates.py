"""Near-duplicates: one photograph in another crop, light or size."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.data.audit.quality import chunks
from fer_lightning.data.decode import to_grey_levels
from fer_lightning.data.faces import Faces

# Candidates are pairs with similar thumbnails; gradients confirm them. Both bounds come from inspecting pairs
# of FER-2013: thumbnails alone also match different people in the same light, while all 72 inspected pairs
# with a gradient cosine of 0.60 to 0.62 were one photograph in another crop, light or watermark.
THUMBNAIL_SIDE = 12
MIN_THUMBNAIL_CORRELATION = 0.93
COMPARED_SIDE = 48  # larger images are reduced to this side, so that the bound is comparable
MIN_GRADIENT_CORRELATION = 0.6
MAX_IMAGES = 100_000  # the search is quadratic
MAX_CANDIDATES = 500_000  # faces aligned on one backdrop all have similar thumbnails
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
    """Pairs of near-duplicates, each once.

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


def _shrink(images: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
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
        _shrink(to_grey_levels(images[rows[part], :, ::step]), THUMBNAIL_SIDE)
        for part in chunks(images, len(rows))
    ]
    flat = np.concatenate(parts).reshape(len(rows), -1)
    return _normalise(flat - flat.mean(axis=1, keepdims=True))


def _gradients(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Compute the differences between neighbouring pixels, as one unit vector per image."""
    pixels = _shrink(images, min(images.shape[1], COMPARED_SIDE))
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


def find_near_duplicates(faces: Faces) -> NearDuplicates:
    """Compare every image with every other.

    Only the first of pixel-identical images is compared; a constant image has no near-duplicates, since it
    has no gradient. Each pair is found once, as not mirrored if it is similar both ways.
    """
    images, size = faces.images, faces.images.shape[1]
    unique = np.sort(np.unique(faces.hashes, return_index=True)[1])
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
            cosine = (_gradients(to_grey_levels(images[first])) * _gradients(others)).sum(axis=1)
            near = cosine >= MIN_GRADIENT_CORRELATION
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
    pair = one * len(faces) + other
    kept = ~(mirror_images & np.isin(pair, pair[~mirror_images]))
    return NearDuplicates(one[kept], other[kept], mirror_images[kept], cosines[kept], left_out)
