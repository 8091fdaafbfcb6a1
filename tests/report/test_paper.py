import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.data.sampling import draw_sample
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.evaluation.stats import mcnemar_exact
from fer_lightning.report import reference
from fer_lightning.report.paper import (
    bound_papers_table_2,
    choose_sample,
    collect,
    compare_predictors,
    leak_free,
)

RESNET = {
    "_target_": "fer_lightning.models.resnet.ResNet",
    "num_classes": 7,
    "image_size": 16,
    "depth": 34,
    "stem": "imagenet",
    "pretrained": False,
}


def test_runs_become_rows_by_family_and_recipe_with_their_seeds_in_order(make_paper_run):
    runs = [
        make_paper_run("a", model="rnn"),
        make_paper_run("b", model="mlp", seed=1),
        make_paper_run("c", model="mlp", seed=0),
        make_paper_run("d", model="mlp", experiment="improved"),
        make_paper_run("e", model="resnet", network=RESNET),
        make_paper_run("f", model="resnet", network=RESNET | {"pretrained": True}),
    ]

    evidence = collect(runs)

    assert [group.label for group in evidence.groups] == [
        "ResNet-34 (pre-trained)",
        "ResNet-34 (from scratch)",
        "MLP",
        "RNN",
        "MLP (improved)",
    ]
    mlp = evidence.groups[2]
    assert [run.info["seed"] for run in mlp.runs] == [0, 1]
    assert mlp.on_papers_images
    assert mlp.departures == []
    assert evidence.left_out == ()


@pytest.mark.parametrize(
    ("info", "told"),
    [
        (
            {"state": "interrupted", "reason": "stopped by signal 15"},
            "it was interrupted (stopped by signal 15)",
        ),
        ({"state": "failed", "reason": "no disk"}, "it failed (no disk)"),
        ({"state": "running"}, "it has not ended, or was killed"),
    ],
)
def test_a_run_that_did_not_finish_is_left_out_and_named(make_paper_run, info, told):
    evidence = collect([make_paper_run("0_mlp"), make_paper_run("1_cnn", model="cnn", info=info)])

    assert [group.family for group in evidence.groups] == ["mlp"]
    assert evidence.left_out == (f"1_cnn is left out: {told}.",)


def test_no_usable_run_is_an_error_that_says_why(make_paper_run):
    folder = make_paper_run("0_mlp")
    (folder / "predictions_test.npz").unlink()

    with pytest.raises(FERError, match="no run to report on: 0_mlp is left out: it holds no predictions"):
        collect([folder])


def test_runs_on_different_data_are_refused(make_paper_run):
    other = {"data": {"fingerprint": "another"}}

    with pytest.raises(FERError, match="numbers on different data do not compare"):
        collect([make_paper_run("0_mlp"), make_paper_run("1_cnn", model="cnn", info=other)])


def test_runs_of_one_family_that_differ_in_more_than_their_seed_are_refused_by_key(make_paper_run):
    lr = {"optimizer": {"_target_": "torch.optim.Adam", "lr": 0.1}}

    with pytest.raises(FERError, match=r"1_mlp are runs of MLP that differ in optimizer\.lr"):
        collect([make_paper_run("0_mlp"), make_paper_run("1_mlp", seed=1, config=lr)])


def test_a_setting_that_an_older_run_does_not_have_is_no_difference(make_paper_run):
    newer = {"classifier": {"flip_test": False}}

    evidence = collect([make_paper_run("0_mlp"), make_paper_run("1_mlp", seed=1, config=newer)])

    assert len(evidence.groups[0].runs) == 2


def test_runs_tested_on_different_images_are_no_repetitions(make_paper_run):
    with pytest.raises(FERError, match="tested on different images"):
        collect([make_paper_run("0_mlp"), make_paper_run("1_mlp", seed=1, images=range(40))])


def test_a_seed_that_is_there_twice_and_other_recipes_are_left_out(make_paper_run):
    runs = [
        make_paper_run("0_mlp", right=[1]),
        make_paper_run("1_mlp"),
        make_paper_run("2_mlp", seed=7, experiment="mine", config={"trainer": {"max_epochs": 9}}),
    ]

    evidence = collect(runs)

    assert [run.folder.name for run in evidence.groups[0].runs] == ["0_mlp"]
    assert len(evidence.left_out) == 2
    assert "2_mlp is left out: MLP also has runs of the paper's recipe" in evidence.left_out[0]
    assert "1_mlp is left out: seed 0 is there already" in evidence.left_out[1]


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"trainer": {"max_epochs": 1}}, "trainer.max_epochs=1 (the paper: 30 epochs)"),
        (
            {"data": {"augment": {"_target_": "x", "flip": 0.5}}},
            "data.augment.flip=0.5 (the paper: no augmentation)",
        ),
        (
            {"classifier": {"label_smoothing": 0.1, "flip_test": False}},
            "classifier.label_smoothing=0.1 (the paper: no label smoothing)",
        ),
        (
            {"scheduler": {"interval": "epoch", "schedule": {"_target_": "Cosine"}}},
            "scheduler.schedule._target_=Cosine (the paper: a constant learning rate)",
        ),
        (
            {"trainer": {"max_epochs": 30, "limit_train_batches": 1}},  # one batch, as 1.0 is all of them
            "trainer.limit_train_batches=1 (the paper: all batches of an epoch)",
        ),
        (
            {"init_from": "best.ckpt"},
            "init_from=best.ckpt (the paper: no network of one's own to start from)",
        ),
    ],
)
def test_what_departs_from_the_papers_recipe_is_named(make_paper_run, config, told):
    assert collect([make_paper_run("0_mlp", config=config)]).groups[0].departures == [told]


