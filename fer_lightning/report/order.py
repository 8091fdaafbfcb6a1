"""What paired tests and means over seeds decide about the order of predictors, in sentences."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from fer_lightning.evaluation.stats import PairedTest
from fer_lightning.report.paper.comparison import Comparison, is_significant
from fer_lightning.report.paper.table import format_p_value

_MAX_NAMED = 6  # more predictors are counted


def ranking_sentences(
    comparison: Comparison, means: Mapping[str, float], single: Sequence[str], seed_note: str
) -> list[str]:
    """Rank predictors by their means over seeds and compare each with the next.

    One is ahead of another only if both the test of their first seeds and the means agree.

    Args:
        comparison: The tests of the first seeds of at least two predictors.
        means: The mean accuracy over seeds of each, on the compared images.
        single: Those with a single seed.
        seed_note: Which seed was tested.

    Returns:
        Sentences; the first says which is ahead, or that there is no clear winner.
    """
    best, *others = ranked = sorted(means, key=lambda label: -means[label])
    tied = [other for other in others if not is_significant(comparison.test_of(best, other))]
    better_by_mean_only = [
        other for other in others if other not in tied and comparison.test_of(best, other).first != best
    ]
    steps = list(pairwise(ranked))
    sentences = [_winner(best, tied, better_by_mean_only, ranked[1], comparison, seed_note)]
    if not tied and not better_by_mean_only:
        steps.pop(0)  # the first sentence describes it
    for first, second in [*((best, other) for other in better_by_mean_only), *steps]:
        if not (tied and (first, second) == (best, tied[0])):
            sentences.append(_step(first, second, comparison))
    if single:
        sentences.append(f"Single-seed results (training variance unknown): {joined(single)}.")
    return list(dict.fromkeys(sentences))


def first_seed_note(seeds: Sequence[object], what: str) -> str:
    """Say which seed represents each predictor in a test, given the first seed of each."""
    distinct = {str(seed) for seed in seeds}
    return f"first seed of each {what}" + (f" (seed {distinct.pop()})" if len(distinct) == 1 else "")


def _winner(
    best: str,
    tied: Sequence[str],
    better_by_mean_only: Sequence[str],
    second: str,
    comparison: Comparison,
    seed_note: str,
) -> str:
    """Name the winner, or say why there is none."""
    n = f"n = {comparison.num_images:,}"
    if tied:
        details = f"({_describe(comparison.test_of(best, tied[0]), best)}, {n}, {seed_note})"
        if len(tied) == 1:
            return f"No clear winner: {best} and {tied[0]} do not differ significantly {details}."
        which = joined(tied) if len(tied) <= _MAX_NAMED else f"{len(tied)} others"
        return (
            f"No clear winner: {which} do not differ significantly from {best}, which has the highest "
            f"mean {details}."
        )
    if better_by_mean_only:
        return f"No clear winner: {best} has the highest mean, but is not ahead in the {seed_note}, {n}."
    test = comparison.test_of(best, second)
    return (
        f"{best}. It is ahead of {second} by {points(test)} points ({_interval(test, best)}), "
        f"{format_p_value(test.p_holm)}, {n}, {seed_note}; the means over seeds agree."
    )


def _step(first: str, second: str, comparison: Comparison) -> str:
    """Compare two networks, the one with the higher mean first."""
    test, n = comparison.test_of(first, second), f"n = {comparison.num_images:,}"
    if not is_significant(test):
        return f"{first} and {second} do not differ significantly ({_describe(test, first)}, {n})."
    if test.first == first:
        return (
            f"{first} is ahead of {second} by {points(test)} points ({_interval(test, first)}), "
            f"{format_p_value(test.p_holm)}, {n}."
        )
    return (
        f"{first} and {second}: in the first seeds {second} is ahead ({_describe(test, second)}, {n}), by "
        f"the means over seeds {first}; the result depends on the seed."
    )


def _describe(test: PairedTest, first: str) -> str:
    """Format difference, CI and p-value from the point of view of one of the two."""
    sign = "-" if test.first != first and test.difference else ""
    return f"{sign}{points(test)} points, {_interval(test, first)}, {format_p_value(test.p_holm)}"


def points(test: PairedTest) -> str:
    """Format the difference of a pair in percentage points, without sign."""
    return f"{100 * abs(test.difference):.1f}"


def _interval(test: PairedTest, first: str) -> str:
    low, high = test.interval if test.first == first else (-test.interval[1], -test.interval[0])
    return f"95 % CI {100 * low:.1f} to {100 * high:.1f}"


def joined(words: Sequence[str]) -> str:
    """Join at least one word: ``a``, ``a and b``, ``a, b and c``."""
    *rest, last = words
    return f"{', '.join(rest)} and {last}" if rest else last
