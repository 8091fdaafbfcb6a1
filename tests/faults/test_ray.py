"""Jobs of a sweep as tasks of Ray, in an environment that has Ray and everything else from this one.

hydra-ray-launcher pins cloudpickle below 3, so it is not installed with the rest (300 MB, 15 seconds).
"""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import tomllib
from pathlib import Path

import pytest

from tests.commands import ROOT, environment
from tests.faults.conftest import SMALL
from tests.faults.test_launchers import at_work, record_of, wait_for

SWEEP = (
    *SMALL,
    "hydra/launcher=ray",
    "hydra.launcher.ray.remote.num_cpus=0.5",
    "hydra.sweep.dir=sweep",
    "seed=1,2",
    "trainer.max_epochs=200",
    "save_every_steps=null",
)


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of an environment with the extra ``ray``."""
    folder = tmp_path_factory.mktemp("ray")
    (required,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][
        "ray"
    ]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = (folder / "lib").glob("*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--quiet"]
    done = subprocess.run([*pip, "--no-compile", required], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "bin/python"


def start(python, *arguments, cwd, cache):
    env = environment(cache, RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
    words = [python, ROOT / "train.py", "-m", *arguments]
    return subprocess.Popen(
        words, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def completed(process):
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def workers():
    """The processes of Ray that work on a job of ours: each has opened the log of its run."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            opened = [str(link.readlink()) for link in (path / "fd").iterdir()]
        except OSError:
            continue
        found |= {each: int(path.name) for each in opened if each.endswith("train.log")}
    return found


def wait_until_at_work(process, sweep, *jobs):
    deadline = time.monotonic() + 180
    while not all(at_work(sweep, job) for job in jobs):
        assert process.poll() is None, completed(process)
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def stopped(python, cache, tmp_path_factory):
    """A sweep of two jobs that was stopped while both were at work."""
    cwd = tmp_path_factory.mktemp("stopped")
    process = start(python, *SWEEP, cwd=cwd, cache=cache)
    wait_until_at_work(process, cwd / "sweep", "0_mlp", "1_mlp")
    process.send_signal(signal.SIGTERM)
    done = completed(process)
    states = [record_of(cwd / "sweep", job)["state"] for job in ("0_mlp", "1_mlp")]
    return done, states, cwd


@pytest.mark.slow
def test_a_stopped_command_stops_its_jobs_of_ray_which_save(stopped, fault_row):
    done, states, _ = stopped
    fault_row.check(done)
    assert states == ["interrupted"] * 2


@pytest.mark.slow
def test_a_killed_job_of_ray_is_one_that_failed(stopped, python, fault_row, cache):
    """The stopped sweep is continued; one of its jobs is killed, the other goes on to its end."""
    sweep = stopped[2] / "sweep"
    process = start(python, *SWEEP, "resume=auto", cwd=sweep.parent, cache=cache)
    log = str(sweep / "0_mlp/train.log")
    wait_for(lambda: log in workers(), process, seconds=240)
    os.kill(workers()[log], signal.SIGKILL)
    fault_row.check(completed(process))
    assert record_of(sweep, "1_mlp")["state"] == "finished"
    assert len(record_of(sweep, "1_mlp")["resumed"]) == 1
    assert record_of(sweep, "1_mlp")["num_threads"] == 1
    assert len((sweep / "summary.csv").read_text().splitlines()) >= 3
    assert json.loads((sweep / "sweep.json").read_text())["state"] == "failed"
