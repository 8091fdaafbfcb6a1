"""Packing a finished run into the files of a network, on synthetic faces."""

import json
import shutil

import pytest

from fer_lightning import build
from fer_lightning.core.errors import FERError
from fer_lightning.inference.network import load_network
from fer_lightning.inference.pack import pack_run
from tests.commands import TINY, succeed

NETWORK = ("model=mlp", "model.hidden=[32]", "trainer.precision=32-true")
SETTINGS = (*NETWORK, *TINY, "data.source.num_val=140", "logger=none")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run."""
    cwd, cache = tmp_path_factory.mktemp("cwd"), tmp_path_factory.mktemp("home")
    succeed("train.py", *SETTINGS, "trainer.max_epochs=4", "hydra.run.dir=run", cwd=cwd, cache=cache)
    return cwd / "run"


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, _, _ = build([*SETTINGS, f"data.cache_dir='{tmp_path}/cache'"])
    data.prepare_data()
    data.setup("test")
    return data


@pytest.mark.filterwarnings("ignore:.*num_workers.*", "ignore:.*isinstance.*")
def test_packed_run_predicts_as_its_run_did(run, data, tmp_path):
    description = pack_run(run, data, tmp_path / "small")
    of_run = json.loads((run / "metrics.json").read_text())
    for split in ("val", "test"):
        found = description["metrics"][split]
        assert found["acc"] == pytest.approx(of_run[split]["acc"], abs=1.5 / found["n"])  # of float16
        assert description["metrics_of_run"][split]["acc"] == of_run[split]["acc"]
        recalls = {name: facts["recall"] for name, facts in of_run[split]["per_class"].items()}
        assert found["recall"] == pytest.approx(recalls, abs=0.21)  # one of 5 or 6 images
    assert json.loads((tmp_path / "small.json").read_text()) == description
    assert "small.safetensors" in (tmp_path / "small.md").read_text()
    network = load_network(tmp_path / "small.safetensors")
    assert network.calibration.temperature == description["calibration"]["temperature"]
    assert str(run.parent) not in json.dumps(description)


def test_run_of_other_data_or_unfinished_is_refused(run, data, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    (tmp_path / "run/run.json").write_text(json.dumps(record | {"state": "failed"}))
    with pytest.raises(FERError, match="not a finished run"):
        pack_run(tmp_path / "run", data, tmp_path / "small")
    object.__setattr__(data.faces, "fingerprint", "0" * 32)
    with pytest.raises(FERError, match="trained on other data than these"):
        pack_run(run, data, tmp_path / "small")
    assert not (tmp_path / "small.safetensors").exists()