def test_the_defaults_of_every_setting_are_no_departure(make_paper_run):
    defaults = {
        "classifier": {"label_smoothing": 0, "class_weights": "none", "ema_decay": 0.0, "flip_test": False},
        "trainer": {"max_epochs": 30, "limit_train_batches": 1.0, "gradient_clip_val": None},
        "scheduler": {"interval": "epoch", "schedule": None},
        "init_from": None,
        "early_stopping": None,
    }

    assert collect([make_paper_run("0_mlp", config=defaults)]).groups[0].departures == []


def test_a_selected_epoch_departs_from_the_papers_recipe(make_paper_run):
    group = collect([make_paper_run("0_mlp", info={"selected_by": "val/acc"})]).groups[0]

    assert group.departures == ["the epoch selected by val/acc (the paper: the last one)"]


def test_the_improved_recipe_is_known_by_its_config_when_the_override_is_missing(make_paper_run):
    runs = [
        make_paper_run("0_mlp", experiment="", config={"classifier": {"ema_decay": 0.998}}),
        make_paper_run("1_mlp", info={"overrides": ["recipe=improved"]}),
        make_paper_run("2_mlp", experiment=""),
    ]

    assert [collect([run]).groups[0].improved for run in runs] == [True, True, False]


def test_other_images_than_the_papers_are_noticed_by_number_and_by_fingerprint(make_paper_run):
    fewer = collect([make_paper_run("0_mlp", images=range(40))])
    altered = collect([make_paper_run("1_mlp", info={"data": {"fingerprint": "blurred"}})])

    assert not fewer.groups[0].on_papers_images
    assert not altered.groups[0].on_papers_images


def ask(make_paper_run, name, *, model="gpt-x", images=range(35), right=()):
    """An evaluation of a language model as eval.py leaves it."""
    folder = make_paper_run(name, model=model, images=images, right=right, info={"predictor": "llm"})
    predictions = Predictions.load(folder / "predictions_test.npz")
    rows = "\n".join(f"{image},x,{0:016x}" for image in predictions.ids)
    (folder / "sample.csv").write_text(f"id,label,hash\n{rows}\n")
    return folder


def test_the_sample_is_the_list_the_language_model_was_asked_about(make_paper_run):
    evidence = collect([make_paper_run("0_mlp"), ask(make_paper_run, "1_llm", images=range(3, 20))])

    sample = choose_sample(evidence)

    everything = evidence.groups[0].predictions[0].ids
    assert sorted(sample.ids) == sorted(everything[3:20])
    assert "gpt-x was asked about" in sample.origin


def test_language_models_asked_about_different_images_do_not_meet(make_paper_run):
    evidence = collect(
        [ask(make_paper_run, "0_llm"), ask(make_paper_run, "1_llm", model="other", images=range(1, 36))]
    )

    with pytest.raises(FERError, match="gpt-x and other were asked about different images"):
        choose_sample(evidence)


def test_two_evaluations_of_one_language_model_keep_apart(make_paper_run):
    evidence = collect([ask(make_paper_run, "0_llm"), ask(make_paper_run, "1_llm")])

    assert [model.label for model in evidence.language_models] == ["gpt-x", "gpt-x (1_llm)"]


def test_a_folder_that_is_named_twice_counts_once(make_paper_run):
    run = make_paper_run("llm", model="seer", info={"predictor": "llm"})

    evidence = collect([run, run.parent / "llm" / "." / "", run])

    assert [model.label for model in evidence.language_models] == ["seer"]
    assert evidence.left_out == ("llm was named twice, and counts once.",) * 2


def test_language_models_of_one_name_in_folders_of_one_name_keep_apart(make_paper_run):
    asked = {"predictor": "llm"}

    evidence = collect([make_paper_run(f"{place}/out", model="seer", info=asked) for place in "abc"])

    assert [model.label for model in evidence.language_models] == ["seer", "seer (out)", "seer (out, 2)"]


def test_a_run_whose_metrics_lack_what_the_report_shows_is_left_out_and_says_what(make_paper_run):
    whole, damaged = make_paper_run("0_mlp"), make_paper_run("1_cnn", model="cnn")
    metrics = json.loads((damaged / "metrics.json").read_text())
    del metrics["test"]["per_class"], metrics["test"]["ece"]
    (damaged / "metrics.json").write_text(json.dumps(metrics))

    assert collect([whole, damaged]).left_out == (
        "1_cnn is left out: its metrics.json has no ece, per_class of the test split.",
    )


