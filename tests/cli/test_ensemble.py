"""``eval.py ensemble=true|greedy``: several checkpoints as one predictor."""

import json
import shutil

import numpy as np
import pytest

from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.evaluation.calibration import fit_temperature
from fer_lightning.evaluation.ensembles import average, choose_greedily, disagreement
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.evaluation.stats import compare_pairs
from tests.commands import TINY, run, sentence, succeed


@pytest.fixture(scope="module")
def folder(cache, tmp_path_factory):
    """A folder with three runs: two MLPs, and a CNN on smaller images."""
    cwd = tmp_path_factory.mktemp("cwd")
    common = [*TINY, "data.source.num_val=140", "logger=none"]
    for name, settings in {
        "mlp0": ["model=mlp", "trainer.max_epochs=4"],
        "mlp1": ["model=mlp", "trainer.max_epochs=2", "seed=1"],
        "other": ["model=mlp", "trainer.max_epochs=1", f"data.classes=[{','.join(reversed(EXPRESSIONS))}]"],
        "cnn": ["model=cnn", "trainer.max_epochs=1", "model.widths=[8,8]", "data.image_size=24"],
    }.items():
        succeed("train.py", *settings, *common, f"hydra.run.dir={name}", cwd=cwd, cache=cache)
    return cwd


def record_of(place):
    return json.loads((place / "run.json").read_text())


def test_an_ensemble_is_the_mean_of_its_members(folder, cache):
    done = succeed(
        "eval.py", "checkpoint=[mlp0,mlp1,cnn]", "ensemble=true", "hydra.run.dir=all", cwd=folder, cache=cache
    )
    members = [Predictions.load(folder / name / "predictions_test.npz") for name in ("mlp0", "mlp1", "cnn")]
    found = Predictions.load(folder / "all/predictions_test.npz")
    assert found.ids.tolist() == members[0].ids.tolist() != members[2].ids.tolist()
    members[2] = members[2].subset(np.array([members[2].ids.tolist().index(each) for each in found.ids]))
    np.testing.assert_allclose(found.probs, np.mean([each.probs for each in members], axis=0), atol=1e-6)
    metrics = json.loads((folder / "all/metrics.json").read_text())
    assert metrics["test"]["acc"] == pytest.approx(found.correct.mean())
    val = [Predictions.load(folder / name / "predictions_val.npz") for name in ("mlp0", "mlp1", "cnn")]
    mean = average(val, ["mlp0", "mlp1", "cnn"])
    assert metrics["calibration"]["temperature"] == pytest.approx(
        fit_temperature(mean.probs, mean.labels), abs=1e-4
    )
    assert "best_epoch" not in metrics
    record = record_of(folder / "all")
    assert record["model"] == "ensemble"
    described = record["ensemble"]
    assert [each["name"] for each in described["members"]] == ["mlp0", "mlp1", "cnn"]
    for each, predictions in zip(described["members"], members, strict=True):
        assert each["acc"] == pytest.approx(predictions.correct.mean())
        (test,) = compare_pairs({"mean": found.correct, "member": predictions.correct})
        assert (each["gain"], each["p_value"]) == pytest.approx((test.difference, test.p_value))
        assert each["gain_ci95"] == pytest.approx(test.interval)
        assert each["chosen"]
    assert described["disagreement"] == pytest.approx(disagreement(members))
    page = (folder / "all/report.html").read_text()
    assert "The mean of the probabilities of 3 predictors." in page
    assert "members of the ensemble" in page
    assert "member 3 of 3, cnn/best.ckpt: predicting test" in done.stdout


def test_members_are_chosen_on_val_and_written_down(folder, cache):
    succeed(
        "eval.py",
        "checkpoint=[mlp1,mlp0,cnn]",
        "ensemble=greedy",
        "hydra.run.dir=chosen",
        cwd=folder,
        cache=cache,
    )
    names = ["mlp1", "mlp0", "cnn"]
    expected = choose_greedily(
        [Predictions.load(folder / name / "predictions_val.npz") for name in names], names
    )
    described = record_of(folder / "chosen")["ensemble"]
    assert described["chosen_on"] == "val"
    assert described["order"] == [names[i] for i in expected.members]
    assert described["val_acc_after"] == pytest.approx(expected.accuracies)
    assert [each["chosen"] for each in described["members"]] == [i in expected.members for i in range(3)]
    found = Predictions.load(folder / "chosen/predictions_test.npz")
    members = [Predictions.load(folder / names[i] / "predictions_test.npz").probs for i in expected.members]
    np.testing.assert_allclose(found.probs, np.mean(members, axis=0), atol=1e-6)
    assert (
        "Chosen one after the other by the accuracy of the mean on val"
        in (folder / "chosen/report.html").read_text()
    )


