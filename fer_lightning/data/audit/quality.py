"""Sharpness, brightness and contrast of a data set, and what they say of copies that somebody altered."""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.data.faces import Faces, pixel_digest, pixel_hash
from fer_lightning.data.splits import LEAKS

FIGURES = ("sharpness", "brightness", "contrast")
DEFINITIONS = {
    "sharpness": "variance over the image of its Laplacian (4 neighbours, no border), grey levels 0..255",
    "brightness": "mean of the image's grey levels, 0..255",
    "contrast": "standard deviation of the image's grey levels, 0..255",
}

# Medians over the splits of FER-2013 as published, measured on 2026-11-22 on msambare/fer2013 of Kaggle
# (sha256 431dc77b...), and the fingerprint of every published form.
FER2013_FINGERPRINT = "f6998d1d1c42417aaf1d80ab0d7e2f85"
FER2013_MEDIANS = {
    "train": {"sharpness": 2020.99, "brightness": 129.525, "contrast": 53.652},
    "val": {"sharpness": 2039.86, "brightness": 129.958, "contrast": 53.597},
    "test": {"sharpness": 2044.79, "brightness": 129.322, "contrast": 53.909},
}
FER2013_COUNTS = {"train": 28_709, "val": 3_589, "test": 3_589}

# Five standard errors of the medians are added to these bounds, so that a small part of a clean data set
# passes. Sharpness of FER-2013 becomes, relative to what it was, 0.07 by a Gaussian blur of 1 pixel, 0.77 by
# one of 0.3, 0.28 to 0.79 by scaling to 224 pixels and back (bilinear to Lanczos), 2.3 by equalising its
# histogram (contrast 1.37), 0.25 by halving its contrast, 0.95 by another JPEG pass at quality 75 and 0.70 at
# 30. Its splits differ by 1.2 % at most.
KNOWN_BOUND = 0.03
SPLIT_BOUND = 0.15  # splits of other data sets may come from different cameras
MIN_IMAGES = 100  # of a split that is judged at all

_CAUSES = {  # what lowers a figure, and what raises it
    "sharpness": ("blurred, compressed anew, or scaled up or down and back", "sharpened or noisy"),
    "contrast": ("flattened in contrast", "equalised or stretched in contrast"),
    "brightness": ("darkened", "brightened"),
}
_TINY = 1e-6  # blank images have medians of 0
_CHUNK_PIXELS = 2048 * 48 * 48  # converted to floats at once


def find_constant(faces: Faces) -> NDArray[np.bool_]:
    """Mark constant images, ``(N,)``, by the hashes of the 256 there can be."""
    shape = faces.images.shape[1:]
    blanks = [pixel_hash(pixel_digest(np.full(shape, level, dtype=np.uint8))) for level in range(256)]
    return np.isin(faces.hashes, np.array(blanks, dtype=np.uint64))


