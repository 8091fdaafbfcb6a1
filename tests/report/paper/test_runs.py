import json

import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.report.paper.runs import collect_runs

RESNET = {
    "_target_": "fer_lightning.models.resnet.ResNet",
    "num_classes": 7,
    "image_size": 16,
    "depth": 34,
    "stem": "imagenet",
    "pretrained": False,
}


def test_runs_are_grouped_by_family_and_recipe(make_paper_run):
    runs = [
        make_paper_run("a", model="rnn"),
        make_paper_run("b", model="mlp", seed=1),
        make_paper_run("c", model="mlp", seed=0),
        make_paper_run("d", model="mlp", experiment="improved"),
        make_paper_run("e", model="resnet", network=RESNET),
        make_paper_run("f", model="resnet", network=RESNET | {"pretrained": True}),
    ]

    paper_runs = collect_runs(runs)

    assert [network.label for network in paper_runs.networks] == [
        "ResNet-34 (pre-trained)",
        "ResNet-34 (from scratch)",
        "MLP",
        "RNN",
        "MLP (improved)",
    ]
    mlp = paper_runs.networks[2]
    assert [run.info["seed"] for run in mlp.runs] == [0, 1]
    assert mlp.on_papers_images
    assert mlp.departures == []
    assert paper_runs.left_out == ()


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (
            {"state": "interrupted", "reason": "stopped by signal 15"},
            "it was interrupted (stopped by signal 15)",
        ),
        ({"state": "failed", "reason": "no disk"}, "it failed (no disk)"),
        ({"state": "running"}, "it is still running, or was killed"),
    ],
)
def test_unfinished_run_is_left_out_with_its_reason(make_paper_run, info, reason):
    paper_runs = collect_runs([make_paper_run("0_mlp"), make_paper_run("1_cnn", model="cnn", info=info)])

    assert [network.family for network in paper_runs.networks] == ["mlp"]
    assert paper_runs.left_out == (f"1_cnn is left out: {reason}.",)


def test_no_usable_run_is_an_error_with_the_reason(make_paper_run):
    folder = make_paper_run("0_mlp")
    (folder / "predictions_test.npz").unlink()

    with pytest.raises(FERError, match="no run to report on: 0_mlp is left out: it has no predictions"):
        collect_runs([folder])


def test_runs_on_different_data_are_refused(make_paper_run):
    other = {"data": {"fingerprint": "another"}}

    with pytest.raises(FERError, match="results on different data are not comparable"):
        collect_runs([make_paper_run("0_mlp"), make_paper_run("1_cnn", model="cnn", info=other)])


def test_repetitions_with_different_settings_are_refused(make_paper_run):
    lr = {"optimizer": {"_target_": "torch.optim.Adam", "lr": 0.1}}

    with pytest.raises(FERError, match=r"1_mlp are runs of MLP that differ in optimizer\.lr"):
        collect_runs([make_paper_run("0_mlp"), make_paper_run("1_mlp", seed=1, config=lr)])


def test_setting_missing_in_an_older_run_is_no_difference(make_paper_run):
    newer = {"classifier": {"flip_test": False}}

    paper_runs = collect_runs([make_paper_run("0_mlp"), make_paper_run("1_mlp", seed=1, config=newer)])

    assert len(paper_runs.networks[0].runs) == 2


def test_a_trainer_of_another_version_is_no_difference(make_paper_run):
    older = {"trainer": {"_target_": "lightning.pytorch.Trainer"}}
    ours = {"trainer": {"_target_": "fer_lightning.training.trainer.Trainer"}}

    folders = [make_paper_run("0_mlp", config=older), make_paper_run("1_mlp", seed=1, config=ours)]

    assert len(collect_runs(folders).networks[0].runs) == 2


def test_repetitions_on_different_images_are_refused(make_paper_run):
    with pytest.raises(FERError, match="tested on different images"):
        collect_runs([make_paper_run("0_mlp"), make_paper_run("1_mlp", seed=1, images=range(40))])


