"""Fixtures of the tests of faults: a home folder for the commands, and the row of docs/faults.md."""

import json
import shutil

import pytest

from tests.commands import TINY, succeed
from tests.faults.fault_table import read_faults

SMALL = ("model=mlp", "model.hidden=[16]", *TINY, "data.image_size=16", "logger=none")


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """The home folder of the commands, in which decoded images are cached."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def fault_row(request):
    """The row of docs/faults.md that names this test."""
    return read_faults()[f"{request.path.name}::{request.node.name}"]


@pytest.fixture(scope="session")
def trained(cache, tmp_path_factory):
    """A small finished run, to be altered in copies."""
    cwd = tmp_path_factory.mktemp("cwd")
    succeed("train.py", *SMALL, "trainer=smoke", "hydra.run.dir=run", cwd=cwd, cache=cache)
    return cwd / "run"


def copy_as_stopped(run, folder):
    """Copy a run; the copy's state says that it was stopped."""
    shutil.copytree(run, folder)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"state": "interrupted"}))
    return folder
