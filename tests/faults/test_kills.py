"""Kills at random moments: what was stopped goes on to the bits of what never was."""

import json
import random
import signal
import time

import pytest
import torch

from tests.commands import ROOT, TINY, environment, run, succeed
from tests.forked import Forked

# Augmentation, dropout, averaged weights, a schedule by the step; nine steps an epoch, a checkpoint every three.
RECIPE = (
    *TINY, "recipe=improved", "data.image_size=16", "data.batch_size=16", "data.augment.sides=[]",
    "trainer.max_epochs=6", "trainer.deterministic=true", "save_every_steps=3", "logger=none", "seed=11",
)  # fmt: skip
NETWORKS = {
    "mlp": ("model.hidden=[32]", "+trainer.accumulate_grad_batches=2"),
    "cnn": ("model.widths=[8,8]", "early_stopping=2"),
    "rnn": ("model.hidden=16",),
    "resnet": ("data.augment.sides=[12,16]", "trainer.max_epochs=2"),
}
SAME_FILES = ("metrics.csv", "metrics.json", "predictions_val.npz", "predictions_test.npz")
CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}


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
    """Start a run, or go on with it, and signal it at a random moment; return whether it was hit."""
    before = num_starts(folder)
    process = start(*arguments, f"hydra.run.dir={folder.name}", "resume=auto", cwd=folder.parent, cache=cache)
    deadline = time.monotonic() + 240
    while process.poll() is None and num_starts(folder) == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(rng.uniform(0, seconds))
    process.send_signal(number)
    process.wait()
    errors = process.output()[1]
    assert "Traceback" not in errors, errors
    if record_of(folder)["state"] == "finished":
        return False
    assert process.returncode == CODES[number], errors
    assert record_of(folder)["state"] == ("running" if number == signal.SIGKILL else "interrupted")
    return True


def check_the_same(whole, stopped):
    for name in ("best.ckpt", "last.ckpt"):
        one, other = (torch.load(place / name, weights_only=True)["state_dict"] for place in (whole, stopped))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name
    for name in SAME_FILES:
        assert (whole / name).read_bytes() == (stopped / name).read_bytes(), name
    assert not list(stopped.rglob(".*.*.[0-9]*")), "half-written files"


def kill_and_compare(model, signals, *, seed, cwd, cache):
    arguments = (f"model={model}", *RECIPE, *NETWORKS[model])
    succeed("train.py", *arguments, "hydra.run.dir=whole", cwd=cwd, cache=cache)
    whole, rng = cwd / "whole", random.Random(f"{model} {seed}")
    seconds = record_of(whole)["durations"]["total_s"]
    signals, number = list(signals), 0
    while signals:
        folder = cwd / f"stopped{number}"
        if kill_at_random(arguments, folder, signals[0], rng=rng, seconds=seconds, cache=cache):
            signals.pop(0)
        else:
            check_the_same(whole, folder)
            number += 1
    if record_of(folder)["state"] != "finished":
        succeed("train.py", f"resume={folder}", cwd=cwd, cache=cache)
    check_the_same(whole, folder)


@pytest.mark.parametrize(
    ("model", "number"),
    [
        ("mlp", signal.SIGKILL),
        ("cnn", signal.SIGTERM),
        ("rnn", signal.SIGINT),
        ("resnet", signal.SIGKILL),
    ],
    ids=["mlp", "cnn", "rnn", "resnet"],
)
def test_a_run_stopped_at_a_random_moment_goes_on_to_the_same_bits(model, number, cache, tmp_path):
    kill_and_compare(model, [number], seed=0, cwd=tmp_path, cache=cache)


@pytest.mark.slow
@pytest.mark.parametrize("model", NETWORKS)
def test_fifty_kills_at_random_moments_change_no_bit(model, cache, tmp_path):
    signals = random.Random(model).choices(list(CODES), weights=(3, 1, 1), k=13)  # of each of four models
    kill_and_compare(model, signals, seed=1, cwd=tmp_path, cache=cache)


# Sweeps

SWEEP = ("-m", "model=mlp", "model.hidden=[32]", "model.dropout=0.1,0.2", *RECIPE)


def jobs_of(sweep):
    return sorted(path.parent for path in sweep.glob("*/run.json"))


def kill_the_sweep(arguments, sweep, number, *, rng, seconds, cache):
    """Signal a sweep at a random moment; return whether it was hit."""
    finished = {
        job: (job / "run.json").read_bytes()
        for job in jobs_of(sweep)
        if record_of(job)["state"] == "finished"
    }
    process = start(*arguments, cwd=sweep.parent, cache=cache)
    time.sleep(rng.uniform(0, seconds))
    process.send_signal(number)
    process.wait()
    for job, record in finished.items():
        assert (job / "run.json").read_bytes() == record, "a finished job ran again"
    return process.returncode != 0


def kill_sweeps_and_compare(signals, *, seed, cwd, cache):
    began = time.monotonic()
    succeed("train.py", *SWEEP, "hydra.sweep.dir=whole", cwd=cwd, cache=cache)
    seconds, rng = time.monotonic() - began, random.Random(seed)
    sweep = cwd / "stopped"
    for number in signals:
        arguments = (*SWEEP, "hydra.sweep.dir=stopped", "resume=auto")
        kill_the_sweep(arguments, sweep, number, rng=rng, seconds=seconds, cache=cache)
    done = run("train.py", "resume=stopped", *(() if sweep.exists() else SWEEP), cwd=cwd, cache=cache)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [job.name for job in jobs_of(sweep)] == ["0_mlp", "1_mlp"]
    for job in jobs_of(sweep):
        check_the_same(cwd / "whole" / job.name, job)
        assert record_of(job)["overrides"] == record_of(cwd / "whole" / job.name)["overrides"]
    assert json.loads((sweep / "sweep.json").read_text())["state"] == "finished"
    return sweep


def test_a_killed_sweep_goes_on_where_it_was(cache, tmp_path):
    kill_sweeps_and_compare([signal.SIGKILL], seed=5, cwd=tmp_path, cache=cache)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_sweep_killed_again_and_again_runs_nothing_twice_and_misses_nothing(seed, cache, tmp_path):
    signals = random.Random(seed).choices(list(CODES), k=4)
    kill_sweeps_and_compare(signals, seed=seed, cwd=tmp_path, cache=cache)
