"""``--config-dir`` and ``hydra.searchpath``: configs of a user, next to ours."""

import json
import shutil

import pytest
from omegaconf import OmegaConf

from tests.commands import TINY, run, sentence, succeed
from tests.slow import slow_except

SMALL = (*TINY, "trainer=smoke", "logger=none")


@pytest.fixture
def place(tmp_path):
    """A working directory with my_conf/, which has a model and an experiment that uses it."""
    for name, text in {
        "model/mine": "defaults: [mlp, _self_]\nhidden: [8]\n",
        "experiment/mine_too": "# @package _global_\ndefaults: [{override /model: mine}, _self_]\nseed: 7\n",
    }.items():
        path = tmp_path / "my_conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def config_of(folder):
    return OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))


ADDING = {
    "--config-dir my_conf": ("--config-dir", "my_conf"),
    "-cd my_conf": ("-cd", "my_conf"),
    "hydra.searchpath=[my_conf]": ("hydra.searchpath=[my_conf]",),
}


@pytest.mark.parametrize("adding", slow_except(["--config-dir my_conf"], ADDING))
def test_own_experiment_is_trained_and_resumed(adding, place, cache):
    command = ("train.py", "experiment=mine_too", *ADDING[adding], *SMALL, "hydra.run.dir=run")
    succeed(*command, cwd=place, cache=cache)
    config = config_of(place / "run")
    assert (config["seed"], config["model"]["hidden"]) == (7, [8])
    assert "nothing to do" in succeed(*command, "resume=auto", cwd=place, cache=cache).stdout


@pytest.mark.slow
def test_messages_and_help_know_the_options_of_the_folder(place, cache):
    adding = ("--config-dir", "my_conf")
    assert "cnn, mine, mlp" in succeed("train.py", "--help", *adding, cwd=place, cache=cache).stdout
    assert "cnn, mlp" in succeed("train.py", "--help", cwd=place, cache=cache).stdout
    for typed, message in {
        "model=mien": "expected one of cnn, mine, mlp, resnet, rnn, timm (did you mean mine?)",
        "model=null": "model=null: expected one of cnn, mine, mlp",
        "model.hiden=3": "did you mean model.hidden?",
    }.items():
        done = run("train.py", "model=mine", *adding, typed, cwd=place, cache=cache)
        assert message in sentence(done)
    done = run("train.py", "model=resnet", "model.hidden=3", *adding, cwd=place, cache=cache)
    assert "a setting of model=cnn and model=mine and model=mlp" in sentence(done)


@pytest.mark.slow
def test_sweep_over_own_models_is_continued_by_its_folder(place, cache):
    adding = ("--config-dir", "my_conf")
    sweep = ("train.py", "model=mine,mlp", *adding, "-m", *SMALL, "model.hidden=[8]", "hydra.sweep.dir=sweep")
    succeed(*sweep, cwd=place, cache=cache)
    for folder in ("0_mine", "1_mlp"):
        assert json.loads((place / "sweep" / folder / "run.json").read_text())["state"] == "finished"
    assert "this sweep is finished" in succeed(*sweep, "resume=auto", cwd=place, cache=cache).stdout
    record = json.loads((place / "sweep/sweep.json").read_text())
    (place / "sweep/sweep.json").write_text(json.dumps(record | {"state": "interrupted"}))
    shutil.rmtree(place / "sweep/0_mine")
    assert "model=mine: no such option" in sentence(run("train.py", "resume=sweep", cwd=place, cache=cache))
    succeed("train.py", *adding, "resume=sweep", cwd=place, cache=cache)
    assert json.loads((place / "sweep/0_mine/run.json").read_text())["state"] == "finished"


@pytest.mark.slow
def test_own_models_are_trained_in_jobs_side_by_side(place, cache):
    parallel = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep")
    succeed("train.py", "model=mine", "seed=0,1", *parallel, "-cd", "my_conf", *SMALL, cwd=place, cache=cache)
    for folder in ("0_mine", "1_mine"):
        assert config_of(place / "sweep" / folder)["model"]["hidden"] == [8]
