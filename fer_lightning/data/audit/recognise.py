"""Recognise the images of the published FER-2013: by their pixels, mirrored, or by their coarse structure."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.data.audit.published import (
    Published,
    has_structure,
    short_hashes,
    structure_codes,
)
from fer_lightning.data.faces import Faces, pixel_digest, pixel_hash

SIZE = 48  # pixels a side, of the published images
MIN_SHARE = 0.5  # of the images of a data set that is taken for FER-2013

# Largest numbers of differing bits. Of FER-2013's images, 99 % differ from themselves in at most 3 bits after
# JPEG compression at quality 75, blur, noise of 10 grey levels, or enlarging, and in at most 9 after
# equalisation. Of synthetic faces, 7 % are within 3 bits of one of them, and 66 % within 5.
_MAX_SURE = 3
_MAX_UNUSED = 5  # from an image that nothing else in the data set is
_MAX_ALTERED = 9  # if most images of the data set are altered
_MIN_MIRRORED = 3  # bits by which the mirror image is nearer
_MIN_MIRRORED_SHARE = 0.05  # of the altered images, below which none is taken for mirrored
_MAX_COPY = 2  # from any image
_NUM_SAMPLED = 500  # images, to see whether a data set has those of FER-2013 at all
_TILE = 256  # images compared with all published ones at a time, which takes 70 MB

UNKNOWN, SAME, MIRRORED, ALTERED = range(4)


class Recognised(NamedTuple):
    """The published image that each image of a data set is.

    Attributes:
        image: ``(N,)`` int64 position in ``Published.hashes``; -1 for an image that is none of them.
        how: ``(N,)`` uint8: ``UNKNOWN``, ``SAME`` (pixels), ``MIRRORED``, or ``ALTERED``.
        sure: ``(N,)`` bool, False if its structure differs in more than 3 bits, or another published image is
            nearly as similar.
        by_structure: ``(N,)`` bool, True if its pixels are not those of a published image, mirrored or not.
    """

    image: NDArray[np.int64]
    how: NDArray[np.uint8]
    sure: NDArray[np.bool_]
    by_structure: NDArray[np.bool_]


def recognise(
    faces: Faces, published: Published, labels: NDArray[np.int64], *, min_share: float = MIN_SHARE
) -> Recognised:
    """Find the published image that each image is.

    Args:
        faces: Any data set.
        published: FER-2013.
        labels: ``(N,)`` int64 positions in ``EXPRESSIONS``, -1 for other classes; they decide between
            published images that are equally similar.
        min_share: The part of the images that has to be similar to published ones, to look for the others.
    """
    n = len(faces)
    image, how = np.full(n, -1), np.full(n, UNKNOWN, np.uint8)
    sure = np.ones(n, bool)
    if faces.images.shape[1] == SIZE:
        image = _look_up(short_hashes(faces.hashes), published)
        how[image >= 0] = SAME
        rest = np.flatnonzero(image < 0)
        flipped = [pixel_hash(pixel_digest(faces.images[row][:, ::-1])) for row in rest.tolist()]
        image[rest] = _look_up(short_hashes(np.array(flipped, np.uint64)), published)
        how[rest[image[rest] >= 0]] = MIRRORED
    rest = np.flatnonzero(image < 0)
    if not len(rest) or not has_structure(faces.images):
        return Recognised(image, how, sure, how == ALTERED)
    most = _MAX_UNUSED
    known = len(rest) < MIN_SHARE * n
    if not known:
        most = _MAX_ALTERED
        sample = np.random.default_rng(0).choice(rest, min(_NUM_SAMPLED, len(rest)), replace=False)
        nearest = _nearest(faces, np.sort(sample), labels, published, np.arange(len(published.hashes)))
        known = bool((nearest.distance <= _MAX_SURE).mean() >= min_share)
    exact = how != UNKNOWN
    if known:
        unused = np.setdiff1d(np.arange(len(published.hashes)), image)
        for candidates, bound in ((unused, most), (np.arange(len(published.hashes)), _MAX_COPY)):
            rest = np.flatnonzero(image < 0)
            if len(rest) and len(candidates):
                nearest = _nearest(faces, rest, labels, published, candidates)
                near = nearest.distance <= bound
                image[rest[near]] = nearest.image[near]
                sure[rest[near]] = (nearest.alone & (nearest.distance <= _MAX_SURE))[near]
                how[rest[near]] = np.where(nearest.mirrored[near], MIRRORED, ALTERED)
    by_structure = ~exact & (how != UNKNOWN)
    flipped = by_structure & (how == MIRRORED)
    if flipped.sum() < _MIN_MIRRORED_SHARE * by_structure.sum():  # faces that are nearly symmetric
        how[flipped] = ALTERED
    return Recognised(image, how, sure, by_structure)


def _look_up(hashes: NDArray[np.uint64], published: Published) -> NDArray[np.int64]:
    """Find hashes among those published: ``(M,)`` int64 positions, -1 if there is none."""
    place = np.searchsorted(published.hashes, hashes).clip(max=len(published.hashes) - 1)
    return np.where(published.hashes[place] == hashes, place, -1)


class _Nearest(NamedTuple):
    """The most similar published image of each of M images.

    Attributes:
        image: ``(M,)`` int64 position in ``Published.hashes``.
        distance: ``(M,)`` int64 number of differing bits.
        mirrored: ``(M,)`` bool, True if the mirror image is more similar.
        alone: ``(M,)`` bool, True if no other published image is within one more bit.
    """

    image: NDArray[np.int64]
    distance: NDArray[np.int64]
    mirrored: NDArray[np.bool_]
    alone: NDArray[np.bool_]


def _nearest(
    faces: Faces,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    published: Published,
    candidates: NDArray[np.int64],
) -> _Nearest:
    codes = published.codes[candidates]
    first_row = np.searchsorted(published.image, candidates)
    belongs = published.labels[first_row] * 4 + published.splits[first_row]
    wanted = labels[rows] * 4 + faces.splits[rows]
    found = []
    for mirror in (False, True):
        own = np.concatenate(
            [
                structure_codes(faces.images[part], mirror=mirror)
                for part in np.array_split(rows, len(rows) // 4096 + 1)
            ]
        )
        image, distance, near = (np.zeros(len(rows), np.int64) for _ in range(3))
        for start in range(0, len(rows), _TILE):
            part = slice(start, start + _TILE)
            bits = np.bitwise_count(own[part, None] ^ codes[None])
            distance[part] = bits.min(axis=1)
            near[part] = (bits <= distance[part, None] + 1).sum(axis=1)
            # Of equally similar ones, the one with the label and the split of the image.
            bits *= 2
            bits += belongs[None] != wanted[part, None]
            image[part] = candidates[bits.argmin(axis=1)]
        found.append((image, distance, near == 1))
    plain, flipped = found
    mirrored = flipped[1] + _MIN_MIRRORED <= plain[1]
    image, distance, alone = (np.where(mirrored, two, one) for one, two in zip(plain, flipped, strict=True))
    return _Nearest(image, distance, mirrored, alone.astype(bool))
