"""The study of a search: which process runs which trial, whatever was killed."""

import json

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from fer_lightning.core.errors import FERError
from fer_lightning.runs.workers import Worker
from fer_lightning.search.results import write_search
from fer_lightning.search.space import read_space
from fer_lightning.search.study import JOURNAL, PRUNED_AFTER, Search, open_study

optuna.logging.set_verbosity(optuna.logging.WARNING)

SPACE = read_space(
    OverridesParser.create().parse_overrides(["model=mlp", "lr=interval(0.0,1.0)", "width=8,16"])
)


@pytest.fixture
def join(tmp_path):
    """Join the search in a folder, as one more process."""

    def make(*, name="me", dead=(), space=SPACE, direction="maximize"):
        return Search(
            tmp_path,
            space,
            make_sampler=lambda seed: TPESampler(seed=seed, n_startup_trials=2),
            seed=3,
            pruner=None,
            direction=direction,
            worker=name,
            is_alive=lambda other: other not in dead and other != "",
        )

    return make


def value_of(trial):
    """A made-up accuracy, best at lr=0.3."""
    lr = float(next(each for each in trial.overrides if each.startswith("lr=")).removeprefix("lr="))
    return 1 - (lr - 0.3) ** 2


def run_through(search, *, at_once=1, num_trials=12):
    while batch := search.reserve(at_once, num_trials):
        for trial in batch:
            search.finish(trial.number, value_of(trial))
    return [trial.params for trial in search.study.trials]


def test_trials_are_numbered_and_counted(join):
    search = join()
    batch = search.reserve(3, 4)
    assert [trial.number for trial in batch] == [0, 1, 2]
    assert all(trial.overrides[0] == "model=mlp" and not trial.again for trial in batch)
    assert [trial.number for trial in search.reserve(3, 4)] == [3]
    assert search.reserve(3, 4) == []


def test_a_search_improves_on_random_draws(join):
    found = run_through(join(), num_trials=40)
    assert sum(abs(params["lr"] - 0.3) < 0.15 for params in found[20:]) > 12  # 6 of random draws


@pytest.mark.parametrize("stop_after", [0, 1, 4, 7])
def test_a_search_that_was_killed_chooses_what_it_would_have_chosen(join, tmp_path, stop_after):
    """The process dies with one trial running, whose run goes on with its settings."""
    whole = run_through(join())
    (tmp_path / JOURNAL).unlink()
    search = join(name="first")
    for _ in range(stop_after):
        (trial,) = search.reserve(1, 12)
        search.finish(trial.number, value_of(trial))
    (unfinished,) = search.reserve(1, 12)
    second = join(name="second", dead={"first"})
    (again,) = second.reserve(1, 12)
    assert again.again
    assert again.number == unfinished.number
    assert again.overrides == [*unfinished.overrides, "resume=auto"]
    second.finish(again.number, value_of(again))
    assert run_through(second) == whole


def test_a_trial_that_had_not_chosen_every_setting_goes_on(join, tmp_path):
    run_through(join(), num_trials=3)
    whole = (tmp_path / JOURNAL).read_text()
    join(name="first").reserve(1, 4)
    expected = join(name="first").study.trials[3].params
    for lines in range(1, 5):  # its state, its process, its first and second setting
        begun = (tmp_path / JOURNAL).read_text().removeprefix(whole).splitlines(keepends=True)[:lines]
        (tmp_path / JOURNAL).write_text(whole + "".join(begun))
        second = join(name=f"second {lines}", dead={"first", *(f"second {n}" for n in range(lines))})
        (again,) = second.reserve(1, 4)
        assert again.number == 3
        assert second.study.trials[3].params == expected
        assert len(second.study.trials) == 4


