"""Faults of a search: kills, several processes, trials that fail, damaged files."""

import json
import re
import signal
import time

import pytest

from fer_lightning.search.study import JOURNAL
from tests.commands import ROOT, environment, run, succeed
from tests.faults.conftest import SMALL
from tests.forked import Forked

SPACE = ("optimizer.lr=tag(log,interval(1e-4,1e-1))", "data.batch_size=16,32")
SEARCH = ("-m", "hydra/sweeper=optuna", *SMALL, "trainer.max_epochs=3", *SPACE, "hydra.sweep.dir=sweep")


def trials_of(folder, name="sweep"):
    return json.loads((folder / name / "search.json").read_text())["trials"]


def found_by(folder, name="sweep"):
    """What a search found: settings, end and value of every trial."""
    return [
        (trial["params"], trial["state"], trial["value"], trial["epochs"])
        for trial in trials_of(folder, name)
    ]


@pytest.mark.slow
def test_a_search_killed_twice_finds_what_it_would_have_found(fault_row, cache, tmp_path):
    pruning = ("callbacks=[default,pruning]", "callbacks.pruning.pruner.n_startup_trials=2")
    few = (*pruning, "hydra.sweeper.n_trials=5", "hydra.sweeper.sampler.n_startup_trials=2")
    command = [*SEARCH, *few, "save_every_steps=1"]
    succeed("train.py", *command, "hydra.sweep.dir=whole", cwd=tmp_path, cache=cache)
    for number, trial in ((signal.SIGKILL, 1), (signal.SIGTERM, 3)):
        words = [str(ROOT / "train.py"), *command, "resume=auto"]
        process = Forked(words, cwd=tmp_path, env=environment(cache))
        while not (tmp_path / f"sweep/{trial}_mlp/last.ckpt").exists():
            assert process.poll() is None, process.output()
            time.sleep(0.01)
        process.send_signal(number)
        process.completed()
    fault_row.check(run("train.py", *command, "resume=auto", cwd=tmp_path, cache=cache))
    assert found_by(tmp_path) == found_by(tmp_path, "whole")
    assert len(list((tmp_path / "sweep").glob("*_mlp/run.json"))) == 5


@pytest.mark.slow
def test_two_processes_work_on_one_search(fault_row, cache, tmp_path):
    command = [str(ROOT / "train.py"), *SEARCH, "hydra.sweeper.n_trials=6", "resume=auto"]
    first = Forked(command, cwd=tmp_path, env=environment(cache))
    while not (tmp_path / "sweep/0_mlp/run.json").exists():
        assert first.poll() is None, first.output()
        time.sleep(0.01)
    second = Forked(command, cwd=tmp_path, env=environment(cache))
    ended = [process.completed() for process in (first, second)]
    assert [done.returncode for done in ended] == [0, 0], ended
    fault_row.check(next(done for done in ended if "sweep report: " not in done.stdout))
    assert [trial["state"] for trial in trials_of(tmp_path)] == ["finished"] * 6
    by_process = [set(re.findall(r"job (\d): test accuracy", done.stdout)) for done in ended]
    assert by_process[0] | by_process[1] == set("012345")
    assert not by_process[0] & by_process[1]
    assert all(by_process)
    assert sum("sweep report: " in done.stdout for done in ended) == 1
    assert json.loads((tmp_path / "sweep/sweep.json").read_text())["state"] == "finished"


@pytest.mark.slow
def test_a_search_ends_when_most_of_its_trials_fail(fault_row, cache, tmp_path):
    fault_row.check(run("train.py", *SEARCH, "optimizer.lr=interval(1e30,1e31)", cwd=tmp_path, cache=cache))
    (trial,) = trials_of(tmp_path)
    assert trial["state"] == "failed"
    assert "training has diverged" in trial["reason"]


@pytest.mark.slow
def test_a_search_without_a_validation_split_ends_after_its_first_trial(fault_row, cache, tmp_path):
    fault_row.check(run("train.py", *SEARCH, "data.protocol=paper", cwd=tmp_path, cache=cache))
    assert [trial["state"] for trial in trials_of(tmp_path)] == ["failed"]


@pytest.mark.slow
def test_a_trial_follows_no_metric_that_is_missing(fault_row, cache, tmp_path):
    pruning = ("data.protocol=paper", "callbacks=[default,pruning]")
    fault_row.check(run("train.py", *SEARCH, *pruning, cwd=tmp_path, cache=cache))


def test_a_damaged_journal_ends_the_search(fault_row, cache, tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/multirun.yaml").write_text("{}")
    (tmp_path / "sweep" / JOURNAL).write_text("no JSON\n")
    fault_row.check(run("train.py", *SEARCH, "resume=auto", cwd=tmp_path, cache=cache))
    assert (tmp_path / "sweep" / JOURNAL).read_text().startswith("no JSON\n")


@pytest.mark.slow
def test_damaged_results_of_a_search_cost_only_their_section(fault_row, cache, tmp_path):
    succeed("train.py", *SEARCH, "hydra.sweeper.n_trials=1", cwd=tmp_path, cache=cache)
    for content in ('{"trials": [{}], "best": null}', '{"trials": 3}', "no JSON", "{}"):
        (tmp_path / "sweep/search.json").write_text(content)
        succeed("-m", "fer_lightning.report", "sweep", "--out", "page.html", cwd=tmp_path, cache=cache)
        page = re.sub(r"<[^>]+>", " ", (tmp_path / "page.html").read_text())
        assert "Learning curves" in page
        fault_row.check_text(page.split("Search", 2)[-1] if content != "{}" else fault_row.message)
