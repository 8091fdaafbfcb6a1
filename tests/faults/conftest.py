"""What the tests of faults share: a home folder for the commands, and each test's row of docs/faults.md."""

import pytest

from tests.faults.promises import promises


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """The home folder of the commands: where decoded faces are kept."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def promise(request):
    """The row of docs/faults.md that names this test."""
    return promises()[f"{request.path.name}::{request.node.name}"]
