"""Several loggers, of Lightning and of the user: each gets metrics, config, results and figures."""

import csv
import re

import pytest
import yaml

from tests.commands import TINY, succeed
from tests.extending.conftest import SMALL
from tests.in_process import fit

MINE = "+logger.{0}={{_target_:my_package.mine.Lines,path:{0}.txt,fails_in:{1}}}"


def test_every_logger_gets_metrics_config_results_and_figures(cache, path_of, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    done = succeed(
        "train.py", *TINY, *SMALL, "logger=[csv,tensorboard]", MINE.format("whole", "none"),
        MINE.format("broken", "metrics"), MINE.format("unclosed", "end"), "hydra.run.dir=run",
        cwd=tmp_path, cache=cache, **path_of,
    )  # fmt: skip
    with (tmp_path / "run/csv/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("train/loss", "val/acc", "lr", "test/acc", "test/leak_free/acc"):
        assert any(row[name] for row in rows), name
    hparams = yaml.safe_load((tmp_path / "run/csv/hparams.yaml").read_text())
    assert hparams["optimizer.lr"] == 1e-3
    board = events.EventAccumulator(str(tmp_path / "run/tensorboard"), {events.IMAGES: 0})
    board.Reload()
    assert {"train/loss", "val/acc", "test/acc"} <= set(board.Tags()["scalars"])
    assert len(board.Scalars("val/acc")) == 2
    assert "best/val/acc" in board.Tags()["scalars"]
    assert "figures/confusion_test" in board.Tags()["images"]
    whole = (tmp_path / "whole.txt").read_text()
    assert "'optimizer.lr': 0.001" in whole
    assert "val/acc" in whole
    assert "'test/acc'" in whole
    assert "end success" in whole
    assert not re.search("^(metrics|end)", (tmp_path / "broken.txt").read_text(), re.MULTILINE)
    assert done.stdout.count("Lines failed and records no more of this run: the server does not answer") == 2


@pytest.mark.slow
def test_wandb_and_a_logger_of_lightning_in_one_run(cache, tmp_path):
    succeed(
        "train.py", *TINY, *SMALL, "logger=[wandb,csv]", "logger.wandb.mode=offline", "hydra.run.dir=run",
        cwd=tmp_path, cache=cache,
    )  # fmt: skip
    assert list((tmp_path / "run").glob("**/offline-run-*"))
    with (tmp_path / "run/csv/metrics.csv").open(newline="") as file:
        assert any(row["test/acc"] for row in csv.DictReader(file))


def test_csv_logger_continues_its_file_after_a_stop(tmp_path):
    recipe = (*SMALL, "logger=csv", "+trainer.log_every_n_steps=1", "trainer.max_epochs=3")
    recipe += (
        "+callbacks.lr={_target_:lightning.pytorch.callbacks.LearningRateMonitor,logging_interval:epoch}",
    )
    whole, _, _ = fit(*recipe, folder=tmp_path)
    stopped, _, _ = fit(*recipe, folder=tmp_path, stop_at=(8,))
    found = []
    for run in (whole, stopped):
        with (run.folder / "csv/metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        found.append([[row[key] for row in rows if row[key]] for key in ("val/acc", "train/loss", "lr-Adam")])
    assert found[0] == found[1]
    assert [len(values) for values in found[0]] == [3, 3, 3]