@pytest.mark.slow
def test_a_folder_with_predictions_is_a_member(folder, cache):
    other = folder / "answers"
    other.mkdir()
    for name in ("predictions_test.npz", "metrics.json", "run.json"):
        shutil.copy(folder / "mlp1" / name, other / name)
    command = ("eval.py", "checkpoint=[mlp0,answers]")
    succeed(*command, "ensemble=true", "hydra.run.dir=mixed", cwd=folder, cache=cache)
    members = [Predictions.load(folder / name / "predictions_test.npz").probs for name in ("mlp0", "mlp1")]
    found = Predictions.load(folder / "mixed/predictions_test.npz")
    np.testing.assert_allclose(found.probs, np.mean(members, axis=0), atol=1e-6)
    metrics = json.loads((folder / "mixed/metrics.json").read_text())
    assert metrics["test"]["leak_free"] is None, "which images trained the second is unknown"
    assert metrics["calibration"] is None
    done = run(*command, "ensemble=greedy", "hydra.run.dir=out", cwd=folder, cache=cache)
    assert "answers holds predictions without a network, which val cannot choose" in sentence(done)
    shutil.copytree(other, folder / "foreign")
    record = record_of(other)
    record["data"]["fingerprint"] = "0" * 32
    (folder / "foreign/run.json").write_text(json.dumps(record))
    done = run("eval.py", "checkpoint=[mlp0,foreign]", "ensemble=true", cwd=folder, cache=cache)
    assert "foreign/predictions_test.npz: of other data (fingerprint 000000000000" in sentence(done)


def test_a_network_and_its_copy_are_named(folder, cache):
    (folder / "copies").mkdir()
    shutil.copy(folder / "mlp0/best.ckpt", folder / "copies/same.ckpt")
    command = ("eval.py", "ensemble=true", "hydra.run.dir=copied")
    done = succeed(*command, "checkpoint=[mlp0,mlp1,copies/same.ckpt]", cwd=folder, cache=cache)
    said = [line for line in done.stdout.splitlines() if "give the same probabilities" in line]
    assert len(said) == 1
    assert "mlp0" in said[0]
    assert "one network counts twice" in said[0]


@pytest.mark.slow
def test_a_limited_member_marks_the_ensemble(folder, cache):
    succeed(
        "train.py", "model=mlp", *TINY, "data.source.num_val=140", "logger=none", "trainer.max_epochs=1",
        "trainer.limit_train_batches=1", "hydra.run.dir=limited", cwd=folder, cache=cache,
    )  # fmt: skip
    done = succeed(
        "eval.py",
        "checkpoint=[mlp0,limited]",
        "ensemble=true",
        "hydra.run.dir=marked",
        cwd=folder,
        cache=cache,
    )
    assert json.loads((folder / "marked/metrics.json").read_text())["limited"]
    assert "its numbers are not results" in done.stdout + done.stderr


@pytest.mark.slow
def test_val_that_trained_a_member_neither_calibrates_nor_chooses(folder, cache):
    common = ("model=mlp", *TINY, "data.source.num_train=280", "logger=none", "trainer.max_epochs=1")
    for name, settings in {"held0": ("seed=0",), "held1": ("seed=1",)}.items():
        succeed(
            "train.py", *common, *settings, "data.source.seed=0", "data.val_fraction=0.5",
            f"hydra.run.dir={name}", cwd=folder, cache=cache,
        )  # fmt: skip
    command = ("eval.py", "checkpoint=[held0,held1]")
    succeed(*command, "ensemble=true", "hydra.run.dir=held", cwd=folder, cache=cache)
    assert json.loads((folder / "held/metrics.json").read_text())["calibration"] is None
    done = run(*command, "ensemble=greedy", "hydra.run.dir=none", cwd=folder, cache=cache)
    assert "held1 was trained on images of val, so val cannot choose it" in sentence(done)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("checkpoint=[mlp0,mlp1]", "ensemble=greedy", "data.protocol=paper"),
            "ensemble=greedy: chooses on val, which is empty (data.protocol=paper)",
        ),
        (("checkpoint=[mlp0,nowhere]", "ensemble=true"), "nowhere: no such file"),
        (
            ("checkpoint=[mlp0,mlp0]", "ensemble=true"),
            "ensemble: mlp0 and mlp0 are one member; name each once",
        ),
        (
            ("checkpoint=[mlp0,mlp0/best.ckpt]", "ensemble=true"),
            "ensemble: mlp0 and mlp0/best.ckpt are one member",
        ),
        (
            ("checkpoint=[mlp0,other]", "ensemble=true"),
            "other/best.ckpt has the classes surprise, sad, neutral",
        ),
        (
            ("predictor=llm", "predictor.model=x", "data=synthetic", "ensemble=true"),
            "ensemble=true: predictor=llm evaluates one model",
        ),
    ],
    ids=["no val", "missing", "twice", "one file", "classes", "llm"],
)
def test_mistakes_get_a_sentence(folder, cache, arguments, message):
    done = run("eval.py", *arguments, "hydra.run.dir=mistake", cwd=folder, cache=cache)
    assert message in sentence(done)
