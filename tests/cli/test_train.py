import csv
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fer_lightning.training.checkpoint import load_classifier, read_checkpoint
from tests.commands import ROOT, TINY, environment, run, sentence, succeed
from tests.forked import Forked

RUN_FILES = {
    "best.ckpt", "last.ckpt", "config.yaml", "overrides.yaml", "run.json", "metrics.csv", "metrics.json",
    "predictions_val.npz", "predictions_test.npz", "report.html", "figures", "train.log", "audit.json",
    "explanations_test.npz", "embeddings_test.npz",
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(cache, tmp_path_factory):
    """A finished run of the default logger, its folder and what it printed."""
    cwd = tmp_path_factory.mktemp("cwd")
    done = succeed("train.py", "model=mlp", *TINY, "trainer.max_epochs=2", cwd=cwd, cache=cache)
    (folder,) = cwd.glob("outputs/*/*")
    return folder, done


def record_of(folder):
    return json.loads((folder / "run.json").read_text())


def test_a_run_leaves_every_file_of_the_interface(finished):
    folder, _ = finished
    assert {path.name for path in folder.iterdir()} >= RUN_FILES | {"wandb"}
    assert folder.name.split("_")[1] == "mlp"
    assert not set(folder.name) & set('<>:"|?*')  # Windows refuses these
    assert not list(folder.rglob(".*.ckpt.*")), "half-written files"


def test_a_finished_run_says_what_it_was(finished):
    folder, _ = finished
    record = record_of(folder)
    assert record["state"] == "finished"
    assert record["reason"] is None
    assert record["synthetic"] is True
    assert record["data"]["counts"]["test"] == dict.fromkeys(record["data"]["counts"]["test"], 6)
    assert record["precision"] in ("32-true", "bf16-mixed")
    assert {"data_s", "fit_s", "test_s", "total_s"} <= record["durations"].keys()
    assert len(record["epoch_seconds"]) == len(record["epoch_end_seconds"]) == 2
    assert record["started"] < record["first_step"] < record["ended"]


def test_metrics_csv_has_a_row_an_epoch_and_no_times(finished):
    with (finished[0] / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert {"lr", "train/loss", "val/acc", "val/f1_macro"} <= rows[0].keys()
    assert not [name for name in rows[0] if "second" in name or "images_per_s" in name]


def test_metrics_json_repeats_from_the_predictions(finished):
    folder, _ = finished
    metrics = json.loads((folder / "metrics.json").read_text())
    with np.load(folder / "predictions_test.npz") as file:
        accuracy = (file["probs"].argmax(axis=1) == file["labels"]).mean()
        assert (file["status"] == "ok").all()
        assert len(set(file["ids"].tolist())) == 42
    assert metrics["test"]["n"] == 42
    assert metrics["test"]["acc"] == pytest.approx(accuracy)
    assert metrics["test"]["leak_free"]["n"] <= 42


def test_the_best_checkpoint_is_the_best_validation_epoch(finished):
    folder, _ = finished
    with (folder / "metrics.csv").open() as file:
        scores = [float(row["val/acc"]) for row in csv.DictReader(file)]
    record = record_of(folder)
    assert record["best_epoch"] == int(np.argmax(scores))
    assert record["best_score"] == pytest.approx(max(scores))
    assert json.loads((folder / "metrics.json").read_text())["val"]["acc"] == pytest.approx(max(scores))


def test_drawn_faces_are_said_in_the_output_and_the_page(finished):
    folder, done = finished
    assert "synthetic faces" in done.stdout
    assert "synthetic" in (folder / "report.html").read_text().lower()


def test_away_from_a_terminal_every_epoch_is_one_line(finished):
    lines = [line for line in finished[1].stdout.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    assert "val loss" in lines[0]
    assert "images/s" in lines[0]
    assert "left" in lines[0]
    assert "Traceback" not in finished[1].stderr


@pytest.mark.slow
def test_the_same_command_gives_the_same_bits_and_another_seed_does_not(cache, tmp_path):
    def weights(name, seed):
        arguments = ("model=mlp", *TINY, "trainer=smoke", "logger=none", f"seed={seed}")
        succeed("train.py", *arguments, f"hydra.run.dir={name}", cwd=tmp_path, cache=cache)
        assert not (tmp_path / name / "wandb").exists()
        return torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"]

    first, second, other = weights("a", 3), weights("b", 3), weights("c", 4)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)
    assert (tmp_path / "a/metrics.json").read_bytes() == (tmp_path / "b/metrics.json").read_bytes()
    assert (tmp_path / "a/metrics.csv").read_bytes() == (tmp_path / "b/metrics.csv").read_bytes()


def test_a_sweep_prints_one_table_and_none_per_job(cache, tmp_path):
    words = ("model=mlp,cnn", "model.dropout=0.2", *TINY, "trainer=smoke", "logger=none")

    done = succeed("train.py", "-m", *words, "hydra.sweep.dir=sweep", cwd=tmp_path, cache=cache)

    table = done.stdout[done.stdout.rindex(" job  model ") :]
    rows = [line.replace("*", "").split()[:3] for line in table.splitlines()[2:4]]
    assert {job: model for job, model, _ in rows} == {"0": "mlp", "1": "cnn"}
    for job, model, shown in rows:
        measured = json.loads((tmp_path / f"sweep/{job}_{model}/metrics.json").read_text())
        assert float(shown) == pytest.approx(100 * measured["test"]["acc"], abs=0.006)
    assert "95 % CI" in table
    assert max(map(len, table.splitlines()[:6])) <= 80
    assert "recall %" not in done.stdout
    assert "rows true, columns predicted" not in done.stdout


@pytest.mark.slow
def test_a_limited_run_says_everywhere_that_its_numbers_are_not_results(cache, tmp_path):
    def call(*words):
        return succeed(*words, cwd=tmp_path, cache=cache).stdout

    def read(name):
        return json.loads((tmp_path / name).read_text())

    limit = "trainer.limit_train_batches=1"
    words = ("model=mlp", *TINY, "trainer.max_epochs=1", "logger=none")
    printed = call("train.py", *words, limit, "hydra.run.dir=runs/limited")
    warning = f"WARNING: limited run ({limit}): its numbers are not results"
    assert printed.count(warning) == 2  # before and after
    before, _, last = printed.splitlines()[-3:]  # between them, the warning of synthetic faces
    assert before == warning
    assert last.startswith("limited run, not results: test accuracy on synthetic faces ")
    assert read("runs/limited/run.json")["limited"] == [limit]
    assert read("runs/limited/metrics.json")["limited"] == [limit]
    assert f"Limited run ({limit}): the numbers are not results." in page(tmp_path / "runs/limited")

    assert warning.removeprefix("WARNING: ") in call(
        "eval.py", "checkpoint=runs/limited", "hydra.run.dir=eval"
    )
    assert read("eval/metrics.json")["limited"] == [limit]
    assert f"Limited run ({limit})" in page(tmp_path / "eval")

    printed = call("train.py", *words, "trainer.limit_train_batches=3", "hydra.run.dir=runs/whole")
    assert "limited run" not in printed  # there are three batches
    assert read("runs/whole/run.json")["limited"] == []

    call("-m", "fer_lightning.report", "runs/limited", "runs/whole", "--out", "both.html")
    both = " ".join((tmp_path / "both.html").read_text().split())
    assert f"1 of 2 runs are limited ({limit}): the numbers are not results." in both
    assert "finished, limited" in both
    call("-m", "fer_lightning.report", "runs/limited", "--paper", "--out", "paper")
    assert f"Limited run ({limit}): the numbers are not results." in page(tmp_path / "paper")

    Image.fromarray(np.arange(48 * 48, dtype=np.uint8).reshape(48, 48)).save(tmp_path / "face.png")
    predicted = succeed(
        "-m",
        "fer_lightning.predict",
        "face.png",
        "--detector",
        "none",
        "--checkpoint",
        "runs/limited",
        cwd=tmp_path,
        cache=cache,
    )
    assert f"limited run ({limit})" in predicted.stderr


def page(folder):
    """Read a folder's page, with one space between words."""
    return " ".join((folder / "report.html").read_text().split())


def test_without_a_validation_split_the_last_epoch_is_kept(cache, tmp_path):
    succeed(
        "train.py", "model=mlp", *TINY, "data.protocol=paper", "trainer=smoke", "logger=csv",
        "hydra.run.dir=run", cwd=tmp_path, cache=cache,
    )  # fmt: skip
    folder = tmp_path / "run"
    best, last = (torch.load(folder / name, weights_only=True) for name in ("best.ckpt", "last.ckpt"))
    assert all(torch.equal(best["state_dict"][key], last["state_dict"][key]) for key in best["state_dict"])
    assert record_of(folder)["selected_by"] == "last"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test"]["n"] == 77
    assert "val" not in metrics
    assert (folder / "csv/metrics.csv").is_file()  # in Lightning's own layout, in addition to ours


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("data=fer2013", "data.root=nowhere"), "nowhere"),
        (("data=synthetic", "data.protocol=mine"), "data.protocol=mine: expected official or paper"),
        (("data=synthetic", "model.dropout=7"), "model.dropout=7"),
        (("data=synthetic", "optimizer._target_=torch.load"), "optimizer: "),
        (("data=synthetic", "resume=nowhere"), "resume=nowhere: no run there"),
    ],
)
def test_user_error_is_printed_as_one_sentence(cache, tmp_path, arguments, message):
    small = TINY[1:] if "data=synthetic" in arguments else ()
    done = run(
        "train.py", "model=mlp", *arguments, *small, "logger=none", "trainer.max_epochs=1",
        cwd=tmp_path, cache=cache,
    )  # fmt: skip
    assert message in sentence(done)


