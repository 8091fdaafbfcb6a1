import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.data.sampling import draw_sample
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.evaluation.stats import mcnemar_exact
from fer_lightning.report.paper import reference
from fer_lightning.report.paper.comparison import (
    choose_sample,
    compare_predictors,
    leak_free,
    paper_table_2_bounds,
)
from fer_lightning.report.paper.runs import collect_runs


def make_llm_run(make_paper_run, name, *, model="gpt-x", images=range(35), right=()):
    """Write an evaluation of a language model as eval.py does."""
    folder = make_paper_run(name, model=model, images=images, right=right, info={"predictor": "llm"})
    predictions = Predictions.load(folder / "predictions_test.npz")
    rows = "\n".join(f"{image},x,{0:016x}" for image in predictions.ids)
    (folder / "sample.csv").write_text(f"id,label,hash\n{rows}\n")
    return folder


def test_sample_is_the_list_of_the_language_model(make_paper_run):
    paper_runs = collect_runs(
        [make_paper_run("0_mlp"), make_llm_run(make_paper_run, "1_llm", images=range(3, 20))]
    )

    sample = choose_sample(paper_runs)

    everything = paper_runs.networks[0].predictions[0].ids
    assert sorted(sample.ids) == sorted(everything[3:20])
    assert "gpt-x was asked about" in sample.origin


def test_language_models_with_different_images_are_refused(make_paper_run):
    paper_runs = collect_runs(
        [
            make_llm_run(make_paper_run, "0_llm"),
            make_llm_run(make_paper_run, "1_llm", model="other", images=range(1, 36)),
        ]
    )

    with pytest.raises(FERError, match="gpt-x and other were asked about different images"):
        choose_sample(paper_runs)


def test_leak_free_excludes_duplicates_of_every_predictor(make_paper_run):
    paper_runs = collect_runs(
        [make_paper_run("0_mlp", right=range(30)), make_paper_run("1_rnn", model="rnn")]
    )
    parts = {network.label: network.predictions[0] for network in paper_runs.networks}
    everything = compare_predictors(parts)
    other = replace(parts["RNN"], leaked=np.arange(56) == 1)

    assert (everything.num_images, leak_free(everything).num_images) == (
        56,
        49,
    )  # every eighth of the first is leaked
    assert leak_free(compare_predictors(parts | {"RNN": other})).num_images == 48
    assert leak_free(everything).tests[0].only_first == sum(row % 8 != 0 for row in range(30))
    all_known = replace(parts["RNN"], leaked=np.ones(56, dtype=bool))
    assert leak_free(compare_predictors({"RNN": all_known})).predictions == {}


def test_sample_without_language_model_is_drawn_as_in_eval(make_paper_run):
    paper_runs = collect_runs([make_paper_run("0_mlp"), make_paper_run("1_cnn", model="cnn")])
    tested = paper_runs.networks[0].predictions[0]

    sample = choose_sample(paper_runs)

    assert sample.ids.tolist() == tested.ids[draw_sample(tested.labels, 5, 0)].tolist()
    assert len(sample.ids) == 35


def test_sample_is_drawn_from_images_common_to_all_networks(make_paper_run, small_faces):
    labels = small_faces.faces.labels[small_faces.rows["test"]]
    all_but_one = np.delete(np.arange(56), draw_sample(labels, 5, 0)[-1])
    two_each = np.concatenate([np.flatnonzero(labels == label)[:2] for label in range(7)])
    paper_runs = collect_runs(
        [make_paper_run("0_cnn", model="cnn"), make_paper_run("1_mlp", images=all_but_one)]
    )
    too_few = collect_runs([make_paper_run("2_mlp"), make_paper_run("3_cnn", model="cnn", images=two_each)])

    sample = choose_sample(paper_runs)

    assert set(sample.ids.tolist()) <= set(small_faces.faces.ids[small_faces.rows["test"]][all_but_one])
    assert choose_sample(too_few) is None


def test_comparison_aligns_images_in_any_order(make_paper_run):
    paper_runs = collect_runs(
        [make_paper_run("0_mlp", right=range(10)), make_paper_run("1_cnn", model="cnn", right=range(5, 45))]
    )
    cnn, mlp = (network.predictions[0] for network in paper_runs.networks)
    shuffled = mlp.subset(np.random.default_rng(0).permutation(len(mlp)))

    comparison = compare_predictors({"MLP": shuffled, "CNN": cnn})

    assert list(comparison.predictions) == ["CNN", "MLP"]
    (test,) = comparison.tests
    assert (test.first, test.second, test.only_first, test.only_second, test.n) == ("CNN", "MLP", 35, 5, 56)


def test_comparison_excludes_predictors_of_other_images(make_paper_run):
    paper_runs = collect_runs(
        [
            make_paper_run("0_mlp"),
            make_paper_run("1_cnn", model="cnn", images=range(40)),
            make_paper_run("2_rnn", model="rnn"),
        ]
    )

    comparison = compare_predictors(
        {network.label: network.predictions[0] for network in paper_runs.networks}
    )

    assert list(comparison.predictions) == ["MLP", "RNN"]
    [excluded] = comparison.excluded
    assert excluded.startswith("CNN is not compared")
    assert re.search(r"\b40\b.*\b56\b", excluded)


def test_bounds_contain_the_p_values_of_all_overlaps():
    pairs = {(bounds.first, bounds.second): bounds for bounds in paper_table_2_bounds()}
    a, b = reference.TABLE_2["GPT-4 Turbo"], reference.TABLE_2["MLP"]
    possible = [range(max(0, x + y - 5), min(x, y) + 1) for x, y in zip(a, b, strict=True)]

    p_values = {mcnemar_exact(sum(a) - sum(both), sum(b) - sum(both)) for both in product(*possible)}

    bounds = pairs["GPT-4 Turbo", "MLP"]
    # Holm multiplies by the number of pairs whose p is not smaller.
    assert bounds.p_low == pytest.approx(9 * min(p_values))
    assert bounds.p_high == pytest.approx(5 * max(p_values))
    assert bounds.p_low < 0.05 < bounds.p_high
    assert bounds.difference == pytest.approx(12 / 35)


def test_papers_three_best_differ_significantly_only_from_rnn():
    p_values = {
        (bounds.first, bounds.second): (bounds.p_low, bounds.p_high) for bounds in paper_table_2_bounds()
    }

    for pair in (("CNN", "ResNet"), ("CNN", "GPT-4 Turbo"), ("ResNet", "GPT-4 Turbo"), ("MLP", "RNN")):
        assert p_values[pair][0] == 1
    for first in ("CNN", "ResNet", "GPT-4 Turbo"):
        assert p_values[first, "RNN"][1] < 0.05
    assert len(p_values) == 10