def chunks(images: NDArray[np.uint8], n: int) -> Iterator[slice]:
    """Cut ``n`` rows of images into slices of a few MB, whatever the images' size."""
    step = max(1, _CHUNK_PIXELS // (images.shape[1] * images.shape[2]))
    return (slice(start, start + step) for start in range(0, n, step))


class Level(NamedTuple):
    """A split's median of one figure, and five standard errors of it, as a part of it."""

    median: float
    noise: float


def measure(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Measure ``FIGURES`` of ``(N, S, S)`` images: ``(3, N)`` float32."""
    measured = np.zeros((len(FIGURES), len(images)), np.float32)
    for part in chunks(images, len(images)):
        chunk = images[part].astype(np.int16)  # a Laplacian reaches 4 x 255
        inner = chunk[:, 1:-1, 1:-1]
        if inner.size:  # none below 3 pixels a side
            sides = chunk[:, :-2, 1:-1] + chunk[:, 2:, 1:-1] + chunk[:, 1:-1, :-2] + chunk[:, 1:-1, 2:]
            laplacian = (sides - 4 * inner).reshape(len(chunk), -1)
            measured[0, part] = laplacian.astype(np.float32).var(axis=1)
        levels = chunk.reshape(len(chunk), -1).astype(np.float32)
        measured[1, part] = levels.mean(axis=1)
        measured[2, part] = levels.std(axis=1)
    return measured


def summarise(measured: NDArray[np.float32]) -> dict[str, Level]:
    """Summarise the ``(3, N)`` figures of a split; empty where it has no image."""
    if not measured.shape[1]:
        return {}
    low, middle, high = np.percentile(measured, (25, 50, 75), axis=1)
    # The standard error of a normal sample's median is 1.253 sd / sqrt(n), and its quartiles lie 1.349 sd
    # apart. Too few images to judge by count as endless noise.
    n = measured.shape[1]
    error = 1.253 / 1.349 * (high - low) / (middle + _TINY) / math.sqrt(n)
    noise = 5 * error if n >= MIN_IMAGES else np.full(len(FIGURES), np.inf)
    return {figure: Level(float(middle[index]), float(noise[index])) for index, figure in enumerate(FIGURES)}


def judge_published(fingerprint: str, counts: Mapping[str, int]) -> list[str]:
    """Compare a data set of the name and size of FER-2013 with the published one, pixel for pixel.

    Args:
        fingerprint: Of the data set.
        counts: Its images, by split.

    Returns:
        A sentence if it is another one; a milder one where a split has more or fewer images, which may be
        meant, as with ``data.on_bad=skip``.
    """
    if fingerprint == FER2013_FINGERPRINT:
        return []
    source = f"msambare/fer2013 of Kaggle, whose fingerprint here is {FER2013_FINGERPRINT[:12]}."
    if counts == FER2013_COUNTS:
        return [
            "this FER-2013 is not the published one: every split has as many images, but pixels or labels of "
            "some were altered, so scores on it do not compare with published ones. Use an unaltered copy, "
            f"such as {source}"
        ]
    found = " / ".join(f"{counts[split]:,} {split}" for split in FER2013_COUNTS)
    published = " / ".join(f"{n:,}" for n in FER2013_COUNTS.values())
    return [
        f"this FER-2013 has {found} images, not the {published} published. That is no fault if it is meant, "
        "but whether each of them is as published cannot be told, and scores compare with published ones on "
        f"the same test images alone. The whole is {source}"
    ]


def judge_fer2013(levels: Mapping[str, Mapping[str, Level]]) -> list[str]:
    """Compare splits with what FER-2013 is known to have: a sentence for each that was altered."""
    warnings = []
    for split, level in levels.items():
        known = {figure: Level(median, 0) for figure, median in FER2013_MEDIANS[split].items()}
        differing = _differences(level, known, KNOWN_BOUND)
        if differing:
            warnings.append(
                f"{split} images are not those of FER-2013: {_describe(level, known, differing)} They look "
                f"{_likely_cause(level, known, differing)}; scores on them do not compare with published "
                "ones."
            )
    return warnings


def judge_splits(levels: Mapping[str, Mapping[str, Level]]) -> list[str]:
    """Compare splits with one another: a sentence for each pair that is unlike."""
    warnings = []
    for other, split in LEAKS:  # train beside test, and so on: the split that learns is named first
        differing = _differences(levels[split], levels[other], SPLIT_BOUND)
        if differing:
            warnings.append(
                f"{split} images are unlike {other} images: "
                f"{_describe(levels[split], levels[other], differing)} Beside {other}, {split} looks "
                f"{_likely_cause(levels[split], levels[other], differing)}. Prepare all splits alike from "
                "the original images, or expect scores that tell of this difference."
            )
    return warnings


def _ratio(one: Level, other: Level) -> float:
    return (one.median + _TINY) / (other.median + _TINY)


def _differences(one: Mapping[str, Level], other: Mapping[str, Level], bound: float) -> dict[str, float]:
    """Give the ratio of each figure that differs by more than a bound and what chance allows."""
    found = {}
    for figure in FIGURES:
        if figure in one and figure in other:
            ratio = _ratio(one[figure], other[figure])
            allowed = bound + math.hypot(one[figure].noise, other[figure].noise)
            if max(ratio, 1 / ratio) > 1 + allowed:
                found[figure] = ratio
    return found


def _describe(one: Mapping[str, Level], other: Mapping[str, Level], differing: Mapping[str, float]) -> str:
    told = [
        f"median {figure} {one[figure].median:.1f} against {other[figure].median:.1f} "
        f"({100 * (ratio - 1):+.0f} %)"
        for figure, ratio in differing.items()
    ]
    return f"{', '.join(told)}."


def _likely_cause(
    one: Mapping[str, Level], other: Mapping[str, Level], differing: Mapping[str, float]
) -> str:
    """Guess what was done, from what it does to faces (see ``KNOWN_BOUND``): the largest change names it.

    Grey levels times c have c times the contrast and, a variance, c squared times the sharpness; only what
    is left of a change of sharpness is blur or grain.
    """
    log = {figure: math.log(_ratio(one[figure], other[figure])) for figure in FIGURES}
    changes = {"contrast": log["contrast"]}
    if "sharpness" in differing:
        changes["sharpness"] = log["sharpness"] / 2 - log["contrast"]
    if "brightness" in differing:
        changes["brightness"] = log["brightness"]
    largest = max(changes, key=lambda figure: abs(changes[figure]))
    lowered, raised = _CAUSES[largest]
    return raised if changes[largest] > 0 else lowered
