"""Detect altered images by the sharpness, brightness and contrast of each split.

Of colour images, the grey levels (ITU-R 601 luma) are measured.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.data.decode import chunks, to_grey_levels
from fer_lightning.data.faces import Faces, pixel_digest, pixel_hash
from fer_lightning.data.splits import LEAKS

FIGURES = ("sharpness", "brightness", "contrast")
DEFINITIONS = {
    "sharpness": "variance over the image of its Laplacian (4 neighbours, no border), grey levels 0..255",
    "brightness": "mean of the image's grey levels, 0..255",
    "contrast": "standard deviation of the image's grey levels, 0..255",
}

# Fingerprint of every published form of FER-2013, and medians of its splits, measured on 2026-11-22 on
# msambare/fer2013 of Kaggle (sha256 431dc77b...).
FER2013_FINGERPRINT = "f6998d1d1c42417aaf1d80ab0d7e2f85"
FER2013_MEDIANS = {
    "train": {"sharpness": 2020.99, "brightness": 129.525, "contrast": 53.652},
    "val": {"sharpness": 2039.86, "brightness": 129.958, "contrast": 53.597},
    "test": {"sharpness": 2044.79, "brightness": 129.322, "contrast": 53.909},
}
FER2013_COUNTS = {"train": 28_709, "val": 3_589, "test": 3_589}

# Largest relative difference of a median that is not reported; five standard errors of the medians are
# added, so that a small part of an unaltered data set passes. Another JPEG pass at quality 75, the mildest
# alteration to be detected, reduces the sharpness of FER-2013 by 5 %; its splits differ by at most 1.2 %.
KNOWN_BOUND = 0.03
SPLIT_BOUND = 0.15  # splits of other data sets may come from different cameras
MIN_IMAGES = 100  # smaller splits are not judged

_CAUSES = {  # what decreases a figure, and what increases it
    "sharpness": ("blurred, compressed again, or scaled up or down and back", "sharpened or noisy"),
    "contrast": ("flattened in contrast", "equalised or stretched in contrast"),
    "brightness": ("darkened", "brightened"),
}
_TINY = 1e-6  # blank images have medians of 0


def find_constant(faces: Faces) -> NDArray[np.bool_]:
    """Find images of a single grey level, by their hashes, or of a single colour: ``(N,)`` bool."""
    images, shape = faces.images, faces.images.shape[1:3]
    blanks = [pixel_hash(pixel_digest(np.full(shape, level, dtype=np.uint8))) for level in range(256)]
    constant = np.isin(faces.hashes, np.array(blanks, dtype=np.uint64))
    if images.ndim == 4:
        for part in chunks(images, len(images)):
            chunk = images[part]
            constant[part] = (chunk == chunk[:, :1, :1]).all(axis=(1, 2, 3))
    return constant


class Level(NamedTuple):
    """The median of one figure over a split.

    Attributes:
        median: In the unit of the figure.
        noise: Five standard errors of the median, relative to it; infinite for a split that is too small.
    """

    median: float
    noise: float


def measure_quality(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Measure ``FIGURES`` of ``(N, S, S)`` or ``(N, S, S, 3)`` uint8 images: ``(3, N)`` float32."""
    measured = np.zeros((len(FIGURES), len(images)), np.float32)
    for part in chunks(images, len(images)):
        chunk = to_grey_levels(images[part]).astype(np.int16)  # a Laplacian reaches 4 x 255
        inner = chunk[:, 1:-1, 1:-1]
        if inner.size:  # empty for images of less than 3 pixels a side
            sides = chunk[:, :-2, 1:-1] + chunk[:, 2:, 1:-1] + chunk[:, 1:-1, :-2] + chunk[:, 1:-1, 2:]
            laplacian = (sides - 4 * inner).reshape(len(chunk), -1)
            measured[0, part] = laplacian.astype(np.float32).var(axis=1)
        levels = chunk.reshape(len(chunk), -1).astype(np.float32)
        measured[1, part] = levels.mean(axis=1)
        measured[2, part] = levels.std(axis=1)
    return measured


