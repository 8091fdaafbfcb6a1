"""Names of runs say what differs."""

import re

import pytest

from fer_lightning.training.loggers.naming import MAX_LENGTH, run_name


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "mlp-s0"),
        (["model=mlp", "optimizer.lr=0.001"], "mlp-s0-lr1e-3"),
        (["optimizer.lr=1.0e-03", "seed=0"], "mlp-s0-lr1e-3"),
        (["optimizer.lr=0.01", "data.batch_size=128"], "mlp-s0-lr0.01-bs128"),
        (["optimizer=sgd", "optimizer.lr=0.0003", "scheduler=cosine"], "mlp-s0-sgd-lr3e-4-cosine"),
        (["model.hidden=[2048, 1024]", "trainer.max_epochs=5"], "mlp-s0-hidden2048x1024-e5"),
        (["classifier.class_weights=balanced", "classifier.flip_test=true"], "mlp-s0-cw_balanced-flip_test"),
        (["data.drop_leaks=false", "early_stopping=null"], "mlp-s0-no_drop_leaks-no_patience"),
        (["trainer=smoke", "trainer.accelerator=cpu"], "mlp-s0-smoke"),
        (
            ["trainer=gpu", "data.root=/home/x", "logger.wandb.project=p", "+logger.x=1", "resume=auto"],
            "mlp-s0",
        ),
        (["hydra/launcher=joblib", "hydra.run.dir=x", "num_threads=1"], "mlp-s0"),
        (["init_from=outputs/a/best.ckpt"], "mlp-s0-finetuned"),
        (["optimizer.lr=0.1", "optimizer.lr=0.2"], "mlp-s0-lr0.2"),
        (["scheduler=none"], "mlp-s0-no_scheduler"),
    ],
)
def test_a_name_has_model_seed_and_changed_settings(overrides, name):
    assert run_name("mlp", 0, overrides) == name


def test_a_name_has_the_experiment_once_and_any_other_data_set():
    assert run_name("mlp", 3, ["experiment=improved_mlp"], experiment="improved_mlp") == "mlp-s3-improved"
    assert run_name("cnn", 0, [], experiment="paper", dataset="synthetic") == "cnn-s0-paper-synthetic"


def test_a_name_is_short_and_of_plain_characters_and_still_unique():
    many = [f"data.source.number_of_things_{index}={index}" for index in range(20)]
    one, other = (run_name("mlp", 0, [*many, f"optimizer.lr={lr}"]) for lr in (0.1, 0.2))
    assert one != other
    for name in (one, other, run_name("m" * 100, 0, []), run_name("a/b c", 0, ["model.name='ü#?%:\\'"])):
        assert len(name) <= MAX_LENGTH
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", name), name
