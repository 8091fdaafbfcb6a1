"""Answers to the paper's two questions, in sentences that follow from the tests."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from fer_lightning.evaluation.stats import PairedTest, spread
from fer_lightning.report.paper import reference
from fer_lightning.report.paper.comparison import Comparison, is_significant, paper_table_2_bounds
from fer_lightning.report.paper.runs import NetworkResults, PaperRuns
from fer_lightning.report.paper.table import format_p_value

FIRST_QUESTION = "Which network recognises expressions best?"
SECOND_QUESTION = "How do the networks compare with a language model?"


def headline_cards(runs: PaperRuns) -> list[tuple[str, str, str]]:
    """Return label, accuracy and note of each network, for the top of a page."""
    cards = []
    for network in runs.networks:
        mean = spread([run.metrics["test"]["acc"] for run in network.runs]).mean
        paper = reference.TABLE_1.get(network.family)
        note = f"n = {network.num_images:,}"
        if paper is not None and network.on_papers_images:
            pretrained = ", pre-trained" if network.family == "resnet" and not network.pretrained else ""
            note += f"; the paper{pretrained}: {100 * paper:.1f} %"
        cards.append((network.label, f"{100 * mean:.1f} %", note))
    return cards


def answer_first_question(runs: PaperRuns, papers: Comparison, improved: Comparison) -> list[str]:
    """Name the best network, as far as the tests of both recipes decide it.

    Args:
        runs: The runs.
        papers: The networks of the paper's recipe.
        improved: The networks of the improved recipe.
    """
    if papers.predictions:
        sentences = [*_ranking(papers, runs), *_limits(runs), *_comparison_with_table_1(runs)]
    else:
        sentences = ["No network was run with the paper's recipe."]
    if improved.predictions:
        best, *rest = _ranking(improved, runs)
        sentences += [f"With the improved recipe: {best}", *rest]
    return sentences


def answer_second_question(runs: PaperRuns, sample: Comparison | None) -> list[str]:
    """Compare networks and language models, on our images and on the paper's.

    Args:
        runs: The runs.
        sample: Networks and language models on the images of Table 2, if there are any.
    """
    llms = [llm.label for llm in runs.llms]
    compared = list(sample.predictions) if sample else []
    networks = [label for label in compared if label not in llms]
    sentences = []
    if not llms:
        sentences.append(
            "No language model was evaluated, so our runs cannot answer this; the paper's GPT-4 Turbo was "
            "asked about 35 images that it does not list."
        )
        if sample and len(networks) > 1:
            sentences.append(f"On the {sample.num_images:,}-image sample: {_all_pairs(sample.tests)}.")
    elif not networks:
        sentences.append(f"No network was tested on the images that {llms[0]} was asked about.")
    elif sample:
        sentences += [_llm_against_networks(label, networks, sample) for label in llms if label in compared]
        if any(len(network.runs) > 1 for network in runs.networks if network.label in networks):
            sentences.append("Networks with several seeds are represented by their first seed.")
    return [*sentences, _papers_own_answer()]


def _ranking(comparison: Comparison, runs: PaperRuns) -> list[str]:
    """Rank networks by their means over seeds and compare each with the next.

    One is ahead of another only if both the test of their first seeds and the means agree.
    """
    networks = [network for network in runs.networks if network.label in comparison.predictions]
    ids = next(iter(comparison.predictions.values())).ids
    means = {
        network.label: spread(network.accuracies(np.isin(network.predictions[0].ids, ids))).mean
        for network in networks
    }
    best, *others = ranked = sorted(means, key=lambda label: -means[label])
    if not others:
        return [f"{best} is the only network (n = {comparison.num_images:,}): there is no comparison."]

    tied = [other for other in others if not is_significant(comparison.test_of(best, other))]
    better_by_mean_only = [
        other for other in others if other not in tied and comparison.test_of(best, other).first != best
    ]
    steps = list(pairwise(ranked))
    sentences = [_winner(best, tied, better_by_mean_only, ranked[1], comparison, _seed_note(networks))]
    if not tied and not better_by_mean_only:
        steps.pop(0)  # the first sentence describes it
    for first, second in [*((best, other) for other in better_by_mean_only), *steps]:
        if not (tied and (first, second) == (best, tied[0])):
            sentences.append(_step(first, second, comparison))
    single = [network.label for network in networks if len(network.runs) == 1]
    if single:
        sentences.append(f"Single-seed results (training variance unknown): {_join(single)}.")
    return list(dict.fromkeys(sentences))


def _seed_note(networks: Sequence[NetworkResults]) -> str:
    seeds = {str(network.runs[0].info.get("seed")) for network in networks}
    return "first seed of each network" + (f" (seed {seeds.pop()})" if len(seeds) == 1 else "")


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
        return (
            f"No clear winner: {_join(tied)} do not differ significantly from {best}, which has the highest "
            f"mean {details}."
        )
    if better_by_mean_only:
        return f"No clear winner: {best} has the highest mean, but is not ahead in the {seed_note}, {n}."
    test = comparison.test_of(best, second)
    return (
        f"{best}. It is ahead of {second} by {_points(test)} points ({_interval(test, best)}), "
        f"{format_p_value(test.p_holm)}, {n}, {seed_note}; the means over seeds agree."
    )


def _step(first: str, second: str, comparison: Comparison) -> str:
    """Compare two networks, the one with the higher mean first."""
    test, n = comparison.test_of(first, second), f"n = {comparison.num_images:,}"
    if not is_significant(test):
        return f"{first} and {second} do not differ significantly ({_describe(test, first)}, {n})."
    if test.first == first:
        return (
            f"{first} is ahead of {second} by {_points(test)} points ({_interval(test, first)}), "
            f"{format_p_value(test.p_holm)}, {n}."
        )
    return (
        f"{first} and {second}: in the first seeds {second} is ahead ({_describe(test, second)}, {n}), by "
        f"the means over seeds {first}; the result depends on the seed."
    )


def _limits(runs: PaperRuns) -> list[str]:
    """List what a ranking of the paper's recipe leaves out or mixes."""
    networks = runs.with_recipe(improved=False)
    families = {network.family for network in networks}
    missing = [name for key, name in reference.FAMILIES.items() if key not in families]
    sentences = []
    if missing:
        verb = "was" if len(missing) == 1 else "were"
        sentences.append(f"{_join(missing)} {verb} not run, so the paper's question is only partly answered.")
    departing = [network.label for network in networks if network.departures]
    if departing:
        sentences.append(f"Not trained with the paper's recipe: {_join(departing)}; see below Table 1.")
    if len({tuple(network.departures) for network in networks}) > 1:
        sentences.append("These networks were trained with different recipes; see below Table 1.")
    elsewhere = [network.label for network in networks if not network.on_papers_images]
    if elsewhere:
        sentences.append(f"Not tested on the paper's images: {_join(elsewhere)}; see below Table 1.")
    return sentences


