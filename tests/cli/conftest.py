import pytest


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The home folder of the commands of one module."""
    return tmp_path_factory.mktemp("home")
