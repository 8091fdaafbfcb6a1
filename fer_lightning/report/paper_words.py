"""The answers to the paper's two questions, in words that follow from the tests and not from wishes."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from fer_lightning.evaluation.stats import PairedTest, spread
from fer_lightning.report import reference
from fer_lightning.report.paper import Comparison, PaperRuns, bound_papers_table_2
from fer_lightning.report.paper_tables import SIGNIFICANT, bound_verdict, p_value

FIRST_QUESTION = "Which network reads expressions best?"
SECOND_QUESTION = "How do they compare with a language model?"


def headline(evidence: PaperRuns) -> list[tuple[str, str, str]]:
    """Give each network's accuracy, and how to read it, for the top of a page."""
    told = []
    for group in evidence.groups:
        mean = spread([run.metrics["test"]["acc"] for run in group.runs]).mean
        paper = reference.TABLE_1.get(group.family)
        note = f"n = {group.n:,}"
        if paper is not None and group.on_papers_images:
            started = ", pre-trained" * (group.family == "resnet" and not group.pretrained)
            note += f"; the paper{started}: {100 * paper:.1f} %"
        told.append((group.label, f"{100 * mean:.1f} %", note))
    return told


def answer_first(evidence: PaperRuns, contest: Comparison, improved: Comparison) -> list[str]:
    """Say which network is best, as far as the tests of both recipes tell.

    Args:
        evidence: The runs.
        contest: The networks of the paper's recipe.
        improved: Those of the improved one.
    """
    sentences = []
    if contest.predictions:
        sentences += [*_ranking(contest, evidence), *_limits(evidence), *_beside_the_paper(evidence)]
    else:
        sentences.append("No network of the paper's recipe is among the runs.")
    if improved.predictions:
        ranking = _ranking(improved, evidence)
        sentences += [f"With the improved recipe: {ranking[0]}", *ranking[1:]]
    return sentences


def answer_second(evidence: PaperRuns, sample: Comparison | None) -> list[str]:
    """Say how networks and language models compare, on ours and on the paper's images.

    Args:
        evidence: The runs.
        sample: Networks and language models on the images of Table 2, if there are any.
    """
    asked = [model.label for model in evidence.language_models]
    compared = list(sample.predictions) if sample else []
    networks = [label for label in compared if label not in asked]
    sentences = []
    if not asked:
        sentences.append(
            "No language model is among the runs, so that ours cannot say; the paper's GPT-4 Turbo was asked "
            "about 35 images that it does not name."
        )
        if sample and len(networks) > 1:
            sentences.append(f"At n = {sample.n:,} our own networks compare so: {_all_pairs(sample.tests)}.")
    elif not networks:
        sentences.append(
            f"No network among the runs was tested on the images that {asked[0]} was asked about."
        )
    elif sample:
        sentences += [_against(label, networks, sample) for label in asked if label in compared]
        if any(len(group.runs) > 1 for group in evidence.groups if group.label in networks):
            sentences.append("Networks of several seeds stand there with their first.")
    return [*sentences, _papers_own()]


def _ranking(contest: Comparison, evidence: PaperRuns) -> list[str]:
    """Rank the predictors of a contest by their means over seeds, each beside the next.

    One is ahead of another only if both the test of their first seeds and the means say so.
    """
    groups = [group for group in evidence.groups if group.label in contest.predictions]
    ids = next(iter(contest.predictions.values())).ids
    means = {
        group.label: spread(group.accuracy(np.isin(group.predictions[0].ids, ids))).mean for group in groups
    }
    best, *others = ranked = sorted(means, key=lambda label: -means[label])
    n = f"n = {contest.n:,}"
    if not others:
        return [f"{best} stands alone ({n}): there is nothing to compare it with."]

    def level(first: str, second: str) -> bool:
        return contest.test(first, second).p_holm >= SIGNIFICANT

    def ahead(first: str, second: str) -> bool:
        return not level(first, second) and contest.test(first, second).first == first

    seeds = {str(group.runs[0].info.get("seed")) for group in groups}
    which = "the first seed of each" + (f" (seed {seeds.pop()})" if len(seeds) == 1 else "")
    tied = [other for other in others if level(best, other)]
    ousted = [other for other in others if not level(best, other) and not ahead(best, other)]
    steps = list(pairwise(ranked))
    if tied:
        told = f"({_describe(contest.test(best, tied[0]), best)}, {n}, {which})"
        sentences = [
            f"No single one: {_and(tied)} cannot be told apart from {best}, the best by its mean {told}."
            if len(tied) > 1
            else f"No single one: {best} and {tied[0]} cannot be told apart {told}."
        ]
    elif ousted:
        sentences = [f"No single one: {best} is the best by its mean, but not by {which} ({n})."]
    else:
        test = contest.test(*steps.pop(0))
        sentences = [
            f"{best}. It is ahead of {test.second} by {_points(test)} points "
            f"({_interval(test, best)}), {p_value(test.p_holm)}, {n}, {which}; the means over seeds agree."
        ]
    for first, second in [*((best, other) for other in ousted), *steps]:
        test = contest.test(first, second)
        if ahead(first, second):
            sentences.append(
                f"{first} is ahead of {second} by {_points(test)} points ({_interval(test, first)}), "
                f"{p_value(test.p_holm)}, {n}."
            )
        elif not level(first, second):
            sentences.append(
                f"Of {first} and {second}, the first seeds put {second} ahead "
                f"({_describe(test, second)}, {n}), "
                f"the means over seeds {first}: the seed decides."
            )
        elif (first, second) != (best, tied[0] if tied else ""):
            sentences.append(f"{first} and {second} cannot be told apart ({_describe(test, first)}, {n}).")
    single = [group.label for group in groups if len(group.runs) == 1]
    if single:
        sentences.append(f"Run with one seed, so that chance in training is not excluded: {_and(single)}.")
    return list(dict.fromkeys(sentences))


