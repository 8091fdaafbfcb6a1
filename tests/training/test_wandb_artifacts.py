"""Artifacts, curves and the table of predictions, read back from real offline runs."""

import json

import numpy as np
import pytest
from scipy.integrate import trapezoid

from fer_lightning.training.loggers.wandb import FailsafeWandbLogger
from fer_lightning.training.loggers.wandb_curves import MAX_POINTS, _rows, pr_points, roc_points
from tests.training.test_wandb import (
    METRICS,
    RECORD,
    inspect,
    no_account,  # noqa: F401 - a fixture
    some_predictions,
    summary_of,
    warnings_in,
)

FILES = ("best.ckpt", "last.ckpt", "metrics.json", "config.yaml", "report.html", "predictions_test.npz")


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "run"
    (folder / "figures").mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text(name)
    (folder / "figures/confusion_test.png").write_bytes(png())
    return folder


def png():
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, "png")
    return file.getvalue()


def artifacts(run_dir):
    records = [json.loads(line) for line in inspect(run_dir).splitlines()]
    return [record["artifact"] for record in records if record["type"] == "artifact"]


def log(run_dir, **settings):
    logger = FailsafeWandbLogger(run_dir=run_dir, **settings)
    logger.start({}, RECORD)
    logger.log_files(run_dir, RECORD)
    logger.finish(exit_code=0)
    return logger


def test_no_artifact_by_default_but_the_confusion_matrix_as_an_image(run_dir):
    log(run_dir)
    assert artifacts(run_dir) == []
    assert summary_of(run_dir)["summary"]["test/confusion_matrix_figure"]["_type"] == "image-file"


def test_best_logs_checkpoint_results_and_the_data_set_used(run_dir, caplog):
    logger = log(run_dir, log_model="best")
    assert warnings_in(caplog) == []
    data, model, results = artifacts(run_dir)
    assert (data["type"], data["name"], data["use_after_commit"]) == ("dataset", "data-synthetic", True)
    assert json.loads(data["metadata"])["fingerprint"] == "0123"
    assert (model["type"], model["name"]) == ("model", f"model-{logger.version}")
    assert set(model["aliases"]) == {"best", "latest"}
    assert json.loads(model["metadata"])["data_fingerprint"] == "0123"
    assert json.loads(model["metadata"])["git_commit"] == "c0ffee"
    [best] = model["manifest"]["contents"]
    assert (best["path"], best["local_path"]) == ("best.ckpt", str(run_dir / "best.ckpt"))  # not copied
    assert {entry["path"] for entry in results["manifest"]["contents"]} == {
        "metrics.json", "config.yaml", "report.html", "predictions_test.npz",
    }  # fmt: skip


def test_all_logs_last_and_every_epoch_too_and_best_is_the_latest(run_dir):
    (run_dir / "epochs").mkdir()
    (run_dir / "epochs/000.ckpt").write_text("0")
    log(run_dir, log_model="all")
    models = [artifact for artifact in artifacts(run_dir) if artifact["type"] == "model"]
    aliases = [set(artifact["aliases"]) - {"latest"} for artifact in models]
    assert aliases == [{"last"}, {"epochs"}, {"best"}]


@pytest.mark.slow
def test_equal_data_are_one_version_of_the_data_set(run_dir, tmp_path):
    log(run_dir, log_model="best")
    (tmp_path / "other").mkdir()
    for name in FILES:
        (tmp_path / "other" / name).write_text("other")
    log(tmp_path / "other", log_model="best")
    digests = [artifacts(folder)[0]["digest"] for folder in (run_dir, tmp_path / "other")]
    assert digests[0] == digests[1]


def test_a_missing_checkpoint_does_not_stop_the_run(run_dir, caplog):
    (run_dir / "best.ckpt").unlink()
    log(run_dir, log_model="best")
    [sentence] = warnings_in(caplog)
    assert sentence.startswith("W&B failed and records no more of this run: ")


@pytest.mark.parametrize("channels", [1, 3])
def test_every_prediction_is_in_the_table_only_with_the_option(run_dir, channels):
    predictions, images = some_predictions()
    if channels == 3:
        images = images[:, None].repeat(3, 1)
    logger = FailsafeWandbLogger(run_dir=run_dir, log_predictions=True)
    logger.log_evaluation("val", predictions, METRICS, images)
    logger.log_evaluation("test", predictions, METRICS, images)
    logger.finish(exit_code=0)
    [table] = run_dir.glob("wandb/offline-run-*/files/media/table/test/predictions*")
    content = json.loads(table.read_text())
    assert content["columns"][:6] == ["id", "image", "label", "prediction", "correct", "leaked"]
    assert content["columns"][6] == "prob angry"
    assert len(content["data"]) == len(predictions)
    assert content["data"][3][2:6] == ["happy", "happy", True, False]
    assert content["data"][-1][3] == "no answer"
    assert content["data"][-1][6] is None
    [entries] = [
        artifact["manifest"]["contents"]
        for artifact in artifacts(run_dir)
        if artifact["name"].startswith(f"run-{logger.version}-testpredictions")
    ]
    assert sum(entry["path"].endswith(".png") for entry in entries) == len(predictions)
    assert not [*run_dir.glob("wandb/offline-run-*/files/media/table/val/predictions*")]


def test_without_the_option_no_test_image_but_the_mistakes_is_sent(run_dir):
    predictions, images = some_predictions()
    logger = FailsafeWandbLogger(run_dir=run_dir)
    logger.log_evaluation("test", predictions, METRICS, images)
    logger.finish(exit_code=0)
    assert len([*run_dir.glob("wandb/offline-run-*/files/media/**/*.png")]) == 24
    keys = summary_of(run_dir)["summary"].keys()
    assert {"test/roc_table", "test/pr_table"} <= keys
    assert "test/predictions" not in keys


def test_roc_and_pr_have_known_values():
    is_class = np.array([True, False, True, False])
    probs = np.array([0.9, 0.8, 0.7, 0.1], np.float32)
    fpr, tpr = roc_points(is_class, probs)
    assert fpr.tolist() == [0, 0, 0.5, 0.5, 1]
    assert tpr.tolist() == [0, 0.5, 0.5, 1, 1]
    assert trapezoid(tpr, fpr) == 0.75
    recall, precision = pr_points(is_class, probs)
    assert recall.tolist() == [0.5, 0.5, 1, 1]
    assert precision == pytest.approx([1, 0.5, 2 / 3, 0.5])


def test_equal_probabilities_are_one_point():
    fpr, tpr = roc_points(np.array([True, False]), np.array([0.5, 0.5], np.float32))
    assert (fpr.tolist(), tpr.tolist()) == ([0, 1], [0, 1])


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    x = np.linspace(0, 1, 5000)
    rows = _rows("happy", x, x)
    assert len(rows) == MAX_POINTS
    assert (rows[0][1:], rows[-1][1:]) == ([0, 0], [1, 1])
