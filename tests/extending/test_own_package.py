"""A package outside the repository: trained without more words, read from files only if it is trusted."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.commands import TINY, run, succeed
from tests.extending.conftest import SMALL
from tests.faults.test_kills import record_of

SETTINGS = (
    *TINY, *SMALL[2:], "logger=none", "trainer.limit_train_batches=2", "~model",
    "+model={_target_:my_package.net.Net,num_classes:7,image_size:16,width:4}",
    "classifier._target_=my_package.module.ScaledLoss", "+classifier.factor=0.5",
)  # fmt: skip
REFUSED = "is not allowed in a config read from a file"


@pytest.fixture(scope="module")
def trained(cache, my_package, tmp_path_factory):
    """The working directory of a run of the user's network and module, and how to call commands there."""
    cwd = tmp_path_factory.mktemp("cwd")
    place = {"cwd": cwd, "cache": cache, "PYTHONPATH": f"{succeed.__globals__['ROOT']}:{my_package}"}
    succeed("train.py", *SETTINGS, "hydra.run.dir=run", **place)
    return place


def test_checkpoint_is_evaluated_only_with_trust(trained):
    refused = run("eval.py", "checkpoint=run", "hydra.run.dir=no", **trained)
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)
    assert f"my_package.net.Net {REFUSED}" in refused.stderr
    assert "trust=[my_package]" in refused.stderr
    succeed("eval.py", "checkpoint=run", "trust=[my_package]", "hydra.run.dir=yes", **trained)
    one, other = (json.loads((trained["cwd"] / name / "metrics.json").read_text()) for name in ("run", "yes"))
    assert one["test"]["acc"] == other["test"]["acc"]


def test_checkpoint_predicts_only_with_trust(trained):
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(trained["cwd"] / "face.png")
    command = ("-m", "fer_lightning.predict", "face.png", "--detector", "none", "--checkpoint", "run")
    assert REFUSED in run(*command, **trained).stderr
    assert "happy" in succeed(*command, "--trust", "my_package", **trained).stdout


@pytest.mark.slow
def test_run_folder_resumes_only_with_trust_and_its_command_without(trained):
    folder = trained["cwd"] / "run"
    finished = record_of(folder)
    for words in (("resume=run", "trust=[my_package]"), (*SETTINGS, "hydra.run.dir=run", "resume=auto")):
        (folder / "run.json").write_text(json.dumps(finished | {"state": "interrupted"}))
        refused = run("train.py", "resume=run", **trained)
        assert REFUSED in refused.stderr, refused.stderr
        succeed("train.py", *words, **trained)
        assert record_of(folder)["state"] == "finished"


def test_reader_of_the_user_trains_on_soft_labels(trained):
    reader = (
        "~data.source", "+data.source={_target_:my_package.reader.Noise,_partial_:true,num:60}",
        "data.name=noise", "data.classes=[a,b]", "data.num_classes=2", *SMALL, "trainer.max_epochs=1",
    )  # fmt: skip
    succeed("train.py", *reader, "logger=none", "num_threads=1", "hydra.run.dir=soft", **trained)
    metrics = json.loads((trained["cwd"] / "soft/metrics.json").read_text())
    assert metrics["test"]["n"] == 20
