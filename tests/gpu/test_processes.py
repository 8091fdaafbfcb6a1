"""Processes on a GPU: a run that is killed, jobs side by side, DDP, prediction."""

import json
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from fer_lightning.inference.predictor import FERPredictor
from fer_lightning.training.classifier import FERClassifier
from tests.commands import TINY, succeed
from tests.faults.test_kills import kill_and_compare
from tests.gpu.conftest import CUDA

pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning"),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The home folder of the commands."""
    return tmp_path_factory.mktemp("home")


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["cnn", "rnn"])
def test_killed_and_resumed_on_a_gpu_gives_the_same_bits(model, cuda, cache, tmp_path):
    kill_and_compare(model, [signal.SIGKILL], seed=0, cwd=tmp_path, cache=cache, extra=("trainer=gpu",))


@pytest.mark.gpu
def test_jobs_side_by_side_share_one_gpu(cuda, cache, tmp_path):
    parallel = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep")
    settings = (*TINY, "trainer=gpu", "trainer.max_epochs=2", "logger=none")
    succeed("train.py", "-m", "model=mlp,cnn", *settings, *parallel, cwd=tmp_path, cache=cache)
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("sweep/*/run.json"))]
    assert [record["state"] for record in records] == ["finished", "finished"]
    assert {record["machine"]["accelerator"] for record in records} == {torch.cuda.get_device_name()}


@pytest.mark.gpu
def test_one_process_of_ddp_trains_on_a_gpu(cuda, cache, tmp_path):
    settings = (*TINY, "model=mlp", "trainer=ddp", "trainer.max_epochs=1", "logger=none")
    succeed("train.py", *settings, "hydra.run.dir=run", cwd=tmp_path, cache=cache)
    assert json.loads((tmp_path / "run/run.json").read_text())["state"] == "finished"


@pytest.mark.parametrize("where", ["cpu", CUDA])
def test_predict_uses_the_gpu_where_there_is_one(where, request, make_checkpoint, tmp_path, monkeypatch):
    if where == "cuda":
        request.getfixturevalue("cuda")
    path, module = make_checkpoint()
    image = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    Image.fromarray(image).save(tmp_path / "face.png")
    forward, devices = FERClassifier.forward, []

    def watched(self, images):
        devices.append(images.device.type)
        return forward(self, images)

    monkeypatch.setattr(FERClassifier, "forward", watched)
    (face,) = FERPredictor.load(path, detector="none")(tmp_path / "face.png")
    assert devices == [where]
    expected = module(torch.from_numpy(image)[None, None]).softmax(dim=1)[0, -1]
    assert list(face.probs.values())[-1] == pytest.approx(expected.item(), abs=1e-4)