def _limits(evidence: PaperRuns) -> list[str]:
    """Say what a ranking of the paper's recipe leaves out, or mixes."""
    groups = evidence.block(improved=False)
    absent = [name for key, name in reference.FAMILIES.items() if key not in {g.family for g in groups}]
    sentences = []
    if absent:
        verb = "is" if len(absent) == 1 else "are"
        sentences.append(
            f"{_and(absent)} {verb} not among the runs, so that this leaves out what the paper asks."
        )
    departing = [group.label for group in groups if group.departures]
    if departing:
        sentences.append(f"Not trained by the paper's recipe: {_and(departing)}; see below Table 1.")
    if len({tuple(group.departures) for group in groups}) > 1:
        sentences.append("These networks were not all trained by one recipe: see below Table 1.")
    elsewhere = [group.label for group in groups if not group.on_papers_images]
    if elsewhere:
        sentences.append(f"Not on the paper's data and images: {_and(elsewhere)}; see below Table 1.")
    return sentences


def _beside_the_paper(evidence: PaperRuns) -> list[str]:
    """Say how our accuracies stand to Table 1, where both were measured on the same images."""
    told, scratch = [], ""
    for group in evidence.block(improved=False):
        paper = reference.TABLE_1.get(group.family)
        if paper is None or not group.on_papers_images:
            continue
        mean = spread([run.metrics["test"]["acc"] for run in group.runs]).mean
        if group.family == "resnet" and not group.pretrained:
            scratch = (
                f"{group.label} reaches {100 * mean:.1f} %; the paper has no such row, its ResNet "
                f"({100 * paper:.1f} %) was pre-trained."
            )
            continue
        side = "above" if mean >= paper else "below"
        told.append(f"{group.label} {100 * mean:.1f} %, {100 * abs(mean - paper):.1f} points {side}")
    sentences = [f"Beside the paper's Table 1, means over seeds: {'; '.join(told)}."] if told else []
    return sentences + [scratch] * bool(scratch)


def _against(label: str, networks: Sequence[str], sample: Comparison) -> str:
    """Set one language model against each network, and say which of its images brought no answer."""
    part = sample.predictions[label]
    reasons = Counter(part.status[~part.answered].tolist())
    listed = _and([f"{number:,} {reason}" for reason, number in reasons.most_common()]) if reasons else ""
    if not part.answered.any():
        return f"At n = {sample.n:,} {label} gave no answer at all ({listed}): there is nothing to compare."
    ahead: list[str] = []
    behind: list[str] = []
    level: list[str] = []
    for test in sample.tests:
        if label not in (test.first, test.second) or not {test.first, test.second} & set(networks):
            continue
        other = test.second if test.first == label else test.first
        if test.p_holm >= SIGNIFICANT:
            level.append(other)
        else:
            told = f"{other} by {_points(test)} points ({p_value(test.p_holm)})"
            (ahead if test.first == label else behind).append(told)
    parts = [
        f"is ahead of {_and(ahead)}" if ahead else "",
        f"is behind {_and(behind)}" if behind else "",
        f"cannot be told apart from {_and(level)}" if level else "",
    ]
    sentence = f"At n = {sample.n:,} {label} {_and([part for part in parts if part])}."
    if reasons:
        sentence += (
            f" Of its images {reasons.total():,} brought no answer ({listed}) and count as wrong, which a "
            "server that fails would bring about too."
        )
    return sentence


def _all_pairs(tests: Sequence[PairedTest]) -> str:
    apart = [test for test in tests if test.p_holm < SIGNIFICANT]
    told = [f"{test.first} is ahead of {test.second} ({p_value(test.p_holm)})" for test in apart]
    if not told:
        return "no two can be told apart"
    rest = len(tests) - len(apart)
    return "; ".join(told) + (
        f"; {'the other pair' if rest == 1 else f'the other {rest} pairs'} cannot be told apart"
        if rest
        else ""
    )


def _papers_own() -> str:
    """Say what the paper's Table 2 decides of its language model, whatever its pairs were."""
    others: dict[str, list[str]] = {}
    for bounds in bound_papers_table_2():
        if reference.LANGUAGE_MODEL in (bounds.first, bounds.second):
            other = bounds.second if bounds.first == reference.LANGUAGE_MODEL else bounds.first
            others.setdefault(bound_verdict(bounds.p_low, bounds.p_high), []).append(other)
    return (
        f"In the paper's own Table 2 (n = 35) {reference.LANGUAGE_MODEL} cannot be told apart from "
        f"{_and(others['not told apart'])}, whichever images they had right (p = 1 after Holm's correction); "
        f"it is ahead of {_and(others['apart'])}; for {_and(others['depends on the pairs'])} it would depend "
        "on the images, which are not given."
    )


def _describe(test: PairedTest, first: str) -> str:
    """Give difference, interval and p, as seen from one of the two."""
    sign = "-" if test.first != first and test.difference else ""
    return f"{sign}{_points(test)} points, {_interval(test, first)}, {p_value(test.p_holm)}"


def _points(test: PairedTest) -> str:
    return f"{100 * abs(test.difference):.1f}"


def _interval(test: PairedTest, first: str) -> str:
    low, high = test.interval if test.first == first else (-test.interval[1], -test.interval[0])
    return f"95 % interval {100 * low:.1f} to {100 * high:.1f}"


def _and(words: Sequence[str]) -> str:
    *rest, last = words
    return f"{', '.join(rest)} and {last}" if rest else last