def test_a_half_written_line_is_cut_off(join, tmp_path):
    run_through(join(), num_trials=3)
    path = tmp_path / JOURNAL
    path.write_bytes(path.read_bytes() + b'{"op_code": 4, "wor')
    assert len(join().study.trials) == 3
    assert len(run_through(join(), num_trials=5)) == 5
    for line in path.read_text().splitlines():
        json.loads(line)


def test_two_processes_share_the_trials(join):
    first, second = join(name="first"), join(name="second")
    numbers = [search.reserve(1, 5)[0].number for search in (first, second, first, second, first)]
    assert numbers == [0, 1, 2, 3, 4]
    assert first.reserve(1, 5) == second.reserve(1, 5) == []


def test_trials_of_dead_processes_are_taken_in_order_and_once(join):
    join(name="first").reserve(2, 9)
    join(name="third").reserve(1, 9)
    join(name="first").reserve(1, 9)
    second = join(name="second", dead={"first"})
    assert [trial.number for trial in second.reserve(4, 9)] == [
        0,
        1,
    ]  # 2 is another's; numbers are consecutive
    assert [trial.number for trial in second.reserve(4, 9)] == [3]
    assert [trial.number for trial in second.reserve(4, 9)] == [4, 5, 6, 7]


def test_ends_of_trials_are_told_apart(join, tmp_path):
    search = join()
    search.reserve(3, 3)
    storage = search.study._storage
    storage.set_trial_intermediate_value(1, 2, 0.25)
    storage.set_trial_user_attr(1, PRUNED_AFTER, 2)
    search.finish(0, 0.5)
    search.finish(1, 0.25)
    search.finish(2, "its loss is nan")
    search.finish(2, 0.9)  # a second time: nothing changes
    assert [trial.state for trial in search.study.trials] == [
        TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL,
    ]  # fmt: skip
    write_search(search.study, tmp_path, monitor="val/acc")
    record = json.loads((tmp_path / "search.json").read_text())
    assert record["best"] == 0
    assert [trial["state"] for trial in record["trials"]] == ["finished", "pruned", "failed"]
    assert [trial["value"] for trial in record["trials"]] == [0.5, 0.25, None]
    assert record["trials"][1]["pruned_after"] == 2
    assert record["trials"][2]["reason"] == "its loss is nan"
    assert record["importance"] == {}


def test_importance_names_the_setting_that_matters(join, tmp_path):
    search = join()
    run_through(search, num_trials=20)
    write_search(search.study, tmp_path, monitor="val/acc")
    importance = json.loads((tmp_path / "search.json").read_text())["importance"]
    assert importance["lr"] > 0.8
    assert sum(importance.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "content", ["no JSON\n", '{"op_code": 1}\n', "[]\n", '{"op_code": 99, "worker_id": "a"}\n']
)
def test_a_damaged_journal_is_refused(tmp_path, content):
    (tmp_path / JOURNAL).write_text(content)
    with pytest.raises(FERError, match="not readable as the journal of a study"):
        open_study(tmp_path, direction="maximize")


def test_another_direction_or_space_is_refused(join, tmp_path):
    run_through(join(), num_trials=2)
    with pytest.raises(FERError, match="a search that maximizes, and this one would minimize"):
        open_study(tmp_path, direction="minimize")
    join(name="first").reserve(1, 3)
    other = read_space(OverridesParser.create().parse_overrides(["lr=interval(0.0,1.0)", "width=8,16,32"]))
    with pytest.raises(FERError, match="width: the study in this folder has other choices or another range"):
        join(name="second", dead={"first"}, space=other).reserve(1, 3)


def test_a_worker_is_alive_until_it_leaves_or_dies(tmp_path):
    first, second = Worker(tmp_path), Worker(tmp_path)
    assert first.is_alive(first.name)
    assert first.is_alive(second.name)
    assert first.others() == [second.name]
    second._lock.release()  # as the system does for a dead process
    assert not first.is_alive(second.name)
    assert first.others() == []
    assert not first.is_alive("unknown")
    first.leave()
    assert not list(tmp_path.glob(".workers/*"))