def test_two_runs_never_share_a_folder(finished, cache):
    folder, _ = finished
    before = (folder / "run.json").read_bytes()
    done = run("train.py", "model=mlp", *TINY, f"hydra.run.dir={folder}", cwd=folder.parent, cache=cache)
    assert "already holds a run (finished)" in sentence(done)
    assert (folder / "run.json").read_bytes() == before


def test_a_finished_run_is_left_alone_by_resume(finished, cache):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}
    done = succeed("train.py", f"resume={folder}", cwd=folder.parent, cache=cache)
    assert "finished" in done.stdout
    assert "FER-2013 was not found" not in done.stdout + done.stderr, "its data are not this command's affair"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"} == before


@pytest.mark.slow
def test_resume_auto_finds_the_newest_unfinished_run_of_the_same_config(cache, tmp_path):
    arguments = ("model=mlp", *TINY, "trainer.max_epochs=40", "logger=none")
    process = Forked([str(ROOT / "train.py"), *arguments], cwd=tmp_path, env=environment(cache))
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("outputs/*/*/last.ckpt")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (folder,) = tmp_path.glob("outputs/*/*")
    succeed(
        "train.py",
        *arguments[:-2],
        "trainer.max_epochs=3",
        "logger=none",
        "resume=auto",
        cwd=tmp_path,
        cache=cache,
    )
    assert list(tmp_path.glob("outputs/*/*")) == [folder], "it started again, or left an empty folder"
    assert record_of(folder)["state"] == "finished"
    assert len(record_of(folder)["resumed"]) == 1


