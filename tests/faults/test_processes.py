"""Faults of a run in several processes, which torchrun or srun has started."""

import json
import signal
import time
from types import SimpleNamespace

import pytest
from torch.distributed import HashStore

from fer_lightning.core import processes as processes_module
from fer_lightning.core.errors import FERError
from fer_lightning.core.processes import announce, started_processes
from fer_lightning.core.signals import RunStopped
from fer_lightning.data.splits import check_divisible
from fer_lightning.training.continuation import IMAGES_PER_STEP, NUM_PROCESSES, check_same_steps
from tests.commands import ROOT, run
from tests.faults.conftest import SMALL, copy_as_stopped
from tests.several import DDP, start, variables

LIMITS = {"train": 5, "val": 2, "predict": 2}  # of trainer=smoke
ENDLESS = ("train.py", *SMALL, *DDP, "trainer.max_epochs=9999", "hydra.run.dir=run")


def at_work(folder, processes):
    deadline = time.monotonic() + 120
    while not (folder / "last.ckpt").exists():
        assert processes[0].poll() is None, processes[0].output()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def state_of(folder):
    record = json.loads((folder / "run.json").read_text())
    return record["state"], record["reason"]


@pytest.mark.slow
def test_processes_of_torchrun_save_and_stop_together(fault_row, cache, tmp_path):
    """The others are given the signal as well, or not: they stop at the same step."""
    processes = start(*ENDLESS, cwd=tmp_path, cache=cache)
    at_work(tmp_path / "run", processes)
    processes[0].send_signal(signal.SIGTERM)
    fault_row.check(processes[0].completed())
    other = processes[1].completed()
    assert (other.returncode, other.stdout + other.stderr) == (143, "")
    assert state_of(tmp_path / "run") == ("interrupted", "stopped by signal 15")
    again = start("train.py", "resume=run", cwd=tmp_path, cache=cache)
    with (tmp_path / "run/train.log").open() as log:
        log.seek(0, 2)
        while "continuing from" not in log.read():
            assert again[0].poll() is None, again[0].output()
            time.sleep(0.05)
    again[1].send_signal(signal.SIGTERM)
    assert [process.wait(timeout=60) for process in again] == [143, 143]


def test_a_process_that_ends_before_the_training_ends_the_run(fault_row, monkeypatch):
    """The first process says why, and the others need not wait for it."""

    def two_processes():
        store = HashStore()
        monkeypatch.setattr(processes_module, "_board", processes_module._Board(store, 2))
        return processes_module._Board(store, 2)

    other = two_processes()
    other.write("ready/1", {"problem": "process 1 of 2: other images", "stopped_by": None})
    with pytest.raises(FERError) as error:
        announce({"config": {}})
    fault_row.check_text(f"error: {error.value}")
    assert other.read("run") == {"config": {}}
    other = two_processes()
    other.write("ready/1", {"problem": None, "stopped_by": 15})
    with pytest.raises(RunStopped):
        announce({})
    other = two_processes()
    other.write("ready/1", {"problem": None, "stopped_by": None})
    announce({})
    assert other.read("start") is True


@pytest.mark.slow
def test_the_others_end_with_a_killed_process(fault_row, cache, tmp_path):
    processes = start(*ENDLESS, cwd=tmp_path, cache=cache, launcher="srun")
    at_work(tmp_path / "run", processes)
    processes[1].send_signal(signal.SIGKILL)
    fault_row.check(processes[0].completed(timeout=60))
    assert state_of(tmp_path / "run")[0] == "failed"
    assert (tmp_path / "run/report.html").exists()


FAILS = """
from lightning.pytorch import Callback


class InTheSecond(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.global_rank == 1 and trainer.current_epoch == 1:
            pl_module.backbone.head.bias.data.fill_(float("nan"))
"""


@pytest.mark.slow
def test_what_ends_another_process_is_said_by_the_first(fault_row, cache, tmp_path):
    """Its loss alone is not finite; it waits for the first one, which torchrun would otherwise end."""
    (tmp_path / "mine.py").write_text(FAILS)
    path = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    words = (*ENDLESS, "+callbacks.mine._target_=mine.InTheSecond")
    processes = start(*words, cwd=tmp_path, cache=cache, **path)
    fault_row.check(processes[0].completed(timeout=60))
    other = processes[1].completed(timeout=60)
    assert (other.returncode, other.stdout + other.stderr) == (1, "")
    state, reason = state_of(tmp_path / "run")
    assert state == "failed"
    assert reason.startswith("process 1 of 2: train/loss is nan")