def test_repeated_seeds_and_other_recipes_are_left_out(make_paper_run):
    runs = [
        make_paper_run("0_mlp", right=[1]),
        make_paper_run("1_mlp"),
        make_paper_run("2_mlp", seed=7, experiment="mine", config={"trainer": {"max_epochs": 9}}),
    ]

    paper_runs = collect_runs(runs)

    assert [run.folder.name for run in paper_runs.networks[0].runs] == ["0_mlp"]
    assert len(paper_runs.left_out) == 2
    assert "2_mlp is left out: MLP also has runs of the paper's recipe" in paper_runs.left_out[0]
    assert "1_mlp is left out: there is another run with seed 0" in paper_runs.left_out[1]


@pytest.mark.parametrize(
    ("config", "departure"),
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
            "init_from=best.ckpt (the paper: no initial checkpoint)",
        ),
    ],
)
def test_departures_from_the_papers_recipe_are_listed(make_paper_run, config, departure):
    assert collect_runs([make_paper_run("0_mlp", config=config)]).networks[0].departures == [departure]


def test_default_settings_are_no_departure(make_paper_run):
    defaults = {
        "classifier": {"label_smoothing": 0, "class_weights": "none", "ema_decay": 0.0, "flip_test": False},
        "trainer": {"max_epochs": 30, "limit_train_batches": 1.0, "gradient_clip_val": None},
        "scheduler": {"interval": "epoch", "schedule": None},
        "init_from": None,
        "early_stopping": None,
    }

    assert collect_runs([make_paper_run("0_mlp", config=defaults)]).networks[0].departures == []


def test_selected_epoch_is_a_departure(make_paper_run):
    network = collect_runs([make_paper_run("0_mlp", info={"selected_by": "val/acc"})]).networks[0]

    assert network.departures == ["the epoch selected by val/acc (the paper: the last one)"]


def test_improved_recipe_is_recognised_by_its_config(make_paper_run):
    runs = [
        make_paper_run("0_mlp", experiment="", config={"classifier": {"ema_decay": 0.998}}),
        make_paper_run("1_mlp", info={"overrides": ["experiment=improved_mlp"]}),
        make_paper_run("2_mlp", experiment=""),
    ]

    assert [collect_runs([run]).networks[0].improved for run in runs] == [True, True, False]


def test_other_images_are_noticed_by_number_and_fingerprint(make_paper_run):
    fewer = collect_runs([make_paper_run("0_mlp", images=range(40))])
    altered = collect_runs([make_paper_run("1_mlp", info={"data": {"fingerprint": "blurred"}})])

    assert not fewer.networks[0].on_papers_images
    assert not altered.networks[0].on_papers_images


def test_evaluations_of_one_language_model_get_distinct_labels(make_paper_run):
    paper_runs = collect_runs(
        [make_paper_run(name, model="gpt-x", info={"predictor": "llm"}) for name in ("0_llm", "1_llm")]
    )

    assert [model.label for model in paper_runs.llms] == ["gpt-x", "gpt-x (1_llm)"]


def test_folder_given_twice_counts_once(make_paper_run):
    run = make_paper_run("llm", model="seer", info={"predictor": "llm"})

    paper_runs = collect_runs([run, run.parent / "llm" / "." / "", run])

    assert [model.label for model in paper_runs.llms] == ["seer"]
    assert paper_runs.left_out == ("llm was given twice, and counts once.",) * 2


def test_equal_model_and_folder_names_get_distinct_labels(make_paper_run):
    asked = {"predictor": "llm"}

    paper_runs = collect_runs([make_paper_run(f"{place}/out", model="seer", info=asked) for place in "abc"])

    assert [model.label for model in paper_runs.llms] == ["seer", "seer (out)", "seer (out, 2)"]


def test_run_with_missing_metrics_is_left_out(make_paper_run):
    whole, damaged = make_paper_run("0_mlp"), make_paper_run("1_cnn", model="cnn")
    metrics = json.loads((damaged / "metrics.json").read_text())
    del metrics["test"]["per_class"], metrics["test"]["ece"]
    (damaged / "metrics.json").write_text(json.dumps(metrics))

    assert collect_runs([whole, damaged]).left_out == (
        "1_cnn is left out: its metrics.json has no ece, per_class of the test split.",
    )
