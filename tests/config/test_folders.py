import sys

import pytest

from fer_lightning.config.folders import (
    CONF,
    added_folders,
    check_added_folders,
    group_options,
    is_group,
    search_path_override,
)
from fer_lightning.core.errors import FERError
from tests.commands import ROOT


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/mine.yaml").write_text("defaults: [mlp]\n")
    (tmp_path / "widget").mkdir()
    return tmp_path


@pytest.fixture(params=["--config-dir={}", "hydra.searchpath=[{}]", "hydra.searchpath=['file://{}']"])
def argument(request, mine):
    return request.param.format(mine)


def test_configs_of_a_checkout_are_those_at_its_top():
    assert CONF == ROOT / "conf"
    assert (ROOT / "fer_lightning/conf").resolve() == CONF.resolve()


def test_options_of_an_added_folder_are_known(argument, mine, monkeypatch):
    assert "mine" not in group_options("model")
    assert not is_group("widget")
    monkeypatch.setattr(sys, "argv", ["train.py", argument])
    assert {"mine", "cnn"} <= set(group_options("model"))
    assert is_group("widget")
    assert search_path_override([argument]) == [f'hydra.searchpath=["file://{mine}"]']
    check_added_folders([argument])


def test_package_in_the_search_path_is_found():
    folders = [folder for _, folder in added_folders(["hydra.searchpath=[pkg://fer_lightning.report]"])]
    assert folders == [ROOT / "fer_lightning/report"]


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(FERError, match="nowhere is no folder"):
        check_added_folders([f"--config-dir={tmp_path}/nowhere"])


def test_config_that_hydra_would_ignore_is_refused(argument, mine):
    (mine / "model/cnn.yaml").touch()
    with pytest.raises(FERError, match="model/cnn.yaml would be ignored.*give it another name"):
        check_added_folders([argument])


def test_our_own_folder_may_be_added():
    check_added_folders([f"--config-dir={CONF}"])
