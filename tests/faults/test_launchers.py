"""Jobs of a sweep in processes that submitit starts, here and by programs that act as Slurm's do."""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.commands import ROOT, environment, run, sentence, succeed
from tests.faults.conftest import SMALL
from tests.faults.test_training import processes_below
from tests.forked import Forked

SWEEP = (
    *("-m", *SMALL, "seed=1,2", "trainer.max_epochs=30", "data.batch_size=16", "save_every_steps=3"),
    "hydra.sweep.dir=sweep",
)
LOCAL = ("hydra/launcher=submitit_local",)


def start(*arguments, cwd, cache, **extra):
    return Forked([str(ROOT / "train.py"), *arguments], cwd=cwd, env=environment(cache, **extra))


def record_of(sweep, job):
    path = sweep / job / "run.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def wait_for(condition, process=None, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.output()
        time.sleep(0.05)


def at_work(sweep, job):
    """Whether a job has saved within its second epoch or later, and goes on."""
    rows = sweep / job / "metrics.csv"
    return rows.is_file() and len(rows.read_text().splitlines()) > 2


def process_of(launcher, job):
    """The process that works in a job's folder."""
    for pid in processes_below(launcher.pid):
        try:
            opened = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        if any(f"/{job}/" in path for path in opened):
            return pid
    raise AssertionError(job)


