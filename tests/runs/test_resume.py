import os
from copy import deepcopy
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fer_lightning.config.compare import config_hash
from fer_lightning.core.errors import FERError
from fer_lightning.core.files import write_json
from fer_lightning.runs.folder import RunFolder
from fer_lightning.runs.resume import open_run, remove_if_empty

CONFIG = {
    "seed": 0,
    "trainer": {"max_epochs": 3},
    "resume": None,
    "run_dir": "",
    "trust": [],
    "logger": {},
}


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """An empty working directory, in which hydra has made a folder for the job."""
    monkeypatch.chdir(tmp_path)
    new = tmp_path / "outputs" / "today" / "new"
    new.mkdir(parents=True)
    return tmp_path / "outputs"


def command(outputs, resume=None, run_dir=None, **changes):
    config = deepcopy(CONFIG) | changes
    return config | {"resume": resume, "run_dir": str(run_dir or outputs / "today" / "new")}


def stopped(folder, state="interrupted", *, modified=100, with_config=True, **changes):
    """Leave a run as a former command would have."""
    config = deepcopy(CONFIG) | {"run_dir": str(folder)} | changes
    folder.mkdir(parents=True)
    write_json(folder / "run.json", {"state": state, "config_hash": config_hash(config)})
    if with_config:
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    os.utime(folder / "run.json", (modified, modified))
    return folder


def opened(config, *, given=False, overrides=()):
    run, followed = open_run(config, folder_given=given, overrides=overrides)
    run.release()
    return run.folder.resolve(), followed


# resume=null


def test_a_run_starts_in_the_folder_hydra_made(outputs):
    config = command(outputs)
    assert opened(config) == (outputs / "today" / "new", config)


@pytest.mark.parametrize("state", ["finished", "running", "failed", "interrupted"])
def test_a_folder_that_holds_a_run_is_not_used_again_unasked(outputs, state):
    folder = stopped(outputs / "today" / "old", state)
    before = (folder / "run.json").read_text()
    with pytest.raises(FERError, match=rf"already holds a run \({state}\); .*resume=auto"):
        opened(command(outputs, run_dir=folder), given=True)
    assert (folder / "run.json").read_text() == before
    RunFolder(folder).release()  # and it is free


# resume=auto


def test_auto_with_nothing_to_continue_starts(outputs):
    config = command(outputs, "auto")
    assert opened(config) == (outputs / "today" / "new", config)


def test_auto_finds_the_newest_unfinished_run_of_the_same_config(outputs):
    stopped(outputs / "a" / "older", modified=100)
    newest = stopped(outputs / "b" / "newer", modified=200)
    stopped(outputs / "b" / "other seed", modified=300, seed=1)
    stopped(outputs / "b" / "finished", "finished", modified=400)
    folder, config = opened(command(outputs, "auto"))
    assert folder == newest
    assert Path(config["run_dir"]).resolve() == newest
    assert not (outputs / "today").exists()  # the folder hydra had made for this job


def test_auto_finds_a_run_that_is_to_go_on_for_longer(outputs):
    old = stopped(outputs / "a" / "old")
    folder, config = opened(command(outputs, "auto", trainer={"max_epochs": 9}))
    assert folder == old
    assert config["trainer"]["max_epochs"] == 9


def test_auto_looks_only_in_a_folder_that_was_given(outputs):
    stopped(outputs / "a" / "elsewhere")
    mine = stopped(outputs / "today" / "mine")
    assert opened(command(outputs, "auto", mine), given=True)[0] == mine
    fresh = outputs / "today" / "fresh"
    assert opened(command(outputs, "auto", fresh), given=True)[0] == fresh


def test_auto_refuses_a_folder_of_another_config_and_names_the_difference(outputs):
    folder = stopped(outputs / "today" / "mine", seed=5)
    with pytest.raises(FERError, match="another config, which differs in seed; repeat the same overrides"):
        opened(command(outputs, "auto", folder), given=True, overrides=["resume=auto"])
    RunFolder(folder).release()


def test_auto_restarts_a_run_stopped_before_its_config_was_written(outputs):
    folder = stopped(outputs / "today" / "mine", "failed", with_config=False)
    config = command(outputs, "auto", folder)
    assert opened(config, given=True) == (folder, config)