def _comparison_with_table_1(runs: PaperRuns) -> list[str]:
    """Compare our accuracies with Table 1, if both were measured on the same images."""
    compared, sentences = [], []
    for network in runs.with_recipe(improved=False):
        paper = reference.TABLE_1.get(network.family)
        if paper is None or not network.on_papers_images:
            continue
        mean = spread([run.metrics["test"]["acc"] for run in network.runs]).mean
        if network.family == "resnet" and not network.pretrained:
            sentences.append(
                f"{network.label} reaches {100 * mean:.1f} %; the paper has no such row, its ResNet "
                f"({100 * paper:.1f} %) is pre-trained."
            )
            continue
        side = "above" if mean >= paper else "below"
        compared.append(f"{network.label} {100 * mean:.1f} %, {100 * abs(mean - paper):.1f} points {side}")
    if compared:
        sentences.insert(0, f"Compared with the paper's Table 1, means over seeds: {'; '.join(compared)}.")
    return sentences


def _llm_against_networks(label: str, networks: Sequence[str], sample: Comparison) -> str:
    """Compare one language model with each network, and count its unanswered images."""
    part = sample.predictions[label]
    n = f"At n = {sample.num_images:,}"
    reasons = Counter(part.status[~part.answered].tolist())
    listed = _join([f"{number:,} {reason}" for reason, number in reasons.most_common()]) if reasons else ""
    if not part.answered.any():
        return f"{n} {label} gave no answer at all ({listed}): there is nothing to compare."
    tests = {
        test.second if test.first == label else test.first: test
        for test in sample.tests
        if label in (test.first, test.second)
    }
    significant = [network for network in tests if network in networks and is_significant(tests[network])]

    def lead(network: str) -> str:
        return f"{network} by {_points(tests[network])} points ({format_p_value(tests[network].p_holm)})"

    ahead = [lead(network) for network in significant if tests[network].first == label]
    behind = [lead(network) for network in significant if tests[network].first == network]
    tied = [network for network in tests if network in networks and network not in significant]
    parts = []
    if ahead:
        parts.append(f"is ahead of {_join(ahead)}")
    if behind:
        parts.append(f"is behind {_join(behind)}")
    if tied:
        parts.append(f"does not differ significantly from {_join(tied)}")
    sentence = f"{n} {label} {_join(parts)}."
    if reasons:
        sentence += (
            f" {reasons.total():,} images have no answer ({listed}) and count as wrong, which a failing "
            "server would cause too."
        )
    return sentence


def _all_pairs(tests: Sequence[PairedTest]) -> str:
    significant = [test for test in tests if is_significant(test)]
    if not significant:
        return "no pair of our networks differs significantly"
    leads = [
        f"{test.first} is ahead of {test.second} ({format_p_value(test.p_holm)})" for test in significant
    ]
    rest = len(tests) - len(significant)
    if rest == 1:
        leads.append("the other pair does not differ significantly")
    elif rest:
        leads.append(f"the other {rest} pairs do not differ significantly")
    return "; ".join(leads)


def _papers_own_answer() -> str:
    """Describe what the paper's Table 2 decides about its language model."""
    llm = reference.LANGUAGE_MODEL
    others: dict[str, list[str]] = {}
    for bounds in paper_table_2_bounds():
        if llm in (bounds.first, bounds.second):
            other = bounds.second if bounds.first == llm else bounds.first
            others.setdefault(bounds.verdict, []).append(other)
    return (
        f"In the paper's own Table 2 (n = 35) {llm} does not differ significantly from "
        f"{_join(others['n.s.'])}, whichever images they have correct (p = 1 after Holm's correction); it is "
        f"ahead of {_join(others['significant'])}; for {_join(others['undetermined'])} it depends on the "
        "images, which are not listed."
    )


def _describe(test: PairedTest, first: str) -> str:
    """Format difference, CI and p-value from the point of view of one of the two."""
    sign = "-" if test.first != first and test.difference else ""
    return f"{sign}{_points(test)} points, {_interval(test, first)}, {format_p_value(test.p_holm)}"


def _points(test: PairedTest) -> str:
    return f"{100 * abs(test.difference):.1f}"


def _interval(test: PairedTest, first: str) -> str:
    low, high = test.interval if test.first == first else (-test.interval[1], -test.interval[0])
    return f"95 % CI {100 * low:.1f} to {100 * high:.1f}"


def _join(words: Sequence[str]) -> str:
    *rest, last = words
    return f"{', '.join(rest)} and {last}" if rest else last
