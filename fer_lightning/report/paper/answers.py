"""Answers to the paper's two questions, in sentences that follow from the tests."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from fer_lightning.evaluation.stats import PairedTest, spread
from fer_lightning.report.order import first_seed_note, joined, points, ranking_sentences
from fer_lightning.report.paper import reference
from fer_lightning.report.paper.comparison import Comparison, is_significant, paper_table_2_bounds
from fer_lightning.report.paper.runs import NetworkResults, PaperRuns
from fer_lightning.report.paper.table import format_p_value

FIRST_QUESTION = "Which network recognises expressions best?"
FIRST_QUESTION_ELSEWHERE = "Which network is ahead on these images, which are not the paper's?"
SECOND_QUESTION = "How do the networks compare with a language model?"
NO_ANSWER = "No answer to the paper's questions"


def answered_questions(
    runs: PaperRuns, papers: Comparison, improved: Comparison, sample: Comparison | None
) -> list[tuple[str, list[str]]]:
    """Return the paper's two questions with the answers; runs that are no results answer none.

    Args:
        runs: The runs.
        papers: The networks of the paper's recipe.
        improved: The networks of the improved recipe.
        sample: Networks and language models on the images of Table 2, if there are any.
    """
    if runs.no_results:
        sentence = (
            f"{runs.no_results}, so this page does not say which network recognises expressions best, nor "
            "how networks compare with a language model. All its intervals, tests and p-values mean nothing: "
            "they only show what the page of whole runs looks like."
        )
        return [(NO_ANSWER, [sentence])]
    everywhere = all(network.on_papers_images for network in runs.networks)
    first = FIRST_QUESTION if everywhere else FIRST_QUESTION_ELSEWHERE
    return [
        (first, answer_first_question(runs, papers, improved)),
        (SECOND_QUESTION, answer_second_question(runs, sample)),
    ]


def other_images(runs: PaperRuns) -> list[str]:
    """Say which networks were not tested on the images of the paper, in a sentence."""
    groups: dict[str, list[str]] = {}
    for network in runs.networks:
        if not network.on_papers_images:
            where = f"{num_images(network)} images"
            if not network.on_papers_data:
                where += f" of {network.runs[0].dataset}, which is not FER-2013 as published"
            groups.setdefault(where, []).append(network.label)
    listed = "; ".join(f"{joined(labels)} ({where})" for where, labels in groups.items())
    if not groups:
        return []
    return [f"Not tested on the paper's images, so not comparable with its numbers: {listed}."]


def num_images(network: NetworkResults) -> str:
    """Format the number of test images: ``7,178``, ``512 of 7,178`` if they are some of the paper's."""
    n = f"{network.num_images:,}"
    is_part = network.on_papers_data and network.num_images < reference.NUM_TEST
    return f"{n} of {reference.NUM_TEST:,}" if is_part else n


def headline_cards(runs: PaperRuns) -> list[tuple[str, str, str]]:
    """Return label, accuracy and note of each network, for the top of a page."""
    cards = []
    for network in runs.networks:
        mean = spread([run.metrics["test"]["acc"] for run in network.runs]).mean
        paper = reference.TABLE_1.get(network.family)
        note = f"n = {num_images(network)}"
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
    """Rank networks by their means over seeds and compare each with the next."""
    networks = [network for network in runs.networks if network.label in comparison.predictions]
    ids = next(iter(comparison.predictions.values())).ids
    if len(networks) == 1:
        only, n = networks[0].label, f"n = {comparison.num_images:,}"
        return [f"{only} is the only network ({n}): there is no comparison."]
    means = {
        network.label: spread(network.accuracies(np.isin(network.predictions[0].ids, ids))).mean
        for network in networks
    }
    seeds = [network.runs[0].info.get("seed") for network in networks]
    single = [network.label for network in networks if len(network.runs) == 1]
    return ranking_sentences(comparison, means, single, first_seed_note(seeds, "network"))


def _limits(runs: PaperRuns) -> list[str]:
    """List what a ranking of the paper's recipe leaves out or mixes."""
    networks = runs.with_recipe(improved=False)
    families = {network.family for network in networks}
    missing = [name for key, name in reference.FAMILIES.items() if key not in families]
    sentences = []
    if missing:
        verb = "was" if len(missing) == 1 else "were"
        sentences.append(
            f"{joined(missing)} {verb} not run, so the paper's question is only partly answered."
        )
    departing = [network.label for network in networks if network.departures]
    if departing:
        sentences.append(f"Not trained with the paper's recipe: {joined(departing)}; see below Table 1.")
    if len({tuple(network.departures) for network in networks}) > 1:
        sentences.append("These networks were trained with different recipes; see below Table 1.")
    elsewhere = [network.label for network in networks if not network.on_papers_images]
    if elsewhere:
        sentences.append(f"Not tested on the paper's images: {joined(elsewhere)}; see below Table 1.")
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
    listed = joined([f"{number:,} {reason}" for reason, number in reasons.most_common()]) if reasons else ""
    if not part.answered.any():
        return f"{n} {label} gave no answer at all ({listed}): there is nothing to compare."
    tests = {
        test.second if test.first == label else test.first: test
        for test in sample.tests
        if label in (test.first, test.second)
    }
    significant = [network for network in tests if network in networks and is_significant(tests[network])]

    def lead(network: str) -> str:
        return f"{network} by {points(tests[network])} points ({format_p_value(tests[network].p_holm)})"

    ahead = [lead(network) for network in significant if tests[network].first == label]
    behind = [lead(network) for network in significant if tests[network].first == network]
    tied = [network for network in tests if network in networks and network not in significant]
    parts = []
    if ahead:
        parts.append(f"is ahead of {joined(ahead)}")
    if behind:
        parts.append(f"is behind {joined(behind)}")
    if tied:
        parts.append(f"does not differ significantly from {joined(tied)}")
    sentence = f"{n} {label} {joined(parts)}."
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
        f"{joined(others['n.s.'])}, whichever images they have correct (p = 1 after Holm's correction); it "
        f"is ahead of {joined(others['significant'])}; for {joined(others['undetermined'])} it depends on "
        "the images, which are not listed."
    )
