"""What can go wrong while a network trains."""

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fer_lightning.core.errors import FERError
from fer_lightning.training.callbacks import StopOnNonFiniteLoss
from fer_lightning.training.checkpoint import read_checkpoint
from tests.commands import ROOT, TINY, environment, run, succeed
from tests.forked import Forked

SMALL = ("model=mlp", "model.hidden=[16]", *TINY, "data.image_size=16", "logger=none")


def test_a_loss_that_is_no_number_stops_the_run_at_its_step(fault_row, cache, tmp_path):
    # The cycle's rate is small in the first epoch, whose checkpoint is good, and grows beyond all bounds.
    done = run(
        *("train.py", *SMALL, "data.batch_size=16", "trainer.max_epochs=20", "save_every_steps=1"),
        *("optimizer=sgd", "scheduler=onecycle", "optimizer.lr=1e12", "hydra.run.dir=run"),
        cwd=tmp_path,
        cache=cache,
    )
    fault_row.check(done)
    content, _ = read_checkpoint(tmp_path / "run/last.ckpt")
    assert all(value.isfinite().all() for value in content["state_dict"].values())
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert (record["state"], "diverged" in record["reason"]) == ("failed", True)
    again = run("train.py", "resume=run", cwd=tmp_path, cache=cache)
    message, again_message = (printed.stderr.partition(" (the weights")[0] for printed in (done, again))
    assert message == again_message, "it diverges at the same step"


def test_an_infinite_loss_is_as_bad(fault_row, tmp_path):
    trainer = SimpleNamespace(global_step=7, current_epoch=2, accumulate_grad_batches=1, is_last_batch=False)
    watch = StopOnNonFiniteLoss(tmp_path)
    watch.on_train_batch_end(trainer, None, {"loss": torch.tensor(1e38)}, None, 0)
    with pytest.raises(FERError) as caught:
        watch.on_train_batch_end(trainer, None, {"loss": torch.tensor(float("inf"))}, None, 1)
    fault_row.check_text(str(caught.value))


def test_weights_that_break_in_the_last_step_show_in_the_validation(fault_row, cache, tmp_path):
    setting = ("optimizer=sgd", "optimizer.lr=1e30", "data.batch_size=140", "hydra.run.dir=run")
    fault_row.check(run("train.py", *SMALL, *setting, cwd=tmp_path, cache=cache))
    assert not list((tmp_path / "run").glob("*.ckpt"))


def test_a_batch_of_one_cannot_be_normalised(fault_row, cache, tmp_path):
    fault_row.check(run("train.py", *SMALL, "data.batch_size=1", cwd=tmp_path, cache=cache))


def test_a_last_batch_of_one_joins_the_one_before_it(fault_row, cache, tmp_path):
    setting = ("data.batch_size=139", "trainer.max_epochs=1", "hydra.run.dir=run")
    fault_row.check(run("train.py", *SMALL, *setting, cwd=tmp_path, cache=cache))
    assert (tmp_path / "run/metrics.csv").read_text().splitlines()[1].startswith("0,1,")  # one step


@pytest.mark.parametrize(
    "setting",
    ["trainer.max_epochs=0", "trainer.limit_train_batches=0", "trainer.limit_val_batches=0"],
    ids=["epochs", "batches", "validation"],
)
def test_nothing_to_train_on_is_refused(setting, fault_row, cache, tmp_path):
    fault_row.check(run("train.py", *SMALL, setting, cwd=tmp_path, cache=cache))
    assert not list(tmp_path.rglob("run.json"))


def processes_below(pid):
    """Every process that this one has started, and theirs."""
    children = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name_and_more = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(name_and_more[1]) == pid:
            child = int(path.parent.name)
            children += [child, *processes_below(child)]
    return children


SWEEP = (
    *("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *SMALL, "model.dropout=0.1,0.2"),
    *("trainer.max_epochs=60", "hydra.sweep.dir=sweep"),
)


def start_side_by_side(cwd, cache):
    """Start two jobs side by side; return the sweep's process and those of its jobs, both at work."""
    sweep = Forked([str(ROOT / "train.py"), *SWEEP], cwd=cwd, env=environment(cache))
    while not all((cwd / f"sweep/{number}_mlp/last.ckpt").exists() for number in (0, 1)):
        assert sweep.poll() is None, sweep.output()
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in processes_below(sweep.pid)}
    workers = [pid for pid, command in commands.items() if "LokyProcess" in command]
    assert len(workers) == 2
    return sweep, workers


def check_that_it_goes_on(cwd, cache):
    succeed("train.py", *SWEEP, "resume=auto", cwd=cwd, cache=cache)
    for job in ("0_mlp", "1_mlp"):
        assert json.loads((cwd / "sweep" / job / "run.json").read_text())["state"] == "finished"


@pytest.mark.slow
def test_killed_process_of_a_sweep_is_reported_and_the_sweep_resumes(fault_row, cache, tmp_path):
    sweep, workers = start_side_by_side(tmp_path, cache)
    os.kill(workers[0], signal.SIGKILL)
    fault_row.check(sweep.completed())
    check_that_it_goes_on(tmp_path, cache)


@pytest.mark.slow
def test_the_jobs_of_a_killed_launcher_save_and_end(fault_row, cache, tmp_path):
    sweep, _ = start_side_by_side(tmp_path, cache)
    sweep.send_signal(signal.SIGKILL)
    fault_row.check(sweep.completed())

    def states():
        return [json.loads((tmp_path / f"sweep/{n}_mlp/run.json").read_text())["state"] for n in (0, 1)]

    deadline = time.monotonic() + 60
    while "running" in states():
        assert time.monotonic() < deadline, "its jobs go on"
        time.sleep(0.05)
    assert set(states()) <= {"interrupted", "finished"}
    check_that_it_goes_on(tmp_path, cache)
