"""Near-duplicates: one photograph in another crop, light or size."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.data.audit.quality import chunks
from fer_lightning.data.faces import Faces

# Near-duplicates are looked for among thumbnails and confirmed on gradients; the bounds come from looking at
# pairs of FER-2013. Thumbnails that correlate by 0.93 are a net only: mirrored, 580 of 618 are two people
# in frontal light before a dark backdrop, and grey levels at full resolution take some of these for one
# picture up to a correlation of 0.93. Gradients tell them apart: of 60 random pairs with a cosine of 0.45 to
# 0.50 about eight were different photographs, of 60 at 0.50 to 0.53 about three, of 60 at 0.55 to 0.57 and of
# 72 at 0.60 to 0.62 none; the others were one photograph in another crop, light or watermark. A net at 0.88
# would find 7 pairs beyond the 1,377.
THUMBNAIL_SIDE = 12
MIN_THUMBNAIL_CORRELATION = 0.93
COMPARED_SIDE = 48  # larger images are reduced to it, so that the bound means the same
MIN_GRADIENT_CORRELATION = 0.6
MAX_PICTURES = 100_000  # the search is quadratic: about 10 s for the 34,033 pictures of FER-2013, on one core
MAX_CANDIDATES = 500_000  # faces aligned on one backdrop all look alike as thumbnails; this many take 10 s
_TILE = 2048  # pictures a side of the correlation matrix held at once: 16 MB

DEFINITION = (
    f"Two pictures that are not pixel-identical, neither of them constant, whose {THUMBNAIL_SIDE} x "
    f"{THUMBNAIL_SIDE} block averages correlate by at least {MIN_THUMBNAIL_CORRELATION} (Pearson) and whose "
    "differences between neighbouring pixels, rightwards and downwards, have a cosine of at least "
    f"{MIN_GRADIENT_CORRELATION} (at {COMPARED_SIDE} x {COMPARED_SIDE} pixels where they are larger); or "
    "that do so once one is mirrored left to right. Groups join pairs that share a picture; images count "
    "copies of these pictures too."
)


class Near(NamedTuple):
    """Pairs of near-duplicates, each once.

    Attributes:
        first: ``(P,)`` int64 rows.
        second: ``(P,)`` int64 rows.
        mirrored: ``(P,)`` bool, whether one is like the other's mirror image alone.
        gradient: ``(P,)`` float32 cosine of their gradients.
        left_out: Why pairs may be missing; empty if the search was whole.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    mirrored: NDArray[np.bool_]
    gradient: NDArray[np.float32]
    left_out: str


def _shrink(images: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Average blocks of ``(N, S, S)`` images, S at least ``side``: ``(N, side, side)`` float32."""
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
    """Standardise thumbnails, so that a product of two is their correlation: ``(M, side ** 2)``."""
    step = -1 if mirror else 1
    parts = [_shrink(images[rows[part], :, ::step], THUMBNAIL_SIDE) for part in chunks(images, len(rows))]
    flat = np.concatenate(parts).reshape(len(rows), -1)
    return _normalise(flat - flat.mean(axis=1, keepdims=True))


def _gradients(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Give the unit vector of each image's differences between neighbouring pixels."""
    pixels = _shrink(images, min(images.shape[1], COMPARED_SIDE))
    across = np.diff(pixels, axis=2).reshape(len(pixels), -1)
    return _normalise(np.concatenate([across, np.diff(pixels, axis=1).reshape(len(pixels), -1)], axis=1))


def _candidates(
    images: NDArray[np.uint8], pictures: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], bool]]:
    """Find pairs of pictures whose thumbnails are alike, some at a time: rows, rows, mirrored."""
    if not len(pictures):
        return
    plain = _thumbnails(images, pictures, mirror=False)
    for mirrored in (False, True):
        others = _thumbnails(images, pictures, mirror=True) if mirrored else plain
        for top in range(0, len(pictures), _TILE):
            for left in range(top, len(pictures), _TILE):
                alike = plain[top : top + _TILE] @ others[left : left + _TILE].T >= MIN_THUMBNAIL_CORRELATION
                places, beside = np.divmod(np.flatnonzero(alike), alike.shape[1])
                one, other = places + top, beside + left
                once = one < other
                first, second = pictures[one[once]], pictures[other[once]]
                for part in chunks(images, len(first)):
                    yield first[part], second[part], mirrored


def find_near_duplicates(faces: Faces) -> Near:
    """Compare every picture with every other.

    Of pixel-identical ones the first stands for all; constant ones are like none, for they vary with nothing.
    A pair is found once, as not mirrored if it is both: a symmetric picture is its own mirror image.
    """
    images, size = faces.images, faces.images.shape[1]
    pictures = np.sort(np.unique(faces.hashes, return_index=True)[1])
    none = np.empty(0, np.int64)
    found = [(none, none, none.astype(bool), none.astype(np.float32))]
    left_out = ""
    if len(pictures) > MAX_PICTURES:
        left_out = (
            f"near-duplicates were not looked for: {len(pictures):,} different pictures are more than the "
            f"{MAX_PICTURES:,} that are compared pair by pair. Pixel-identical copies were counted."
        )
    elif size < THUMBNAIL_SIDE:
        left_out = (
            f"near-duplicates were not looked for: images of {size} pixels a side are too small, it takes "
            f"{THUMBNAIL_SIDE}. Pixel-identical copies were counted."
        )
    else:
        num_candidates = 0
        for first, second, mirrored in _candidates(images, pictures):
            beside = images[second, :, :: -1 if mirrored else 1]
            cosine = (_gradients(images[first]) * _gradients(beside)).sum(axis=1)
            near = cosine >= MIN_GRADIENT_CORRELATION
            found.append((first[near], second[near], np.full(near.sum(), mirrored), cosine[near]))
            num_candidates += len(first)
            if num_candidates > MAX_CANDIDATES:
                left_out = (
                    f"near-duplicates were looked for in part: more than {MAX_CANDIDATES:,} pairs look alike "
                    "at first glance, and only these were compared. There may be more than counted."
                )
                break
    one, other, mirror_images, cosines = (np.concatenate(part) for part in zip(*found, strict=True))
    pair = one * len(faces) + other
    kept = ~(mirror_images & np.isin(pair, pair[~mirror_images]))
    return Near(one[kept], other[kept], mirror_images[kept], cosines[kept], left_out)
