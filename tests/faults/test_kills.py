"""Kills at random moments: a resumed run ends with the same bits as a run that was never stopped."""

import json
import os
import random
import shutil
import signal
import time

import pytest
import torch

from tests.commands import ROOT, TINY, environment, run, sentence, succeed
from tests.forked import Forked

# Augmentation, dropout, averaged weights, a schedule by the step; 9 steps an epoch, a checkpoint every 3.
RECIPE = (
    *TINY, "data.protocol=official", "data.image_size=16", "data.batch_size=16", "data.augment.sides=[]",
    "trainer.max_epochs=6", "trainer.deterministic=true", "save_every_steps=3", "logger=none", "seed=11",
)  # fmt: skip
NETWORKS = {
    "mlp": ("model.hidden=[32]", "+trainer.accumulate_grad_batches=2"),
    "cnn": ("model.widths=[8,8]", "early_stopping=2"),
    "rnn": ("model.hidden=16",),
    "resnet": ("data.image_size=24", "data.augment.sides=[16,24]", "trainer.max_epochs=2"),
}
SAME_FILES = (
    "metrics.csv", "metrics.json", "predictions_val.npz", "predictions_test.npz", "explanations_test.npz",
    "embeddings_test.npz",
)  # fmt: skip
CODES = {
    signal.SIGKILL: -9,
    signal.SIGTERM: 143,
    signal.SIGINT: 130,
    signal.SIGHUP: 129,
    signal.SIGUSR1: 138,
    signal.SIGXCPU: 152,
}
# Kills of each network in the slow test; each sweep gets a third as many. `make slow` sets 13.
NUM_KILLS = int(os.environ.get("FER_NUM_KILLS", "2"))


def record_of(folder):
    try:
        return json.loads((folder / "run.json").read_text())
    except FileNotFoundError:
        return {}


def num_starts(folder):
    record = record_of(folder)
    return 1 + len(record["resumed"]) if "resumed" in record else 0


def start(*arguments, cwd, cache):
    return Forked([str(ROOT / "train.py"), *arguments], cwd=cwd, env=environment(cache))


def kill_at_random(arguments, folder, number, *, rng, seconds, cache):
    """Start or resume a run and signal it at a random moment; return the result, None if it had finished."""
    before = num_starts(folder)
    process = start(*arguments, f"hydra.run.dir={folder.name}", "resume=auto", cwd=folder.parent, cache=cache)
    deadline = time.monotonic() + 240
    while process.poll() is None and num_starts(folder) == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(rng.uniform(0, seconds))
    process.send_signal(number)
    done = process.completed()
    if record_of(folder)["state"] == "finished":
        return None
    assert done.returncode == CODES[number], done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert record_of(folder)["state"] == ("running" if number == signal.SIGKILL else "interrupted")
    # Schedulers grant seconds: a stopped run saves, and draws nothing that it had not begun to draw.
    assert not (folder / "report.html").exists()
    assert (folder / "metrics.json").exists() or not (folder / "figures").exists()
    return done


def check_the_same(whole, stopped, *, files=SAME_FILES):
    for name in ("best.ckpt", "last.ckpt"):
        one, other = (torch.load(place / name, weights_only=True)["state_dict"] for place in (whole, stopped))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name
    for name in files:
        assert (whole / name).read_bytes() == (stopped / name).read_bytes(), name


def kill_and_compare(model, signals, *, seed, cwd, cache, extra=()):
    """Stop and resume a run once per signal; return the result of each stop."""
    arguments = (f"experiment=improved_{model}", *RECIPE, *NETWORKS[model], *extra)
    succeed("train.py", *arguments, "hydra.run.dir=whole", cwd=cwd, cache=cache)
    whole, rng = cwd / "whole", random.Random(f"{model} {seed}")
    seconds = record_of(whole)["durations"]["total_s"]
    stops, number = [], 0
    while len(stops) < len(signals):
        assert number < 10 + 4 * len(signals), "too few signals reach this run before it ends"
        folder = cwd / f"stopped{number}"
        stop = kill_at_random(arguments, folder, signals[len(stops)], rng=rng, seconds=seconds, cache=cache)
        if stop is None:
            check_the_same(whole, folder)
            number += 1
            seconds *= 0.8  # less work is left, or the machine has become faster
        else:
            stops.append(stop)
    if record_of(folder)["state"] != "finished":
        succeed("train.py", f"resume={folder}", cwd=cwd, cache=cache)
        # A run that is killed after it has finished may leave half a figure, which nothing removes.
        assert not list(folder.rglob(".*.*.[0-9]*")), "half-written files"
    check_the_same(whole, folder)
    return stops


