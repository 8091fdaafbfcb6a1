"""Fixtures of the tests of faults: a home folder for the commands, and the row of docs/faults.md."""

import pytest

from tests.faults.fault_table import read_faults


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """The home folder of the commands, in which decoded images are cached."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def fault_row(request):
    """The row of docs/faults.md that names this test."""
    return read_faults()[f"{request.path.name}::{request.node.name}"]