@pytest.mark.slow
def test_fine_tuning_keeps_the_backbone_and_the_rows_of_known_classes(finished, cache, tmp_path):
    folder, _ = finished
    done = succeed(
        "train.py", "model=mlp", *TINY, "trainer=smoke", "logger=none", f"init_from={folder}",
        "data.classes=[happy,sad]", "data.num_classes=2", "hydra.run.dir=tuned", cwd=tmp_path, cache=cache,
    )  # fmt: skip
    assert f"started from {folder / 'best.ckpt'}; its head for happy, sad is kept" in done.stdout
    with np.load(tmp_path / "tuned/predictions_test.npz") as file:
        assert file["probs"].shape[1] == 2
    before = read_checkpoint(folder / "best.ckpt")[1]
    after = read_checkpoint(tmp_path / "tuned/best.ckpt")[1]
    seen = np.concatenate([before.trained_on, before.selected_on])
    assert np.isin(seen, after.trained_on).all()


@pytest.mark.slow
def test_early_stopping_is_one_override(cache, tmp_path):
    succeed(
        "train.py", "model=mlp", *TINY, "logger=none", "trainer.max_epochs=30", "early_stopping=1",
        "optimizer.lr=0.0", "hydra.run.dir=run", cwd=tmp_path, cache=cache,
    )  # fmt: skip
    assert len((tmp_path / "run/metrics.csv").read_text().splitlines()) < 6


