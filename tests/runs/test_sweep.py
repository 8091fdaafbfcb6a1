import csv
import json

import pytest

from fer_lightning.core.hardware import available_cores
from tests.commands import TINY, run, succeed


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def swept(cache, tmp_path_factory):
    """Two models times two seeds; the first job of the second model fails."""
    cwd = tmp_path_factory.mktemp("cwd")
    done = run(
        "train.py", "-m", "model=mlp", "model.dropout=0.1,7", "seed=0,1", *TINY, "trainer=smoke",
        cwd=cwd, cache=cache,
    )  # fmt: skip
    (folder,) = cwd.glob("outputs/sweeps/*")
    return folder, done


def test_every_job_of_a_sweep_has_its_folder_and_its_w_and_b_run(swept):
    folder, _ = swept
    jobs = sorted(path.parent.name for path in folder.glob("*/run.json"))
    assert jobs == ["0_mlp", "1_mlp", "2_mlp", "3_mlp"]
    for number in (0, 1):
        assert len(list((folder / f"{number}_mlp/wandb").glob("offline-run-*/*.wandb"))) == 1


def test_a_failed_job_is_listed_with_its_reason_and_the_others_go_on(swept):
    folder, done = swept
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    states = [json.loads((folder / f"{number}_mlp/run.json").read_text()) for number in range(4)]
    assert [job["state"] for job in states] == ["finished", "finished", "failed", "failed"]
    assert "model.dropout=7" in states[2]["reason"]
    assert "model.dropout=7" in (folder / "report.html").read_text()
    assert "failed" in done.stdout


def test_a_sweep_ends_with_a_table_that_averages_over_seeds(swept):
    folder, done = swept
    with (folder / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    accuracies = [
        json.loads((folder / f"{number}_mlp/metrics.json").read_text())["test"]["acc"] for number in (0, 1)
    ]
    text = (folder / "summary.csv").read_text()
    assert len(rows) >= 5  # four jobs, and the mean of the two that differ by seed alone
    assert str(round(sum(accuracies) / 2, 4))[:5] in text
    assert "sweep report" in done.stdout


@pytest.mark.slow
def test_the_score_that_sweepers_get_is_the_monitored_one(cache, tmp_path):
    done = succeed(
        "train.py", "-m", "model=mlp", *TINY, "trainer=smoke", "logger=none", "monitor=val/f1_macro",
        "hydra.sweep.dir=sweep", "+hydra.callbacks.probe._target_=tests.commands.ReturnValueProbe",
        cwd=tmp_path, cache=cache,
    )  # fmt: skip
    record = json.loads((tmp_path / "sweep/0_mlp/run.json").read_text())
    metrics = json.loads((tmp_path / "sweep/0_mlp/metrics.json").read_text())
    assert "starts, collecting garbage: False" in done.stdout
    assert f"returned {record['best_score']}, collecting garbage: True" in done.stdout
    assert record["best_score"] == pytest.approx(metrics["val"]["f1_macro"])
    assert record["selected_by"] == "val/f1_macro"


@pytest.mark.slow
def test_no_job_leaves_its_network_or_data_in_memory(cache, tmp_path):
    """The second job diverges; Hydra keeps its error, whose frames refer to everything."""
    done = run(
        "train.py", "-m", "model=mlp", "optimizer.lr=0.001,1e30,0.002", *TINY, "trainer.max_epochs=2",
        "logger=none", "hydra.sweep.dir=sweep", "+hydra.callbacks.probe._target_=tests.commands.MemoryProbe",
        cwd=tmp_path, cache=cache,
    )  # fmt: skip
    assert "training has diverged" in done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("left over")]
    assert lines == ["left over: []"] * 3


@pytest.fixture(scope="module")
def side_by_side(cache, tmp_path_factory):
    """Three jobs in processes of joblib; the seed of the third is refused before it has a folder."""
    cwd = tmp_path_factory.mktemp("side_by_side")
    done = run(
        *("train.py", "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "model=mlp", "seed=0,1,-1"),
        *(*TINY, "trainer=smoke", "logger=none", f"hydra.sweep.dir={cwd}/sweep"),
        cwd=cwd,
        cache=cache,
    )
    jobs = [json.loads((cwd / f"sweep/{number}_mlp/run.json").read_text()) for number in range(3)]
    return done, jobs, cwd / "sweep"


@pytest.mark.slow
def test_jobs_side_by_side_overlap_and_share_the_cores(side_by_side):
    _, jobs, sweep = side_by_side
    assert [job["state"] for job in jobs[:2]] == ["finished", "finished"]
    assert jobs[0]["started"] < jobs[1]["ended"]
    assert jobs[1]["started"] < jobs[0]["ended"]
    assert {job["num_threads"] for job in jobs[:2]} == {max(1, available_cores() // 2)}
    assert (sweep / "report.html").is_file()
    with (sweep / "summary.csv").open() as file:
        assert sum(1 for _ in csv.DictReader(file)) >= 3


@pytest.mark.slow
def test_parallel_job_that_failed_before_its_record_gets_one(side_by_side):
    done, jobs, _ = side_by_side
    assert done.returncode == 1
    assert jobs[2]["state"] == "failed"
    assert "seed=-1" in jobs[2]["reason"]
