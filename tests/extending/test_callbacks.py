"""Callbacks from the command line: their effect, and the same bits after a stop."""

import copy
import csv

import pytest
import torch

from fer_lightning.config.targets import ANY_TARGET
from fer_lightning.core.errors import FERError
from fer_lightning.training.build import build_callbacks
from fer_lightning.training.checkpoint import load_classifier
from tests.commands import TINY, run, succeed
from tests.config.test_conf import composed
from tests.extending.conftest import SMALL
from tests.in_process import epochs, fit

LIGHTNING = "lightning.pytorch.callbacks"
RECIPE = (
    *SMALL,
    "data.augment.flip=0.5",
    "trainer.max_epochs=3",
    "logger=none",
    "trainer.deterministic=true",
)
PAPER = "data.protocol=paper"
SWA = f"+callbacks.mine={{_target_:{LIGHTNING}.StochasticWeightAveraging,swa_lrs:1e-3,swa_epoch_start:1}}"
EMA = f"+callbacks.mine={{_target_:{LIGHTNING}.EMAWeightAveraging,decay:0.5}}"
TOP = (
    f"+callbacks.top={{_target_:{LIGHTNING}.ModelCheckpoint,monitor:val/loss,save_top_k:2,"
    'dirpath:"${run_dir}/top",filename:"{epoch:03}",auto_insert_metric_name:false}'
)
ACCUMULATE = f"+callbacks.mine={{_target_:{LIGHTNING}.GradientAccumulationScheduler,scheduling:{{0:1,1:2}}}}"
STOP = f"+callbacks.mine={{_target_:{LIGHTNING}.EarlyStopping,monitor:val/brier,patience:1,min_delta:1.0}}"


def weights_of(run_folder, name):
    return torch.load(run_folder.folder / name, weights_only=True)["state_dict"]


def check_same_bits(one, other):
    for name in ("best.ckpt", "last.ckpt"):
        left, right = weights_of(one, name), weights_of(other, name)
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left), name
    assert (one.folder / "metrics.csv").read_bytes() == (other.folder / "metrics.csv").read_bytes()


@pytest.mark.parametrize(
    "callback",
    [
        (TOP,),
        (STOP,),
        pytest.param((EMA,), marks=pytest.mark.slow),
        (SWA, PAPER),
        pytest.param(
            (SWA, PAPER, "model=cnn", "~model.hidden", "model.widths=[4,4]"), marks=pytest.mark.slow
        ),
        pytest.param((ACCUMULATE, "scheduler=onecycle"), marks=pytest.mark.slow),
    ],
    ids=["top_k", "early_stopping", "ema", "swa", "swa_batch_norm", "accumulation"],
)
def test_stopped_run_with_a_callback_of_lightning_repeats_its_bits(callback, tmp_path):
    whole, _, _ = fit(*RECIPE, *callback, folder=tmp_path)
    stopped, _, _ = fit(*RECIPE, *callback, folder=tmp_path, stop_at=(7,))
    check_same_bits(whole, stopped)
    files = [sorted(path.name for path in each.folder.rglob("*.ckpt")) for each in (whole, stopped)]
    assert files[0] == files[1]
    assert len(files[0]) == (4 if TOP in callback else 2)


@pytest.mark.parametrize("callback", [EMA, SWA], ids=["ema", "swa"])
def test_averaged_weights_are_tested_where_nothing_is_selected(callback, tmp_path):
    averaged, _, module = fit(*RECIPE, PAPER, callback, folder=tmp_path)
    plain, _, _ = fit(*RECIPE, PAPER, folder=tmp_path)
    best, last = (weights_of(averaged, name) for name in ("best.ckpt", "last.ckpt"))
    assert all(torch.equal(best[key], last[key]) for key in best)
    assert all(torch.equal(best[key], value) for key, value in module.state_dict().items())
    assert not torch.equal(
        best["backbone.head.weight"], weights_of(plain, "best.ckpt")["backbone.head.weight"]
    )
    metadata = torch.load(averaged.folder / "best.ckpt", weights_only=True)["fer_lightning"]
    assert metadata["epoch"] == len(epochs(averaged)) - 1


def test_best_checkpoint_holds_the_averaged_weights_that_were_validated(tmp_path):
    averaged, data, _ = fit(*RECIPE, EMA, "monitor=val/nll", "monitor_mode=min", folder=tmp_path)
    module, metadata = load_classifier(averaged.folder / "best.ckpt")
    batches = list(data.eval_loader("val"))
    with torch.autocast("cpu", torch.bfloat16, enabled=metadata.precision == "bf16-mixed"), torch.no_grad():
        losses = [
            torch.nn.functional.cross_entropy(module(batch.images).float(), batch.labels, reduction="sum")
            for batch in batches
        ]
    nll = sum(losses).item() / sum(len(batch.labels) for batch in batches)
    assert metadata.score == pytest.approx(nll, abs=1e-5)


@pytest.mark.slow
def test_learning_rates_reach_the_logger_and_the_run_its_callback(cache, my_package, path_of, tmp_path):
    command = (
        "train.py", *TINY, *SMALL, "logger=csv", f"+callbacks.lr._target_={LIGHTNING}.LearningRateMonitor",
        "+callbacks.count._target_=my_package.mine.Count", "+callbacks.count.at=4", TOP,
        "~callbacks.progress", "hydra.run.dir=run",
    )  # fmt: skip
    done = succeed(*command, cwd=tmp_path, cache=cache, **path_of)
    assert "counted 10 batches" in done.stdout
    assert "epoch 1/2" not in done.stdout
    with (tmp_path / "run/csv/metrics.csv").open(newline="") as file:
        rates = [float(row["lr-Adam"]) for row in csv.DictReader(file) if row["lr-Adam"]]
    assert rates[0] == 1e-3
    for name in ("best.ckpt", "metrics.csv", "metrics.json", "report.html"):
        assert (tmp_path / "run" / name).is_file(), name
    assert run(*command, "resume=auto", cwd=tmp_path, cache=cache, **path_of).returncode == 0  # finished
    top = sorted((tmp_path / "run/top").glob("*.ckpt"))
    assert len(top) == 2
    succeed("eval.py", f"checkpoint={top[0]}", "hydra.run.dir=eval", cwd=tmp_path, cache=cache, **path_of)


@pytest.mark.parametrize(
    ("name", "files"),
    [("checkpoint", "ModelCheckpoint, which writes best"), ("metrics_csv", "MetricsCSV, which")],
)
def test_callbacks_that_write_the_files_of_a_run_cannot_be_removed(name, files):
    config = copy.deepcopy(composed("train"))
    del config["callbacks"][name]
    with pytest.raises(FERError, match=f"needs one fer_lightning.training.callbacks.{files}"):
        build_callbacks(config, trust=ANY_TARGET)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (f"{LIGHTNING}.Missing", "callbacks.mine._target_=.*Missing: does not exist"),
        ("torch.nn.ReLU", "callbacks.mine=.*expected the node of a callback"),
    ],
)
def test_node_of_no_callback_is_refused(target, message):
    config = copy.deepcopy(composed("train"))
    config["callbacks"]["mine"] = {"_target_": target}
    with pytest.raises(FERError, match=message):
        build_callbacks(config, trust=ANY_TARGET)
