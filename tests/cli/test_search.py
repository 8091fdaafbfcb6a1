"""``python train.py -m hydra/sweeper=optuna``: a search as a user runs it."""

import json
import re

import pytest
from optuna import load_study
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tests.commands import TINY, succeed

SMALL = (
    "model=mlp", "model.hidden=[16]", *TINY, "data.image_size=16", "logger=none", "trainer.max_epochs=3",
)  # fmt: skip
SPACE = ("optimizer.lr=tag(log,interval(1e-4,1e-1))", "data.batch_size=16,32")
SEARCH = ("-m", "hydra/sweeper=optuna", *SMALL, *SPACE, "hydra.sweep.dir=sweep")
AFTER_TWO = (
    "callbacks=[default,pruning]",
    "callbacks.pruning.pruner._target_=optuna.pruners.ThresholdPruner",
    "~callbacks.pruning.pruner.n_startup_trials",
    "callbacks.pruning.pruner.n_warmup_steps=2",
    "+callbacks.pruning.pruner.lower=1.1",  # no accuracy is as high
)


def trials_of(folder, name="sweep"):
    return json.loads((folder / name / "search.json").read_text())["trials"]


def found_by(folder, name="sweep"):
    """What a search found: settings, end and value of every trial."""
    return [
        (trial["params"], trial["state"], trial["value"], trial["epochs"])
        for trial in trials_of(folder, name)
    ]


def test_a_search_runs_its_trials_and_names_the_best(cache, tmp_path):
    done = succeed("train.py", *SEARCH, "hydra.sweeper.n_trials=2", cwd=tmp_path, cache=cache)
    trials = trials_of(tmp_path)
    assert [trial["state"] for trial in trials] == ["finished", "finished"]
    assert all(1e-4 <= trial["params"]["optimizer.lr"] <= 1e-1 for trial in trials)
    for trial in trials:
        record = json.loads((tmp_path / f"sweep/{trial['number']}_mlp/run.json").read_text())
        assert record["best_score"] == trial["value"]
        assert record["overrides"] == trial["overrides"]
    best = max(trials, key=lambda trial: trial["value"])
    assert f"best trial: {best['number']}, val/acc" in done.stdout
    assert f"optimizer.lr={best['params']['optimizer.lr']}" in done.stdout
    page = (tmp_path / "sweep/report.html").read_text()
    assert "2 trials (2 finished), chosen by val/acc" in page
    assert (tmp_path / "sweep/figures/search.svg").is_file()
    assert json.loads((tmp_path / "sweep/sweep.json").read_text())["state"] == "finished"
    journal = JournalStorage(JournalFileBackend(str(tmp_path / "sweep/study.journal")))  # as optuna-dashboard
    assert load_study(study_name=None, storage=journal).best_trial.number == best["number"]


@pytest.mark.slow
def test_a_finished_search_is_left_alone_and_grows_on_request(cache, tmp_path):
    succeed("train.py", *SEARCH, "hydra.sweeper.n_trials=1", cwd=tmp_path, cache=cache)
    done = succeed("train.py", *SEARCH, "hydra.sweeper.n_trials=1", "resume=auto", cwd=tmp_path, cache=cache)
    assert "this sweep is finished, there is nothing to do" in done.stdout
    first = found_by(tmp_path)
    succeed("train.py", "resume=sweep", "hydra.sweeper.n_trials=2", cwd=tmp_path, cache=cache)
    assert found_by(tmp_path)[:1] == first
    assert len(trials_of(tmp_path)) == 2


@pytest.mark.slow
def test_the_command_of_the_best_trial_repeats_its_run(cache, tmp_path):
    done = succeed("train.py", *SEARCH, "hydra.sweeper.n_trials=1", cwd=tmp_path, cache=cache)
    command = re.search(r"\n  python (train\.py .*)", done.stdout)[1].replace("'", "").split()
    succeed(*command, "hydra.run.dir=again", cwd=tmp_path, cache=cache)
    first, again = (
        json.loads((tmp_path / folder / "run.json").read_text()) for folder in ("sweep/0_mlp", "again")
    )
    assert again["best_score"] == first["best_score"]


@pytest.mark.slow
def test_pruned_trials_are_whole_runs(cache, tmp_path):
    pruning = (*AFTER_TWO, "hydra.sweeper.n_trials=2")
    done = succeed("train.py", *SEARCH, *pruning, cwd=tmp_path, cache=cache)
    assert "pruned after epoch 2: others were better at this epoch" in done.stdout
    assert "best trial" not in done.stdout  # none has finished
    for trial in trials_of(tmp_path):
        assert (trial["state"], trial["pruned_after"], list(trial["epochs"])) == ("pruned", 2, ["1", "2"])
        folder = tmp_path / f"sweep/{trial['number']}_mlp"
        assert json.loads((folder / "run.json").read_text())["state"] == "finished"
        assert len((folder / "metrics.csv").read_text().splitlines()) == 3
    assert "2 trials (2 pruned)" in (tmp_path / "sweep/report.html").read_text()


@pytest.mark.slow
def test_trials_run_side_by_side(cache, tmp_path):
    side_by_side = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_trials=4")
    succeed("train.py", *SEARCH, *side_by_side, cwd=tmp_path, cache=cache)
    trials = trials_of(tmp_path)
    assert [trial["state"] for trial in trials] == ["finished"] * 4
    starts = [
        json.loads((tmp_path / f"sweep/{number}_mlp/run.json").read_text())["started"] for number in range(4)
    ]
    assert max(starts[:2]) < min(starts[2:])
