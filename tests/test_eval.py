import json
import pickle

import numpy as np
import pytest
import torch

from tests.commands import TINY, run, sentence, succeed


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def trained(cache, tmp_path_factory):
    """The folder of a finished run."""
    cwd = tmp_path_factory.mktemp("cwd")
    succeed(
        "train.py", "model=mlp", *TINY, "trainer.max_epochs=2", "logger=none", "hydra.run.dir=run",
        cwd=cwd, cache=cache,
    )  # fmt: skip
    return cwd / "run"


def test_the_test_split_gives_exactly_what_training_reported(trained, cache, tmp_path):
    done = succeed(
        "eval.py", f"checkpoint={trained}/best.ckpt", "hydra.run.dir=out", cwd=tmp_path, cache=cache
    )
    told, again = (
        json.loads((folder / "metrics.json").read_text())["test"] for folder in (trained, tmp_path / "out")
    )
    assert again == told
    first, second = (np.load(folder / "predictions_test.npz") for folder in (trained, tmp_path / "out"))
    with first, second:
        assert all((first[key] == second[key]).all() for key in first.files)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "metrics.json", "predictions_test.npz", "report.html", "figures", "run.json", "config.yaml",
        "eval.log",
    }  # fmt: skip
    assert "test accuracy" in done.stdout


@pytest.mark.parametrize(("split", "n"), [("val", 35), ("train", 140), ("all", 217)])
def test_other_splits(trained, cache, tmp_path, split, n):
    succeed(
        "eval.py", f"checkpoint={trained}", f"split={split}", "hydra.run.dir=out", cwd=tmp_path, cache=cache
    )
    measured = json.loads((tmp_path / "out/metrics.json").read_text())[split]
    assert measured["n"] == n
    # Every training image was seen in training; of `all`, the training and the selecting ones were.
    assert measured["leak_free"]["n"] == {"val": 35, "train": 0, "all": 42}[split]


def test_several_checkpoints_give_a_row_each(trained, cache, tmp_path):
    done = succeed(
        "eval.py", f"checkpoint=[{trained}/best.ckpt,{trained}/last.ckpt]", "hydra.run.dir=out",
        cwd=tmp_path, cache=cache,
    )  # fmt: skip
    assert len(list((tmp_path / "out").glob("*/metrics.json"))) == 2
    assert len((tmp_path / "out/summary.csv").read_text().splitlines()) >= 3
    assert (tmp_path / "out/report.html").is_file()
    assert "comparison" in done.stdout


def test_another_data_set_may_be_named_and_is_split_by_its_own_rules(trained, cache, tmp_path):
    succeed(
        "eval.py",
        f"checkpoint={trained}",
        "data.protocol=paper",
        "hydra.run.dir=paper",
        cwd=tmp_path,
        cache=cache,
    )
    assert json.loads((tmp_path / "paper/metrics.json").read_text())["test"]["n"] == 77
    succeed(
        "eval.py", f"checkpoint={trained}", *TINY[:-1], "data.source.seed=5", "hydra.run.dir=other",
        cwd=tmp_path, cache=cache,
    )  # fmt: skip
    first, other = (
        json.loads((folder / "run.json").read_text())["data"]["fingerprint"]
        for folder in (trained, tmp_path / "other")
    )
    assert first != other


class Payload:
    """Unpickled, it would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_bad_checkpoint_gets_a_sentence_and_executes_nothing(trained, cache, tmp_path):
    mark = tmp_path / "executed"
    (tmp_path / "hostile.ckpt").write_bytes(pickle.dumps({"state_dict": Payload(mark)}))
    torch.save({"state_dict": {}, "x": Payload(mark)}, tmp_path / "hostile_zip.ckpt")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    (tmp_path / "cut.ckpt").write_bytes((trained / "best.ckpt").read_bytes()[:5000])
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    described = torch.load(trained / "best.ckpt", weights_only=True)
    described["fer_lightning"]["config"]["model"] = {"_target_": "os.system", "command": f"touch {mark}"}
    torch.save(described, tmp_path / "target.ckpt")
    told = {}
    for name in ("hostile", "hostile_zip", "empty", "cut", "foreign", "target", "missing"):
        done = run(
            "eval.py", f"checkpoint={name}.ckpt", f"hydra.run.dir=out_{name}", cwd=tmp_path, cache=cache
        )
        told[name] = sentence(done)
        assert told[name].startswith("error: "), told[name]
        assert len(told[name].splitlines()) == 1, told[name]
        assert f"{name}.ckpt" in told[name] or "os.system" in told[name]
    assert not mark.exists()
    assert "refused" in told["hostile_zip"]
    assert "no such file" in told["missing"]
    assert "not a checkpoint of fer_lightning" in told["foreign"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("split=public",), "split=public: expected train, val, test or all"),
        (("data=fer2013", "data.root=nowhere"), "nowhere"),
        (("split=val", "data.protocol=paper"), "empty"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(trained, cache, tmp_path, arguments, told):
    done = run("eval.py", f"checkpoint={trained}", *arguments, "hydra.run.dir=out", cwd=tmp_path, cache=cache)
    assert told in sentence(done)