@pytest.mark.parametrize("arguments", [("--help",), ("--cfg", "job")])
def test_help_and_config_import_nothing_heavy(cache, tmp_path, arguments):
    done = succeed("-X", "importtime", ROOT / "train.py", *arguments, cwd=tmp_path, cache=cache)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & {"torch", "lightning", "numpy", "wandb", "matplotlib"}
    assert "cnn" in done.stdout


def test_help_names_every_group_and_option(cache, tmp_path):
    shown = succeed("train.py", "--help", cwd=tmp_path, cache=cache).stdout
    for group in ("data", "model", "optimizer", "scheduler", "trainer", "logger", "experiment"):
        options = sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
        assert f"{group}: {', '.join(options)}" in shown
    assert shown.count("python train.py") >= 7  # the usage and six examples


@pytest.mark.slow
def test_data_auto_falls_back_to_drawn_faces_and_says_so_first_and_last(cache, tmp_path):
    done = succeed(
        "train.py", "model=mlp", "data.image_size=16", "data.download=false", "trainer=smoke", "logger=none",
        "hydra.run.dir=run", cwd=tmp_path, cache=cache,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert "SYNTHETIC" in lines[0]
    assert "synthetic faces" in lines[-1]
    assert record_of(tmp_path / "run")["dataset"] == "synthetic"
    assert "name: synthetic" in (tmp_path / "run/config.yaml").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("FER2013_ROOT"), reason="needs FER-2013: set FER2013_ROOT")
def test_one_epoch_on_fer2013_learns_and_evaluates_to_the_same_numbers(tmp_path_factory, tmp_path):
    root = str(Path(os.environ["FER2013_ROOT"]).absolute())
    cache = tmp_path_factory.mktemp("real")
    succeed(
        "train.py", "model=mlp", "data=fer2013", "trainer.max_epochs=1", "logger=none", "hydra.run.dir=run",
        cwd=tmp_path, cache=cache, FER2013_ROOT=root, OMP_NUM_THREADS="2", timeout=600,
    )  # fmt: skip
    test = json.loads((tmp_path / "run/metrics.json").read_text())["test"]
    assert test["n"] == 3589
    assert test["acc"] > 0.25
    assert test["leak_free"]["n"] <= 3301
    succeed(
        "eval.py", "checkpoint=run", "hydra.run.dir=eval", cwd=tmp_path, cache=cache,
        FER2013_ROOT=root, OMP_NUM_THREADS="2",
    )  # fmt: skip
    assert json.loads((tmp_path / "eval/metrics.json").read_text())["test"] == test


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed=abc"], "seed=abc: expected a whole number from 0 to 4,294,967,295"),
        (["seed=5000000000"], "seed=5000000000: expected a whole number from 0 to 4,294,967,295"),
        (["early_stopping=0"], "early_stopping=0: expected a whole number of at least 1"),
        (["trainer.max_epochs=abc"], "trainer.max_epochs=abc: expected a whole number of at least 1"),
    ],
)
def test_wrong_settings_are_refused_before_a_folder_is_made(overrides, message, cache, tmp_path):
    assert message in sentence(run("train.py", *TINY, *overrides, cwd=tmp_path, cache=cache))
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.slow
def test_every_epoch_s_weights_are_kept_where_that_is_asked_for(cache, tmp_path):
    folder = tmp_path / "run"
    succeed(
        *("train.py", "experiment=improved_mlp", *TINY, "trainer.max_epochs=3", "keep_epochs=true"),
        *("data.protocol=official", "logger=none", f"hydra.run.dir={folder}"),
        cwd=tmp_path,
        cache=cache,
    )
    kept = sorted(path.name for path in (folder / "epochs").iterdir())
    assert kept == ["000.ckpt", "001.ckpt", "002.ckpt"]
    last, origin = load_classifier(folder / "epochs/002.ckpt")
    assert (origin.epoch, origin.selected_by, origin.score) == (2, "last", None)
    full = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    for name, weights in last.state_dict().items():  # the averaged weights, with which it predicts
        assert torch.equal(weights, full[name.replace("backbone.", "averaged.")]), name


@pytest.mark.parametrize("setting", ["compile=maybe", "keep_epochs=3"])
def test_a_switch_is_on_or_off(cache, tmp_path, setting):
    done = run("train.py", *TINY, setting, cwd=tmp_path, cache=cache)
    assert f"{setting}: expected true or false" in sentence(done)
    assert not (tmp_path / "outputs").exists() or not list(tmp_path.glob("outputs/*/*"))
