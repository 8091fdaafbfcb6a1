"""A run calibrates its checkpoint on val, and what uses the checkpoint follows."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fer_lightning.evaluation.calibration import fit_temperature, with_temperature
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.training.checkpoint import read_checkpoint
from fer_lightning.training.checkpoint_metadata import KEY
from tests.commands import TINY, run, sentence, succeed


@pytest.fixture(scope="module")
def calibrated(cache, tmp_path_factory):
    """The folder of a finished run with 140 val images."""
    cwd = tmp_path_factory.mktemp("cwd")
    settings = [*TINY, "data.source.num_val=140", "trainer.max_epochs=3", "logger=none"]
    succeed("train.py", "model=mlp", *settings, "hydra.run.dir=run", cwd=cwd, cache=cache)
    return cwd / "run"


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_checkpoint_and_metrics_hold_the_temperature_of_val(calibrated):
    val = Predictions.load(calibrated / "predictions_val.npz")
    described, (content, metadata) = (
        metrics_of(calibrated)["calibration"],
        read_checkpoint(calibrated / "best.ckpt"),
    )
    assert described["temperature"] == metadata.temperature == fit_temperature(val.probs, val.labels) != 1
    assert described["threshold"] == metadata.threshold
    assert described["fitted_on"] == "val"
    assert described["val"]["nll_after"] < described["val"]["nll_before"]
    assert metrics_of(calibrated)["test"]["ece"] == pytest.approx(described["test"]["ece_before"])
    assert described["test"]["n"] == 42
    assert content["global_step"] > 0, "the rest of the checkpoint is kept"


def test_evaluation_of_a_calibrated_checkpoint_repeats_the_numbers(calibrated, cache, tmp_path):
    succeed("eval.py", f"checkpoint={calibrated}", "hydra.run.dir=out", cwd=tmp_path, cache=cache)
    trained, again = metrics_of(calibrated), metrics_of(tmp_path / "out")
    assert again["test"] == trained["test"]
    expected = {key: value for key, value in trained["calibration"].items() if key != "val"}
    assert again["calibration"] == expected


@pytest.mark.slow
def test_other_views_are_calibrated_on_val_anew(calibrated, cache, tmp_path):
    command = ("eval.py", f"checkpoint={calibrated}", "predictor.tta=ten_crop")
    done = succeed(*command, "hydra.run.dir=out", cwd=tmp_path, cache=cache)
    succeed(*command, "split=val", "hydra.run.dir=val", cwd=tmp_path, cache=cache)
    assert "ten_crop: 10 views of each image" in done.stdout
    assert json.loads((tmp_path / "out/run.json").read_text())["tta"] == "ten_crop"
    probs = [
        Predictions.load(folder / "predictions_test.npz").probs for folder in (calibrated, tmp_path / "out")
    ]
    assert 1e-4 < np.abs(probs[1] - probs[0]).max() < 0.5
    val = Predictions.load(tmp_path / "val/predictions_val.npz")
    expected = fit_temperature(val.probs, val.labels)
    assert expected != metrics_of(calibrated)["calibration"]["temperature"]
    for folder in ("out", "val"):
        assert metrics_of(tmp_path / folder)["calibration"]["temperature"] == pytest.approx(expected)


def test_predict_answers_with_calibrated_probabilities(calibrated, cache, tmp_path):
    Image.fromarray(np.arange(48 * 48, dtype=np.uint8).reshape(48, 48)).save(tmp_path / "face.png")
    arguments = ("face.png", "--detector", "none", "--json", "--checkpoint")
    content, _ = read_checkpoint(calibrated / "best.ckpt")
    temperature = content[KEY].pop("temperature")
    content[KEY].pop("threshold")
    torch.save(content, tmp_path / "before.ckpt")  # as written by a version without calibration
    before, after = (
        json.loads(
            succeed("-m", "fer_lightning.predict", *arguments, str(path), cwd=tmp_path, cache=cache).stdout
        )["predictions"][0]["probs"]
        for path in (tmp_path / "before.ckpt", calibrated)
    )
    raw = np.array([list(before.values())], np.float32)
    assert list(after.values()) == pytest.approx(with_temperature(raw, temperature)[0].tolist(), abs=1e-6)
    assert before != after


@pytest.mark.slow
def test_without_enough_val_images_nothing_is_calibrated(cache, tmp_path):
    succeed(
        "train.py", "model=mlp", *TINY, "trainer.max_epochs=1", "logger=none", "hydra.run.dir=run",
        cwd=tmp_path, cache=cache,
    )  # fmt: skip
    assert metrics_of(tmp_path / "run")["calibration"] is None
    assert read_checkpoint(tmp_path / "run/best.ckpt")[1].temperature is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("temperature", 0.0, "temperature=0.0: expected a number up to 20"),
        ("temperature", float("nan"), "temperature=nan: expected a number up to 20"),
        ("temperature", "2", "temperature is str, expected float"),
        ("threshold", 2.0, "threshold=2.0: expected a number in [0, 1]"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ("eval.py", "checkpoint=bad.ckpt"),
        ("-m", "fer_lightning.predict", "face.png", "--detector", "none", "--checkpoint", "bad.ckpt"),
    ],
)
def test_hostile_calibration_is_refused(command, name, value, message, calibrated, cache, tmp_path):
    Image.new("L", (48, 48), 9).save(tmp_path / "face.png")
    content, _ = read_checkpoint(calibrated / "best.ckpt")
    content[KEY][name] = value
    torch.save(content, tmp_path / "bad.ckpt")
    done = run(*command, cwd=tmp_path, cache=cache)
    assert done.returncode == 1
    assert message in sentence(done)
    assert "bad.ckpt" in sentence(done)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "safetensors"])
def test_exports_keep_the_calibration_of_the_run(kind, calibrated, cache, tmp_path):
    arguments = ("export", str(calibrated), "--format", kind, "--out", "out")
    succeed("-m", "fer_lightning", *arguments, cwd=tmp_path, cache=cache)
    described = metrics_of(calibrated)["calibration"]
    card = (tmp_path / "out/README.md").read_text()
    assert f"{described['temperature']:.4f}" in card
    assert (
        f"| {100 * described['test']['ece_before']:.2f} % | {100 * described['test']['ece_after']:.2f} %"
        in card
    )
    succeed("eval.py", "checkpoint=out", "hydra.run.dir=again", cwd=tmp_path, cache=cache)
    again = metrics_of(tmp_path / "again")
    assert again["calibration"]["temperature"] == described["temperature"]
    assert again["test"]["acc"] == metrics_of(calibrated)["test"]["acc"]
    assert again["test"]["ece"] == pytest.approx(metrics_of(calibrated)["test"]["ece"], abs=0.01)
    assert again["test"]["leak_free"]["acc"] == metrics_of(calibrated)["test"]["leak_free"]["acc"]