@pytest.mark.parametrize(
    ("model", "number"),
    [
        ("mlp", signal.SIGKILL),
        pytest.param("cnn", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("rnn", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("mlp", signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param("mlp", signal.SIGUSR1, marks=pytest.mark.slow),
        pytest.param("resnet", signal.SIGKILL, marks=pytest.mark.slow),
    ],
    ids=["mlp", "cnn", "rnn", "mlp-HUP", "mlp-USR1", "resnet"],
)
def test_a_run_stopped_at_a_random_moment_goes_on_to_the_same_bits(model, number, fault_row, cache, tmp_path):
    (stop,) = kill_and_compare(model, [number], seed=0, cwd=tmp_path, cache=cache)
    fault_row.check(stop)


@pytest.mark.slow
@pytest.mark.parametrize("model", NETWORKS)
def test_many_kills_at_random_moments_change_no_bit(model, cache, tmp_path):
    signals = random.Random(model).choices(list(CODES), weights=(5, 1, 1, 1, 1, 1), k=NUM_KILLS)
    kill_and_compare(model, signals, seed=1, cwd=tmp_path, cache=cache)


def test_a_job_that_slurm_requeues_continues_by_itself(fault_row, cache, tmp_path):
    scontrol = tmp_path / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\necho $* >> {tmp_path}/requeued\n")
    scontrol.chmod(0o755)
    slurm = {"SLURM_JOB_ID": "17", "PATH": f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}"}
    arguments = ("experiment=improved_mlp", *RECIPE, *NETWORKS["mlp"])
    script = [str(ROOT / "train.py"), *arguments]
    process = Forked(script, cwd=tmp_path, env=environment(cache, **slurm))
    while not list(tmp_path.glob("outputs/*/*/last.ckpt")):
        assert process.poll() is None, process.output()
    process.send_signal(signal.SIGUSR1)
    stopped = process.completed()
    assert stopped.returncode == 138
    assert (tmp_path / "requeued").read_text() == "requeue 17\n"
    fault_row.check(stopped)
    succeed("train.py", *arguments, cwd=tmp_path, cache=cache, **slurm, SLURM_RESTART_COUNT="1")
    (folder,) = tmp_path.glob("outputs/*/*/run.json")
    assert record_of(folder.parent)["state"] == "finished"
    assert len(record_of(folder.parent)["resumed"]) == 1


# Lightning has taken SIGTERM for itself at this moment, and would end with exit code 0.
STRUCK_FIRST = """
import os, signal
from pathlib import Path
from lightning.pytorch.callbacks import Callback


class Struck(Callback):
    def on_train_start(self, trainer, pl_module):
        if not Path("struck").exists():
            Path("struck").touch()
            os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_run_stopped_as_training_starts(fault_row, cache, tmp_path):
    (tmp_path / "struck_first.py").write_text(STRUCK_FIRST)
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = ("train.py", "model=mlp", *TINY, "data.image_size=16", "logger=none", "trainer.max_epochs=1")
    command = (*command, "data.batch_size=16", "+trainer.accumulate_grad_batches=2")
    struck = ("+callbacks.struck._target_=struck_first.Struck", "hydra.run.dir=run")
    fault_row.check(run(*command, *struck, cwd=tmp_path, cache=cache, **path))
    assert record_of(tmp_path / "run")["state"] == "interrupted"
    succeed("train.py", "resume=run", "trust=[struck_first]", cwd=tmp_path, cache=cache, **path)
    assert record_of(tmp_path / "run")["state"] == "finished"


@pytest.mark.slow
def test_a_run_cannot_be_continued_to_fewer_epochs_than_it_has_begun(fault_row, cache, tmp_path):
    command = ("train.py", "model=mlp", *TINY, "data.image_size=16", "logger=none", "hydra.run.dir=run")
    succeed(*command, "trainer.max_epochs=3", cwd=tmp_path, cache=cache)
    record = record_of(tmp_path / "run") | {"state": "running"}  # as where it was killed at its end
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    fault_row.check(run(*command, "trainer.max_epochs=1", "resume=auto", cwd=tmp_path, cache=cache))


# Sweeps

SWEEP = ("-m", "experiment=improved_mlp", "model.hidden=[32]", "model.dropout=0.1,0.2", *RECIPE)


def jobs_of(sweep):
    return sorted(path.parent for path in sweep.glob("*/run.json"))


def kill_the_sweep(arguments, sweep, number, *, rng, seconds, cache):
    """Start or resume a sweep and signal it at a random moment; return the result."""
    finished = {
        job: (job / "run.json").read_bytes()
        for job in jobs_of(sweep)
        if record_of(job)["state"] == "finished"
    }
    process = start(*arguments, cwd=sweep.parent, cache=cache)
    time.sleep(rng.uniform(0, seconds))
    process.send_signal(number)
    done = process.completed()
    assert done.returncode in (0, CODES[number], -number), done.stdout + done.stderr
    assert done.returncode or json.loads((sweep / "sweep.json").read_text())["state"] == "finished"
    assert "Traceback" not in done.stderr
    for job, record in finished.items():
        assert (job / "run.json").read_bytes() == record, "a finished job ran again"
    return done


def kill_sweeps_and_compare(signals, *, seed, cwd, cache):
    """Stop a sweep once per signal, then finish it; return the result of each stop."""
    began = time.monotonic()
    succeed("train.py", *SWEEP, "hydra.sweep.dir=whole", cwd=cwd, cache=cache)
    seconds, rng = time.monotonic() - began, random.Random(seed)
    sweep, again = cwd / "stopped", (*SWEEP, "hydra.sweep.dir=stopped", "resume=auto")
    stops = []
    for number in signals:
        stop = kill_the_sweep(again, sweep, number, rng=rng, seconds=seconds, cache=cache)
        while not (stops or stop.returncode):  # it had finished: the first one took longer
            shutil.rmtree(sweep)
            seconds *= 0.7
            stop = kill_the_sweep(again, sweep, number, rng=rng, seconds=seconds, cache=cache)
        stops.append(stop)
    succeed("train.py", *again, cwd=cwd, cache=cache)
    assert [job.name for job in jobs_of(sweep)] == ["0_mlp", "1_mlp"]
    for job in jobs_of(sweep):
        check_the_same(cwd / "whole" / job.name, job)
        assert record_of(job)["overrides"] == record_of(cwd / "whole" / job.name)["overrides"]
    assert json.loads((sweep / "sweep.json").read_text())["state"] == "finished"
    return stops


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was(fault_row, cache, tmp_path):
    (stop,) = kill_sweeps_and_compare([signal.SIGKILL], seed=5, cwd=tmp_path, cache=cache)
    fault_row.check(stop)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(max(1, NUM_KILLS // 3)))
def test_repeatedly_killed_sweep_runs_every_job_exactly_once(seed, cache, tmp_path):
    signals = random.Random(seed).choices(list(CODES), k=max(1, NUM_KILLS // 3))
    kill_sweeps_and_compare(signals, seed=seed, cwd=tmp_path, cache=cache)


@pytest.mark.slow
def test_a_signal_while_a_job_makes_its_report_stops_the_sweep(fault_row, cache, tmp_path):
    process = start(*SWEEP, "hydra.sweep.dir=sweep", cwd=tmp_path, cache=cache)
    while not list(tmp_path.glob("sweep/0_mlp/figures/*")):
        assert process.poll() is None, process.output()
    process.send_signal(signal.SIGTERM)
    fault_row.check(process.completed())
    assert [record_of(job)["state"] for job in jobs_of(tmp_path / "sweep")] == ["finished"]
    assert json.loads((tmp_path / "sweep/sweep.json").read_text())["state"] == "interrupted"


# As sitecustomize.py, this turns a signal within the second job into another error, as OmegaConf may.
STRUCK = """
import os, signal
from omegaconf import OmegaConf

resolve, resolved = OmegaConf.to_container, []


def to_container(config, **settings):
    if settings.get("throw_on_missing"):  # which only the command passes, twice per job
        resolved.append(config)
        if len(resolved) == 3:  # the checks, the job, the next checks
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                None._invalidate_flags_cache
    return resolve(config, **settings)


OmegaConf.to_container = to_container
"""


@pytest.mark.slow
def test_signal_swallowed_by_another_error_still_stops_the_sweep(fault_row, cache, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(STRUCK)
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    sweep = (*SWEEP, "model.dropout=0.1,0.2,0.3", "trainer.max_epochs=1", "hydra.sweep.dir=sweep")
    fault_row.check(run("train.py", *sweep, cwd=tmp_path, cache=cache, fresh=True, **path))
    assert [job.name for job in jobs_of(tmp_path / "sweep")] == ["0_mlp"]
    assert json.loads((tmp_path / "sweep/sweep.json").read_text())["state"] == "interrupted"


@pytest.mark.slow
def test_jobs_side_by_side_save_before_they_are_stopped(fault_row, cache, tmp_path):
    endless = (
        *(word for word in SWEEP if not word.startswith("trainer.max_epochs")),
        "trainer.max_epochs=9999",
    )
    parallel = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "save_every_steps=null")
    process = start(
        *endless, "model.dropout=0.1,0.2,0.3", *parallel, "hydra.sweep.dir=sweep", cwd=tmp_path, cache=cache
    )
    while len(list(tmp_path.glob("sweep/*/last.ckpt"))) < 2:
        assert process.poll() is None, process.output()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    fault_row.check(process.completed())
    jobs = jobs_of(tmp_path / "sweep")
    assert [record_of(job)["state"] for job in jobs] == ["interrupted", "interrupted"]
    assert [record_of(job)["reason"] for job in jobs] == ["stopped by signal 15"] * 2
    assert not list(tmp_path.glob("sweep/2_mlp/last.ckpt"))


@pytest.fixture(scope="module")
def failed_sweep(cache, tmp_path_factory):
    """A sweep in the default folder, the second of whose jobs diverges."""
    cwd = tmp_path_factory.mktemp("cwd")
    command = ("-m", "model=mlp", "model.hidden=[16]", *TINY, "trainer.max_epochs=1", "logger=none")
    command = (*command, "optimizer=sgd", "optimizer.lr=0.1,1e30,0.2")
    return cwd, command, run("train.py", *command, cwd=cwd, cache=cache)


def test_a_failed_job_neither_stops_the_others_nor_hides(failed_sweep, fault_row):
    cwd, _, done = failed_sweep
    fault_row.check(done)
    (sweep,) = cwd.glob("outputs/sweeps/*")
    assert [record_of(job)["state"] for job in jobs_of(sweep)] == ["finished", "failed", "finished"]
    assert "diverged" in record_of(sweep / "1_mlp")["reason"]
    assert "failed" in (sweep / "summary.csv").read_text()
    assert json.loads((sweep / "sweep.json").read_text())["state"] == "failed"


@pytest.mark.slow
def test_resume_auto_finds_a_sweep_and_repeats_only_its_failed_job(failed_sweep, fault_row, cache):
    cwd, command, _ = failed_sweep
    (sweep,) = cwd.glob("outputs/sweeps/*")
    before = {job.name: record_of(job) for job in jobs_of(sweep)}
    fault_row.check(run("train.py", *command, "resume=auto", cwd=cwd, cache=cache))
    assert list(cwd.glob("outputs/sweeps/*")) == [sweep]
    after = {job.name: record_of(job) for job in jobs_of(sweep)}
    assert [name for name in before if before[name] != after[name]] == ["1_mlp"]


@pytest.mark.slow
def test_a_sweep_s_folder_is_all_that_resume_needs(failed_sweep, fault_row, cache):
    cwd, _, _ = failed_sweep
    (sweep,) = cwd.glob("outputs/sweeps/*")
    fault_row.check(run("train.py", f"resume={sweep}", "model=cnn", cwd=cwd, cache=cache))
    done = run("train.py", f"resume={sweep}", cwd=cwd, cache=cache)
    assert done.returncode == 1  # the job that diverges does so again
    assert done.stdout.count("there is nothing to do") == 2


@pytest.mark.slow
def test_a_finished_sweep_is_left_alone(fault_row, cache, tmp_path):
    command = ("-m", "model=mlp", "model.hidden=[16]", *TINY, "trainer=smoke", "logger=none")
    command = (*command, "hydra.sweep.dir=sweep")
    succeed("train.py", *command, cwd=tmp_path, cache=cache)
    before = {path: path.read_bytes() for path in (tmp_path / "sweep").rglob("*") if path.is_file()}
    fault_row.check(run("train.py", *command, "resume=auto", cwd=tmp_path, cache=cache))
    assert {path: path.read_bytes() for path in before} == before
    assert "already holds a sweep (finished)" in sentence(
        run("train.py", *command, cwd=tmp_path, cache=cache)
    )
