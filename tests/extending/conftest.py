"""Fixtures of the tests of extensions: the modules that docs/extending.md shows, as a package of the user."""

import logging
import re
import sys

import pytest

from tests.commands import ROOT

MINE = """
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers.logger import Logger
from torch import nn


class Count(Callback):
    def __init__(self, *, at=1):
        self.at, self.batches = at, 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batches += 1

    def on_train_end(self, trainer, pl_module):
        print(f"counted {self.batches} batches")

    def state_dict(self):
        return {"batches": self.batches}

    def load_state_dict(self, state_dict):
        self.batches = state_dict["batches"]


class Lines(Logger):
    name, version = "lines", "0"

    def __init__(self, *, path, fails_in=""):
        super().__init__()
        self.path, self.fails_in = path, fails_in

    def write(self, method, *values):
        if method == self.fails_in:
            raise OSError("the server does not answer")
        with open(self.path, "a") as file:
            print(method, *values, file=file)

    def log_metrics(self, metrics, step=None):
        self.write("metrics", step, metrics)

    def log_hyperparams(self, params):
        self.write("config", params)

    def finalize(self, status):
        self.write("end", status)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, logits, targets):
        return nn.functional.cross_entropy(self.scale * logits, targets)


class PerImage(nn.Module):
    def forward(self, logits, targets):
        return nn.functional.cross_entropy(logits, targets, reduction="none")
"""

SMALL = ("model=mlp", "model.hidden=[16]", "data.image_size=16", "data.batch_size=32", "trainer.max_epochs=2")


def documented_modules():
    """The modules of docs/extending.md, by path."""
    text = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    return dict(re.findall(r"```python\n# (my_package/\w+\.py)\n(.*?)```", text, re.DOTALL))


@pytest.fixture(scope="session")
def my_package(tmp_path_factory):
    """The folder that holds ``my_package``, to be put on the path."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "my_package").mkdir()
    (folder / "my_package/__init__.py").touch()
    (folder / "my_package/mine.py").write_text(MINE)
    for path, code in documented_modules().items():
        (folder / path).write_text(code)
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """The home folder of the commands, in which decoded images are cached."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def importable(my_package, monkeypatch):
    """``my_package`` within this process."""
    monkeypatch.syspath_prepend(str(my_package))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]


@pytest.fixture
def path_of(my_package):
    """The environment of a command that can import ``my_package``."""
    return {"PYTHONPATH": f"{ROOT}:{my_package}"}


@pytest.fixture(autouse=True)
def _quiet_lightning(monkeypatch):
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "level", logging.ERROR)
