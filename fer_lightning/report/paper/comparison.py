"""Paired tests of predictors on the same images, ours and the paper's."""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.data.sampling import MANIFEST, draw_sample, read_manifest
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.evaluation.stats import PairedTest, compare_pairs, holm, mcnemar_exact
from fer_lightning.report.paper import reference
from fer_lightning.report.paper.runs import LLMResults, PaperRuns
from fer_lightning.report.run_results import path_inside

SIGNIFICANCE_LEVEL = 0.05


class Sample(NamedTuple):
    """The images of Table 2.

    Attributes:
        ids: ``(N,)`` image ids.
        origin: How the images were chosen.
    """

    ids: NDArray[np.str_]
    origin: str


class Comparison(NamedTuple):
    """Predictors on the same images, and a paired test of each pair.

    Attributes:
        predictions: Predictions of the same images by label, the most accurate predictor first.
        tests: One test per pair; the first predictor of a pair has at least as many correct answers.
        excluded: One sentence per predictor that was tested on other images.
    """

    predictions: dict[str, Predictions]
    tests: list[PairedTest]
    excluded: list[str]

    @property
    def num_images(self) -> int:
        """Number of images."""
        return max((len(predictions) for predictions in self.predictions.values()), default=0)

    def test_of(self, first: str, second: str) -> PairedTest:
        """Return the test of a pair, in either order."""
        return next(test for test in self.tests if {test.first, test.second} == {first, second})


def is_significant(test: PairedTest) -> bool:
    """Return whether a pair differs significantly after Holm's correction."""
    return test.p_holm < SIGNIFICANCE_LEVEL


def choose_sample(runs: PaperRuns) -> Sample | None:
    """Choose the images of Table 2.

    Returns:
        The images that the language models were asked about. Without language models, 5 images per class
        drawn with seed 0 from the images that all networks were tested on; None if there are too few.

    Raises:
        FERError: The language models were asked about different images.
    """
    lists = {llm.label: _asked_ids(llm) for llm in runs.llms}
    if lists:
        first, *others = lists
        for other in others:
            if set(lists[other].tolist()) != set(lists[first].tolist()):
                raise FERError(
                    f"{first} and {other} were asked about different images; write one report for each, or "
                    "ask both with the same sample=PATH"
                )
        return Sample(lists[first], f"the {len(lists[first]):,} images that {first} was asked about")
    tested = [network.predictions[0] for network in runs.networks]
    shared = np.isin(tested[0].ids, list(set.intersection(*(set(part.ids.tolist()) for part in tested))))
    candidates = tested[0].subset(shared)
    if np.bincount(candidates.labels, minlength=len(candidates.classes)).min() < reference.PER_CLASS:
        return None
    rows = draw_sample(candidates.labels, per_class=reference.PER_CLASS, seed=0)
    origin = f"{len(rows):,} test images, {reference.PER_CLASS} per class, drawn with seed 0"
    return Sample(candidates.ids[rows], origin)


def _asked_ids(llm: LLMResults) -> NDArray[np.str_]:
    manifest = path_inside(llm.run.folder, MANIFEST)
    if not manifest.exists():  # it was asked about the whole split
        return llm.predictions.ids
    return np.array([entry.id for entry in read_manifest(manifest)])


def compare_predictors(
    predictions: dict[str, Predictions], ids: NDArray[np.str_] | None = None
) -> Comparison:
    """Test each pair of predictors on the same images.

    Args:
        predictions: By label.
        ids: ``(N,)`` image ids; None for the images on which most of the predictors were tested.
    """
    if ids is None:
        image_sets = [frozenset(part.ids.tolist()) for part in predictions.values()]
        chosen = max(image_sets, key=lambda ids: (image_sets.count(ids), len(ids)), default=frozenset())
        ids = np.array(sorted(chosen))
    aligned, excluded = {}, []
    for label, part in predictions.items():
        row_of = {image: row for row, image in enumerate(part.ids.tolist())}
        rows = [row_of[image] for image in ids.tolist() if image in row_of]
        if len(rows) == len(ids):
            aligned[label] = part.subset(np.array(rows, dtype=np.int64))
        else:
            excluded.append(
                f"{label} is not compared: it was tested on {len(part):,} images, which include "
                f"{len(rows):,} of these {len(ids):,}."
            )
    ranked = dict(sorted(aligned.items(), key=lambda item: -int(item[1].correct.sum())))
    if len(ranked) < 2:
        return Comparison(ranked, [], excluded)
    tests = compare_pairs({label: part.correct for label, part in ranked.items()})
    return Comparison(ranked, tests, excluded)


def leak_free(comparison: Comparison) -> Comparison:
    """Repeat a comparison on the images that are no duplicates of any predictor's train or val images."""
    parts = comparison.predictions
    if not parts:
        return comparison
    kept = ~np.any([part.leaked for part in parts.values()], axis=0)
    if not kept.any():
        return Comparison({}, [], [])
    return compare_predictors({label: part.subset(kept) for label, part in parts.items()})


class PValueBounds(NamedTuple):
    """Bounds on the test of two rows of the paper's Table 2.

    Attributes:
        first: The row with at least as many correct answers.
        second: The other row.
        difference: Accuracy of the first minus that of the second, in [0, 1].
        p_low: Smallest possible p-value of the exact McNemar test, after Holm's correction.
        p_high: Largest possible p-value.
    """

    first: str
    second: str
    difference: float
    p_low: float
    p_high: float

    @property
    def verdict(self) -> str:
        """``significant``, ``n.s.`` (not significant) or ``undetermined``."""
        if self.p_high < SIGNIFICANCE_LEVEL:
            return "significant"
        return "n.s." if self.p_low >= SIGNIFICANCE_LEVEL else "undetermined"


def paper_table_2_bounds() -> list[PValueBounds]:
    """Bound the p-values of the paired tests of the paper's Table 2.

    The paper does not report which images two rows both have correct. But of 5 images of a class with a and b
    correct answers, between max(0, a + b - 5) and min(a, b) are correct in both. For a given difference the
    exact McNemar p-value rises with the number of images on which the rows disagree, so the two extremes
    bound it. Holm's correction preserves the order of the bounds.
    """
    ranked = sorted(reference.TABLE_2.items(), key=lambda row: -sum(row[1]))
    pairs, lows, highs = [], [], []
    for (first, a), (second, b) in combinations(ranked, 2):
        most = sum(min(x, y) for x, y in zip(a, b, strict=True))
        least = sum(max(0, x + y - reference.PER_CLASS) for x, y in zip(a, b, strict=True))
        lows.append(mcnemar_exact(sum(a) - most, sum(b) - most))
        highs.append(mcnemar_exact(sum(a) - least, sum(b) - least))
        pairs.append((first, second, (sum(a) - sum(b)) / (reference.PER_CLASS * len(a))))
    return [
        PValueBounds(*pair, low, high) for pair, low, high in zip(pairs, holm(lows), holm(highs), strict=True)
    ]
