"""Several processes train to the numbers of one, and count every image once."""

import csv
import json
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from fer_lightning.data.loader import BatchLoader
from tests.commands import ROOT, TINY, environment, succeed
from tests.several import DDP, start

MONITOR = "lightning.pytorch.callbacks.LearningRateMonitor"  # refuses a Trainer without a logger
# No dropout and no augmentation, which draw other numbers in each process; no batch normalisation, which
# sees the images of one process. 147 images in batches of 64 leave 19, and 35 of val are not even either.
SETTINGS = (
    *TINY, "data.source.num_train=147", "model=rnn", "model.dropout=0", "trainer.max_epochs=2",
    "trainer.precision=32-true", "hydra.run.dir=run",
)  # fmt: skip
WEIGHTED = ("data.source.class_balance=fer2013", "loss.class_weights=balanced")
SAME = 1e-5  # relative difference of metrics: gradients are added in another order


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def one(cache, tmp_path_factory):
    """The run of one process, in batches of 64."""
    cwd = tmp_path_factory.mktemp("one")
    succeed("train.py", *SETTINGS, "data.batch_size=64", "logger=none", cwd=cwd, cache=cache)
    return cwd / "run"


@pytest.fixture(scope="module")
def weighted(cache, tmp_path_factory):
    """The same with classes that are not equally frequent, and weighted."""
    cwd = tmp_path_factory.mktemp("weighted")
    succeed("train.py", *SETTINGS, *WEIGHTED, "data.batch_size=64", "logger=none", cwd=cwd, cache=cache)
    return cwd / "run"


def rows_of(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def check_same(folder, one):
    rows = rows_of(folder)
    assert len(rows) == 2
    for row, expected in zip(rows, rows_of(one), strict=True):
        for name, value in expected.items():
            assert float(row[name]) == pytest.approx(float(value), rel=SAME, abs=SAME), name
    with np.load(folder / "predictions_test.npz") as mine, np.load(one / "predictions_test.npz") as theirs:
        np.testing.assert_allclose(mine["probs"], theirs["probs"], atol=SAME)


@pytest.mark.slow
def test_two_processes_of_torchrun_leave_the_record_of_one_run(one, cache, tmp_path):
    """The real torchrun; W&B has one run, the log each epoch once, and a callback its logger everywhere."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}")
    words = (*SETTINGS, *DDP, "data.batch_size=32", "logger=wandb", f"+callbacks.lr._target_={MONITOR}")
    done = subprocess.run(
        [*torchrun, str(ROOT / "train.py"), *words],
        cwd=tmp_path, env=environment(cache, WANDB_MODE="offline"), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    check_same(tmp_path / "run", one)
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert (record["state"], record["num_processes"]) == ("finished", 2)
    assert len(list((tmp_path / "run/wandb").glob("offline-run-*"))) == 1
    log = (tmp_path / "run/train.log").read_text()
    assert (log.count("epoch 1/2"), log.count("epoch 2/2")) == (1, 1)
    assert done.stdout.count("report:") == 1
    assert "process 1" not in done.stdout + done.stderr


@pytest.mark.slow
def test_four_tasks_of_srun_on_two_nodes_train_to_the_numbers_of_one_process(weighted, cache, tmp_path):
    """A mean that class weights divide is that of all four parts of a batch."""
    words = ("train.py", *SETTINGS, *WEIGHTED, *DDP, "data.batch_size=16", "logger=none")
    processes = start(*words, cwd=tmp_path, cache=cache, launcher="srun", number=4, nodes=2)
    assert [process.wait() for process in processes] == [0, 0, 0, 0], processes[0].output()
    check_same(tmp_path / "run", weighted)
    assert json.loads((tmp_path / "run/run.json").read_text())["num_processes"] == 4


@pytest.mark.slow
def test_two_processes_go_on_with_the_steps_of_one(one, cache, tmp_path):
    """Stopped after the first epoch of two; a batch of 64 is 2 x 32 now."""
    words = ("train.py", *SETTINGS, "logger=none")
    succeed(*words, "data.batch_size=64", "trainer.max_epochs=1", cwd=tmp_path, cache=cache)
    record = json.loads((tmp_path / "run/run.json").read_text())
    (tmp_path / "run/run.json").write_text(json.dumps(record | {"state": "interrupted"}))
    processes = start(*words, *DDP, "data.batch_size=32", "resume=auto", cwd=tmp_path, cache=cache)
    assert [process.wait() for process in processes] == [0, 0], processes[0].output()
    check_same(tmp_path / "run", one)


def batches(num_rows, size, rank, number):
    loader = BatchLoader(
        torch.zeros(num_rows, 1, 2, 2, dtype=torch.uint8), torch.zeros(num_rows, dtype=torch.int64),
        torch.arange(num_rows), batch_size=size, shuffle=True, seed=3, rank=rank, world_size=number,
    )  # fmt: skip
    return list(loader)


@pytest.mark.parametrize("num_rows", [64, 147, 130, 129])
def test_processes_divide_the_batches_of_one(num_rows):
    whole = batches(num_rows, 64, 0, 1)
    parts = [batches(num_rows, 16, rank, 4) for rank in range(4)]
    if num_rows % 64 == 2:  # one process takes a batch of two, four processes would have too few for each
        whole = [*whole[:-2], whole[-2]._replace(rows=torch.cat([whole[-2].rows, whole[-1].rows]))]
    for batch, *own in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([part.rows for part in own]), batch.rows)
        sizes = [len(part.rows) for part in own]
        assert max(sizes) - min(sizes) <= 1
        # The mean over processes of each part's mean, weighted, is the mean of the whole batch.
        assert [part.share for part in own] == pytest.approx([4 * size / sum(sizes) for size in sizes])
    assert {batch.share for batch in whole} == {1.0}


def test_no_two_processes_draw_the_same_numbers():
    seeds = [batch.seed for rank in range(2) for batch in batches(147, 32, rank, 2)]
    assert len(set(seeds)) == len(seeds)