def summarise_quality(measured: NDArray[np.float32]) -> dict[str, Level]:
    """Summarise the ``(3, N)`` figures of a split; empty for a split without images."""
    if not measured.shape[1]:
        return {}
    low, middle, high = np.percentile(measured, (25, 50, 75), axis=1)
    # The standard error of the median of a normal sample is 1.253 sd / sqrt(n), and its quartiles are 1.349
    # sd apart.
    n = measured.shape[1]
    error = 1.253 / 1.349 * (high - low) / (middle + _TINY) / math.sqrt(n)
    noise = 5 * error if n >= MIN_IMAGES else np.full(len(FIGURES), np.inf)
    return {figure: Level(float(middle[index]), float(noise[index])) for index, figure in enumerate(FIGURES)}


def judge_fer2013(levels: Mapping[str, Mapping[str, Level]]) -> list[str]:
    """Compare splits with the known medians of FER-2013: one warning for each altered split."""
    warnings = []
    for split, level in levels.items():
        known = {figure: Level(median, 0) for figure, median in FER2013_MEDIANS[split].items()}
        differing = _differences(level, known, KNOWN_BOUND)
        if differing:
            warnings.append(
                f"{split} images differ from FER-2013: {_describe(level, known, differing)} They look "
                f"{_likely_cause(level, known, differing)}; scores on them are not comparable with published "
                "ones."
            )
    return warnings


def describe_look(measured: NDArray[np.float32]) -> str:
    """Describe how some images of FER-2013 differ from its training images.

    Args:
        measured: ``(3, M)`` float32, the result of ``measure_quality``.

    Returns:
        Such as ``brightened``; empty if they do not differ, or are too few to say.
    """
    known = {figure: Level(median, 0) for figure, median in FER2013_MEDIANS["train"].items()}
    level = summarise_quality(measured)
    differing = _differences(level, known, KNOWN_BOUND)
    return _likely_cause(level, known, differing) if differing else ""


def judge_splits(levels: Mapping[str, Mapping[str, Level]]) -> list[str]:
    """Compare splits with each other: one warning for each pair that differs."""
    warnings = []
    for other, split in LEAKS:  # train is compared with test, not test with train
        differing = _differences(levels[split], levels[other], SPLIT_BOUND)
        if differing:
            warnings.append(
                f"{split} images differ from {other} images: "
                f"{_describe(levels[split], levels[other], differing)} Compared with {other}, {split} looks "
                f"{_likely_cause(levels[split], levels[other], differing)}. Prepare all splits in the same "
                "way from the original images, or expect scores to reflect this difference."
            )
    return warnings


def _ratio(one: Level, other: Level) -> float:
    return (one.median + _TINY) / (other.median + _TINY)


def _differences(one: Mapping[str, Level], other: Mapping[str, Level], bound: float) -> dict[str, float]:
    """Return the ratio of each figure that differs by more than a bound plus the noise."""
    found = {}
    for figure in FIGURES:
        if figure in one and figure in other:
            ratio = _ratio(one[figure], other[figure])
            allowed = bound + math.hypot(one[figure].noise, other[figure].noise)
            if max(ratio, 1 / ratio) > 1 + allowed:
                found[figure] = ratio
    return found


def _describe(one: Mapping[str, Level], other: Mapping[str, Level], differing: Mapping[str, float]) -> str:
    described = [
        f"median {figure} {one[figure].median:.1f} vs. {other[figure].median:.1f} "
        f"({100 * (ratio - 1):+.0f} %)"
        for figure, ratio in differing.items()
    ]
    return f"{', '.join(described)}."


def _likely_cause(
    one: Mapping[str, Level], other: Mapping[str, Level], differing: Mapping[str, float]
) -> str:
    """Guess the alteration from the figure with the largest change.

    Grey levels multiplied by c have c times the contrast and c squared times the sharpness, which is a
    variance; only the rest of a change in sharpness is due to blur or noise.
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