def check_same_bits(one, other):
    for name in ("metrics.csv", "metrics.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    with np.load(one / "predictions_test.npz") as mine, np.load(other / "predictions_test.npz") as theirs:
        np.testing.assert_array_equal(mine["probs"], theirs["probs"])


@pytest.fixture(scope="module")
def reference(cache, tmp_path_factory):
    """The same sweep without another launcher."""
    cwd = tmp_path_factory.mktemp("reference")
    succeed("train.py", *SWEEP, cwd=cwd, cache=cache)
    return cwd / "sweep"


@pytest.mark.slow
def test_a_preempted_job_of_submitit_goes_on_to_the_same_bits(reference, fault_row, cache, tmp_path):
    sweep = tmp_path / "sweep"
    process = start(*SWEEP, *LOCAL, cwd=tmp_path, cache=cache)
    wait_for(lambda: at_work(sweep, "0_mlp"), process)
    os.kill(process_of(process, "0_mlp"), signal.SIGUSR2)
    fault_row.check(process.completed())
    assert len(record_of(sweep, "0_mlp")["resumed"]) == 1
    assert record_of(sweep, "1_mlp")["resumed"] == []
    for job in ("0_mlp", "1_mlp"):
        check_same_bits(sweep / job, reference / job)
    assert "resume=" not in " ".join(record_of(sweep, "0_mlp")["overrides"])
    assert len((sweep / "summary.csv").read_text().splitlines()) >= 3
    assert (sweep / "report.html").is_file()
    assert len(list((sweep / "logs").glob("*_log.out"))) == 2
    finished = succeed("train.py", *SWEEP, *LOCAL, "resume=auto", cwd=tmp_path, cache=cache)
    assert "this sweep is finished, there is nothing to do" in finished.stdout


@pytest.fixture(scope="module")
def disturbed(cache, tmp_path_factory):
    """A sweep of three jobs: one is killed, one is left alone, one has a setting that its process refuses."""
    cwd = tmp_path_factory.mktemp("disturbed")
    process = start(*SWEEP, *LOCAL, "seed=1,2,-1", cwd=cwd, cache=cache)
    wait_for(lambda: at_work(cwd / "sweep", "0_mlp"), process)
    os.kill(process_of(process, "0_mlp"), signal.SIGKILL)
    return process.completed(), cwd


@pytest.mark.slow
def test_a_setting_that_a_job_of_submitit_refuses_is_one_failed_job(disturbed, fault_row):
    done, cwd = disturbed
    fault_row.check(done)
    assert record_of(cwd / "sweep", "1_mlp")["state"] == "finished"
    failed = record_of(cwd / "sweep", "2_mlp")
    assert failed["state"] == "failed"
    assert "seed=-1" in failed["reason"]


@pytest.mark.slow
def test_a_killed_job_of_submitit_is_one_that_failed(disturbed, reference, fault_row, cache):
    done, cwd = disturbed
    fault_row.check(done)
    assert json.loads((cwd / "sweep/sweep.json").read_text())["state"] == "failed"
    again = run("train.py", *SWEEP, *LOCAL, "seed=1,2,-1", "resume=auto", cwd=cwd, cache=cache)
    assert again.returncode == 1  # of the setting
    check_same_bits(cwd / "sweep/0_mlp", reference / "0_mlp")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_a_stopped_command_stops_its_jobs_which_save(name, fault_row, cache, tmp_path):
    sweep = tmp_path / "sweep"
    endless = (*SWEEP, *LOCAL, "trainer.max_epochs=9999", "save_every_steps=null", "seed=1,2,3")
    process = start(*endless, cwd=tmp_path, cache=cache)
    wait_for(lambda: at_work(sweep, "0_mlp") and at_work(sweep, "1_mlp"), process)
    process.send_signal(signal.Signals[f"SIG{name}"])
    fault_row.check(process.completed())
    records = [record_of(sweep, job) for job in ("0_mlp", "1_mlp")]
    assert [record["state"] for record in records] == ["interrupted"] * 2
    assert [record["reason"] for record in records] == ["stopped by signal 15"] * 2
    assert not (sweep / "2_mlp").exists()  # it waited for a place


@pytest.mark.slow
def test_jobs_of_submitit_end_with_a_killed_launcher(fault_row, cache, tmp_path):
    sweep = tmp_path / "sweep"
    process = start(*SWEEP, *LOCAL, "trainer.max_epochs=9999", cwd=tmp_path, cache=cache)
    wait_for(lambda: at_work(sweep, "0_mlp") and at_work(sweep, "1_mlp"), process)
    process.send_signal(signal.SIGKILL)
    fault_row.check(process.completed())
    wait_for(lambda: all(record_of(sweep, job)["state"] == "interrupted" for job in ("0_mlp", "1_mlp")))


# Slurm, or programs that act like it

SLURM = ("hydra/launcher=submitit_slurm",)
# Runs the tasks of an array one after another, each again for as long as it asks for that.
SBATCH = """#!{python}
import os, subprocess, sys
script = open(sys.argv[1]).read()
open("{folder}/script.sh", "w").write(script)
if os.environ.get("REFUSE"):
    sys.exit(f"sbatch: error: {{os.environ['REFUSE']}}")
print("Submitted batch job 17", flush=True)
if os.fork():
    sys.exit()
os.setsid()
streams = os.open("{folder}/sbatch.out", os.O_RDWR | os.O_CREAT)
for stream in range(3):
    os.dup2(streams, stream)
for task in range(2):
    mine = {{"SLURM_JOB_ID": str(20 + task), "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": str(task),
            "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "1", "SLURM_NODEID": "0",
            "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "node"}}
    restarts = 0
    while True:
        mine["SLURM_RESTART_COUNT"] = str(restarts)
        subprocess.run(["bash", sys.argv[1]], env=os.environ | mine)
        if not os.path.exists("{folder}/requeued"):
            break
        os.rename("{folder}/requeued", f"{folder}/requeued_{{restarts}}")
        restarts += 1
open("{folder}/done", "w").close()
"""
SRUN = """#!{python}
import os, sys
words = sys.argv[1:]
start = words.index("{python}")
name = words[words.index("--output") + 1].replace("%A", "17").replace("%t", "0")
log = os.open(name.replace("%a", os.environ["SLURM_ARRAY_TASK_ID"]), os.O_RDWR | os.O_CREAT | os.O_APPEND)
os.dup2(log, 1)
os.dup2(log, 2)
open("{folder}/pid", "w").write(str(os.getpid()))
os.execv(words[start], words[start:])
"""
OTHERS = {
    "scontrol": '#!/bin/sh\necho "$@" >> {folder}/asked\n[ "$1" != requeue ] || touch {folder}/requeued\n',
    "squeue": "#!/bin/sh\n[ -f {folder}/done ] || printf '17_0 RUNNING None\\n17_1 PENDING None\\n'\n",
    "scancel": "#!/bin/sh\nkill -TERM $(cat {folder}/pid)\n",
}


@pytest.fixture
def slurm(tmp_path):
    """The environment of a machine on which programs act as Slurm's, which write into ``bin``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, **OTHERS}.items():
        (folder / name).write_text(text.format(folder=folder, python=sys.executable))
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def options_of(script):
    return set(re.findall(r"^#SBATCH --(\S+)$", script, re.MULTILINE))


def test_slurm_is_asked_for_one_gpu_and_told_why_it_refuses(slurm, fault_row, cache, tmp_path):
    refuse = {"REFUSE": "Invalid generic resource (gres) specification"}
    settings = ("hydra.launcher.partition=gpu", "hydra.launcher.array_parallelism=8", "seed=1,2,3")
    fault_row.check(run("train.py", *SWEEP, *SLURM, *settings, cwd=tmp_path, cache=cache, **slurm, **refuse))
    script = (tmp_path / "bin/script.sh").read_text()
    assert options_of(script) == {
        "array=0-2%3", "cpus-per-task=4", "gpus-per-node=1", "job-name=train", "mem=16GB", "nodes=1",
        "ntasks-per-node=1", "open-mode=append", f"output={tmp_path}/sweep/logs/%A_%a_0_log.out",
        "partition=gpu", "signal=USR2@120", "time=240", "wckey=submitit",
    }  # fmt: skip
    assert "srun --unbuffered" in script
    assert "--cpus-per-task=4 " in script  # srun asks again, for the threads of the process
    assert not list(tmp_path.glob("sweep/*/run.json"))


def test_slurm_that_is_missing_is_a_sentence(fault_row, cache, tmp_path):
    path = {"PATH": str(Path(sys.executable).parent)}
    fault_row.check(run("train.py", *SWEEP, *SLURM, cwd=tmp_path, cache=cache, **path))
    assert not (tmp_path / "sweep").exists()


def test_evaluations_take_no_launcher_of_trainings(fault_row, cache, tmp_path):
    checkpoints = ("eval.py", "-m", "checkpoint=a.ckpt,b.ckpt")
    fault_row.check(run(*checkpoints, "hydra/launcher=submitit_local", cwd=tmp_path, cache=cache))
    for option in ("hydra/launcher=submitit_slurm", "hydra/launcher=ray", "hydra/sweeper=optuna"):
        done = run(*checkpoints, option, cwd=tmp_path, cache=cache)
        assert sentence(done).startswith(f"error: {option}: of train.py;")
    assert not list(tmp_path.iterdir())


def test_no_job_at_a_time_is_refused(fault_row, cache, tmp_path):
    setting = "hydra.launcher.array_parallelism=0"
    fault_row.check(run("train.py", *SWEEP, *LOCAL, setting, cwd=tmp_path, cache=cache))
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_a_job_of_slurm_that_is_started_again_continues(reference, slurm, fault_row, cache, tmp_path):
    """The first job is warned that its time ends, the second is killed and queued again by Slurm itself."""
    sweep = tmp_path / "sweep"
    process = start(*SWEEP, *SLURM, cwd=tmp_path, cache=cache, **slurm)
    wait_for(lambda: at_work(sweep, "0_mlp"), process)
    os.kill(int((tmp_path / "bin/pid").read_text()), signal.SIGUSR2)
    wait_for(lambda: at_work(sweep, "1_mlp"), process)
    (tmp_path / "bin/requeued").touch()
    os.kill(int((tmp_path / "bin/pid").read_text()), signal.SIGKILL)
    fault_row.check(process.completed())
    assert "requeue 17_0\n" in (tmp_path / "bin/asked").read_text()
    for job in ("0_mlp", "1_mlp"):
        assert len(record_of(sweep, job)["resumed"]) == 1
        check_same_bits(sweep / job, reference / job)
