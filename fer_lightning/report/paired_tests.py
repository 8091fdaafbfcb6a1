"""Paired tests between configurations on the same images, in words and as a table."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.evaluation.stats import spread
from fer_lightning.report.configurations import Configuration, Ranking
from fer_lightning.report.order import first_seed_note, ranking_sentences
from fer_lightning.report.paper.comparison import Comparison, compare_predictors, is_significant, leak_free
from fer_lightning.report.paper.table import format_p_value
from fer_lightning.report.rendering import Table, TableCell, text_cell
from fer_lightning.report.run_results import RunResults, path_inside

_MAX_STEPS = 4  # configurations of which each is compared with the next in words


class PairedTests(NamedTuple):
    """Paired tests of configurations.

    Attributes:
        sentences: What they decide.
        table: Every pair.
        excluded: Sentences on configurations that are not compared.
        num_pairs: Number of pairs.
    """

    sentences: list[str]
    table: Table | None
    excluded: list[str]
    num_pairs: int


def paired_tests(ranking: Ranking) -> PairedTests | None:
    """Test each pair of configurations that were evaluated on the same images, by their first seeds."""
    if len(ranking.configurations) < 2:
        return None
    images = [each.first["images"] for each in ranking.configurations]
    shared = max(images, key=images.count)
    compared, predictions, excluded = {}, {}, []
    for each in ranking.configurations:
        parts = [_predictions(run) for run in each.runs]
        if each.first["images"] != shared:
            excluded.append(f"{each.label} is not compared: it was evaluated on other images.")
        elif any(part is None for part in parts):
            excluded.append(f"{each.label} is not compared: its predictions are missing.")
        else:
            compared[each.label] = each
            predictions[each.label] = [part for part in parts if part is not None]
    if len(compared) < 2:
        return PairedTests([], None, excluded, 0) if excluded else None
    comparison = compare_predictors({label: parts[0] for label, parts in predictions.items()})
    sentences = _decision(comparison, compared, predictions)
    if any(parts[0].leaked.any() for parts in predictions.values()):
        without = leak_free(comparison)
        if len(without.predictions) > 1:
            first, *_ = _decision(without, compared, predictions)
            sentences.append(f"Without images that have duplicates in training: {first}")
    return PairedTests(sentences, _pairs_table(comparison), excluded, len(comparison.tests))


def _predictions(run: RunResults) -> Predictions | None:
    path = path_inside(run.folder, f"predictions_{run.split}.npz")
    predictions = Predictions.load(path) if path.exists() else None
    return predictions if predictions is not None and len(predictions) else None


def _decision(
    comparison: Comparison,
    compared: Mapping[str, Configuration],
    predictions: Mapping[str, Sequence[Predictions]],
) -> list[str]:
    """Say which configuration is ahead, by the tests of the first seeds and the means over seeds."""
    ids = next(iter(comparison.predictions.values())).ids
    means = {}
    for label in comparison.predictions:
        scores = [float(part.correct[np.isin(part.ids, ids)].mean()) for part in predictions[label]]
        means[label] = spread(scores).mean
    seeds = [compared[label].first["seed"] for label in means]
    several = [label for label in means if len(predictions[label]) > 1]
    single = [label for label in means if label not in several] if several else []
    sentences = ranking_sentences(comparison, means, single, first_seed_note(seeds, "configuration"))
    if not several:
        sentences.append("Each configuration has one seed: how much training itself varies is unknown.")
    return sentences if len(means) <= _MAX_STEPS else [sentences[0], *sentences[-1:]]


def _pairs_table(comparison: Comparison) -> Table:
    rows = [
        [
            text_cell(f"{test.first} and {test.second}"),
            text_cell("significant" if is_significant(test) else "not significant"),
            TableCell(f"{100 * test.difference:+.2f}", test.difference),
            TableCell(f"{100 * test.interval[0]:+.1f} to {100 * test.interval[1]:+.1f}", test.interval[0]),
            TableCell(format_p_value(test.p_holm, equals=False), test.p_holm),
        ]
        for test in comparison.tests
    ]
    headers = ["pair", "difference is", "points", "95 % CI", "p (Holm)"]
    return Table(headers, rows, text_columns=2, label="paired tests")