def test_a_finished_run_is_handed_over_as_finished(outputs):
    folder = stopped(outputs / "today" / "mine", "finished", seed=5)
    with pytest.raises(FERError, match="was started with another config, which differs in seed"):
        open_run(command(outputs, "auto", folder), folder_given=True, overrides=[])
    for config in (command(outputs, "auto", folder, seed=5), command(outputs, str(folder))):
        run, _ = open_run(config, folder_given=True, overrides=[])
        assert run.record["state"] == "finished"
        run.release()


def test_a_run_in_use_is_not_continued(outputs):
    busy = RunFolder(stopped(outputs / "today" / "mine"))
    with pytest.raises(FERError, match="another process"):
        opened(command(outputs, "auto", busy.folder), given=True)
    assert opened(command(outputs, "auto"))[0] == outputs / "today" / "new"
    busy.release()


# resume=PATH


@pytest.mark.parametrize("path", ["", "last.ckpt"])
def test_a_path_alone_takes_the_run_s_own_config(outputs, path):
    folder = stopped(outputs / "a" / "old", seed=5)
    (folder / "last.ckpt").write_text("")
    found, config = opened(command(outputs, str(folder / path)), overrides=[f"resume={folder / path}"])
    assert found == folder
    assert config["seed"] == 5
    assert (config["run_dir"], config["resume"]) == (str(folder), str(folder / path))
    assert not (outputs / "today").exists()


def test_a_path_with_the_same_overrides_may_train_for_longer(outputs):
    folder = stopped(outputs / "a" / "old")
    config = command(outputs, str(folder), trainer={"max_epochs": 9})
    assert (
        opened(config, overrides=["trainer.max_epochs=9", f"resume={folder}"])[1]["trainer"]["max_epochs"]
        == 9
    )


def test_a_path_with_overrides_that_train_differently_is_refused(outputs):
    folder = stopped(outputs / "a" / "old")
    with pytest.raises(FERError, match="differs in seed; .*or leave those out that differ"):
        opened(command(outputs, str(folder), seed=1), overrides=["seed=1", f"resume={folder}"])


def test_what_the_logger_writes_goes_to_the_folder_that_is_continued(outputs):
    # As ${run_dir} resolves before the folder is known.
    logger = {"csv": {"run_dir": str(outputs / "today" / "new")}}
    folder = stopped(outputs / "a" / "old", logger={"csv": {"run_dir": str(outputs / "a" / "old")}})
    _, config = opened(command(outputs, "auto", logger=logger))
    assert Path(config["logger"]["csv"]["run_dir"]).resolve() == folder


def test_a_moved_run_continues_where_it_is_now(outputs):
    folder = stopped(outputs / "a" / "old", logger={"csv": {"run_dir": str(outputs / "a" / "old")}})
    moved = folder.rename(outputs / "a" / "moved")
    _, config = opened(command(outputs, str(moved)), overrides=[f"resume={moved}"])
    assert config["run_dir"] == config["logger"]["csv"]["run_dir"] == str(moved)


def test_a_path_without_a_run_is_refused(outputs):
    for path in (outputs / "nowhere", outputs):
        with pytest.raises(FERError, match=r"no run there \(a run folder holds run.json\)"):
            opened(command(outputs, str(path)))


def test_a_path_to_what_never_trained_says_how_to_start_it_again(outputs):
    folder = stopped(outputs / "a" / "old", "failed", with_config=False)
    with pytest.raises(
        FERError, match="stopped before anything was trained; start it again with resume=auto"
    ):
        opened(command(outputs, str(folder)), overrides=[f"resume={folder}"])
    RunFolder(folder).release()


def test_only_empty_folders_are_removed(tmp_path):
    full, empty = tmp_path / "a" / "full", tmp_path / "b" / "empty"
    full.mkdir(parents=True)
    (full / "file").write_text("")
    empty.mkdir(parents=True)
    (tmp_path / "b" / "neighbour").mkdir()
    for folder in (full, empty, tmp_path / "missing" / "folder"):
        remove_if_empty(folder)
    assert (full / "file").exists()
    assert not empty.exists()
    assert (tmp_path / "b" / "neighbour").exists()