def test_a_contest_without_leaked_copies_is_held_on_the_images_that_no_predictor_knows(make_paper_run):
    evidence = collect([make_paper_run("0_mlp", right=range(30)), make_paper_run("1_rnn", model="rnn")])
    parts = {group.label: group.predictions[0] for group in evidence.groups}
    everything = compare_predictors(parts)
    other = replace(parts["RNN"], leaked=np.arange(56) == 1)

    assert (everything.n, leak_free(everything).n) == (56, 49)  # every eighth of the first is leaked
    assert leak_free(compare_predictors(parts | {"RNN": other})).n == 48
    assert leak_free(everything).tests[0].only_first == sum(row % 8 != 0 for row in range(30))
    all_known = replace(parts["RNN"], leaked=np.ones(56, dtype=bool))
    assert leak_free(compare_predictors({"RNN": all_known})).predictions == {}


def test_without_a_language_model_the_sample_is_drawn_as_eval_would(make_paper_run):
    evidence = collect([make_paper_run("0_mlp"), make_paper_run("1_cnn", model="cnn")])
    tested = evidence.groups[0].predictions[0]

    sample = choose_sample(evidence)

    assert sample.ids.tolist() == tested.ids[draw_sample(tested.labels, 5, 0)].tolist()
    assert len(sample.ids) == 35


def test_the_sample_is_drawn_from_images_that_every_network_was_tested_on(make_paper_run, small_faces):
    labels = small_faces.faces.labels[small_faces.rows["test"]]
    all_but_one = np.delete(np.arange(56), draw_sample(labels, 5, 0)[-1])
    two_each = np.concatenate([np.flatnonzero(labels == label)[:2] for label in range(7)])
    evidence = collect([make_paper_run("0_cnn", model="cnn"), make_paper_run("1_mlp", images=all_but_one)])
    too_few = collect([make_paper_run("2_mlp"), make_paper_run("3_cnn", model="cnn", images=two_each)])

    sample = choose_sample(evidence)

    assert set(sample.ids.tolist()) <= set(small_faces.faces.ids[small_faces.rows["test"]][all_but_one])
    assert choose_sample(too_few) is None


def test_a_contest_ranks_and_pairs_the_same_images_whatever_their_order(make_paper_run):
    evidence = collect(
        [make_paper_run("0_mlp", right=range(10)), make_paper_run("1_cnn", model="cnn", right=range(5, 45))]
    )
    cnn, mlp = (group.predictions[0] for group in evidence.groups)
    shuffled = mlp.subset(np.random.default_rng(0).permutation(len(mlp)))

    contest = compare_predictors({"MLP": shuffled, "CNN": cnn})

    assert list(contest.predictions) == ["CNN", "MLP"]
    (test,) = contest.tests
    assert (test.first, test.second, test.only_first, test.only_second, test.n) == ("CNN", "MLP", 35, 5, 56)


def test_a_contest_leaves_out_who_was_tested_on_other_images_and_says_so(make_paper_run):
    evidence = collect(
        [
            make_paper_run("0_mlp"),
            make_paper_run("1_cnn", model="cnn", images=range(40)),
            make_paper_run("2_rnn", model="rnn"),
        ]
    )

    contest = compare_predictors({group.label: group.predictions[0] for group in evidence.groups})

    assert list(contest.predictions) == ["MLP", "RNN"]
    assert contest.apart == [
        "CNN cannot be compared here: 40 of these 56 images were among the 40 on which it was tested."
    ]


def test_the_papers_pairs_lie_within_their_bounds_whatever_the_overlaps():
    pairs = {(bounds.first, bounds.second): bounds for bounds in bound_papers_table_2()}
    a, b = reference.TABLE_2["GPT-4 Turbo"], reference.TABLE_2["MLP"]
    possible = [range(max(0, x + y - 5), min(x, y) + 1) for x, y in zip(a, b, strict=True)]

    p_values = {mcnemar_exact(sum(a) - sum(both), sum(b) - sum(both)) for both in product(*possible)}

    bounds = pairs["GPT-4 Turbo", "MLP"]
    # Holm multiplies by the number of pairs whose p is not smaller.
    assert bounds.p_low == pytest.approx(9 * min(p_values))
    assert bounds.p_high == pytest.approx(5 * max(p_values))
    assert bounds.p_low < 0.05 < bounds.p_high
    assert bounds.difference == pytest.approx(12 / 35)


def test_the_paper_cannot_tell_its_three_best_apart_and_can_tell_them_from_the_rnn():
    told = {(bounds.first, bounds.second): (bounds.p_low, bounds.p_high) for bounds in bound_papers_table_2()}

    for pair in (("CNN", "ResNet"), ("CNN", "GPT-4 Turbo"), ("ResNet", "GPT-4 Turbo"), ("MLP", "RNN")):
        assert told[pair][0] == 1
    for first in ("CNN", "ResNet", "GPT-4 Turbo"):
        assert told[first, "RNN"][1] < 0.05
    assert len(told) == 10