REFUSED = {
    "mistake": ("train.py", *SMALL, *DDP, "model.hiden=[3]"),
    "one process": ("train.py", *SMALL),
    "other nodes": ("train.py", *SMALL, *DDP, "+trainer.num_nodes=2"),
    "other devices": ("train.py", *SMALL, *DDP, "trainer.devices=3"),
    "sweep": ("train.py", "-m", *SMALL, *DDP, "seed=0,1"),
    "evaluation": ("eval.py", "checkpoint=run"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_several_processes_cannot_do_is_said_once(case, fault_row, cache, tmp_path):
    processes = start(*REFUSED[case], cwd=tmp_path, cache=cache)
    fault_row.check(processes[0].completed(timeout=60))
    other = processes[1].completed(timeout=60)
    assert (other.stdout + other.stderr).strip() == ""
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_batch_normalisation_over_processes_needs_gpus(fault_row, cache, tmp_path):
    words = (*SMALL, *DDP, "trainer.devices=2", "trainer.sync_batchnorm=true")
    fault_row.check(run("train.py", *words, cwd=tmp_path, cache=cache))
    assert not (tmp_path / "outputs").exists()


def test_uneven_tasks_of_srun_are_refused(fault_row, monkeypatch):
    for name, value in (variables("srun", 0, 4, nodes=2) | {"SLURM_STEP_NUM_TASKS": "3"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(FERError) as error:
        started_processes()
    fault_row.check_text(f"error: {error.value}")


@pytest.mark.slow
def test_a_run_goes_on_in_another_number_of_processes(trained, fault_row, cache, tmp_path):
    """From one process to two, at the end of an epoch."""
    copy_as_stopped(trained, tmp_path / "run")
    words = ("train.py", *SMALL, *DDP, "trainer.max_epochs=3", "trainer.limit_train_batches=5")
    words += (
        "trainer.limit_val_batches=2",
        "trainer.limit_predict_batches=2",
        "hydra.run.dir=run",
        "resume=auto",
    )
    processes = start(*words, cwd=tmp_path, cache=cache)
    fault_row.check(processes[0].completed())
    assert processes[1].wait() == 0
    rows = (tmp_path / "run/metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "0", "1", "2"]


@pytest.mark.parametrize(
    ("within_epoch", "by_step"), [(True, False), (False, True)], ids=["within an epoch", "schedule by step"]
)
def test_another_number_of_processes_is_refused_where_steps_count(within_epoch, by_step, fault_row):
    data = SimpleNamespace(batch_size=64, rows={"train": range(131)})
    trainer = SimpleNamespace(world_size=2, datamodule=data)
    with pytest.raises(FERError) as error:
        check_same_steps({IMAGES_PER_STEP: 64}, trainer, within_epoch=within_epoch, by_step=by_step)
    fault_row.check_text(f"error: {error.value}")
    check_same_steps({IMAGES_PER_STEP: 128}, trainer, within_epoch=within_epoch, by_step=by_step)
    before = {IMAGES_PER_STEP: 128, NUM_PROCESSES: 1}  # of 131 images, two cannot divide the last three
    with pytest.raises(FERError, match="the last step of an epoch is another one in 2 processes than in 1"):
        check_same_steps(before, trainer, within_epoch=within_epoch, by_step=by_step)
    data.rows["train"] = range(132)
    check_same_steps(before, trainer, within_epoch=within_epoch, by_step=by_step)
    check_same_steps({}, trainer, within_epoch=within_epoch, by_step=by_step)  # an older checkpoint


def test_more_processes_than_images_are_refused(fault_row):
    with pytest.raises(FERError) as error:
        check_divisible({"train": range(9), "val": range(1), "test": range(1)}, 2)
    fault_row.check_text(f"error: {error.value}")
    check_divisible({"train": range(9), "val": range(0), "test": range(1)}, 2)
