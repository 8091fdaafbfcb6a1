"""The command ``export``, and what eval.py says of its files."""

import json

import numpy as np
import pytest
import torch

from fer_lightning.cli.export import main
from fer_lightning.inference.export import images
from fer_lightning.inference.onnx_network import OnnxNetwork
from fer_lightning.training.checkpoint import read_checkpoint
from tests.commands import TINY, run, sentence, succeed
from tests.slow import slow_except

EXPORT = ("-m", "fer_lightning.export")
SMALL = (*TINY, "data.image_size=16", "logger=none", "trainer.precision=32-true", "trainer.max_epochs=2")


@pytest.fixture(scope="module")
def place(cache, tmp_path_factory):
    """A folder with a finished run of an MLP, exported in two formats."""
    cwd = tmp_path_factory.mktemp("cwd")
    succeed(
        "train.py", "model=mlp", "model.hidden=[16]", *SMALL, "data.val_fraction=0.2", "data.drop_leaks=true",
        "classifier.flip_test=true", "seed=3", "hydra.run.dir=run", cwd=cwd, cache=cache,
    )  # fmt: skip
    done = succeed(*EXPORT, "run", cwd=cwd, cache=cache)
    assert "batch 64" in done.stdout
    assert "42 test images of synthetic" in done.stdout
    succeed(
        "-m", "fer_lightning", "export", "run", "--format", "safetensors", "--out", "st", cwd=cwd, cache=cache
    )
    return cwd


@pytest.fixture(scope="module")
def onnx_file(place):
    return place / "outputs/export/run-onnx/model.onnx"


def results_of(folder, split="test"):
    with np.load(folder / f"predictions_{split}.npz") as arrays:
        return json.loads((folder / "metrics.json").read_text()), dict(arrays)


@pytest.mark.parametrize("split", slow_except(["test"], ["test", "val"]))
def test_evaluation_of_exports_equals_that_of_the_checkpoint(place, onnx_file, cache, tmp_path, split):
    checkpoints = f"[{place}/run,{onnx_file},{place}/st]"
    succeed(
        "eval.py",
        f"checkpoint={checkpoints}",
        f"split={split}",
        "hydra.run.dir=out",
        cwd=tmp_path,
        cache=cache,
    )
    folders = [tmp_path / "out" / name for name in ("0_run", "1_run-onnx", "2_st")]
    (first, expected), *others = (results_of(folder, split) for folder in folders)
    for metrics, arrays in others:
        assert arrays["probs"] == pytest.approx(expected["probs"], abs=1e-6)
        assert arrays.keys() == expected.keys()
        for key in ("ids", "labels", "leaked", "near_leaked", "classes", "status"):
            assert (arrays[key] == expected[key]).all(), key
        assert metrics[split].keys() == first[split].keys()
        for key in ("acc", "n", "leak_free", "leak_free_near", "confusion"):
            if key.startswith("leak_free"):
                assert metrics[split][key]["acc"] == first[split][key]["acc"]
                assert metrics[split][key]["n"] == first[split][key]["n"]
            else:
                assert metrics[split][key] == first[split][key]
        for key in ("dataset", "synthetic", "limited", "selected_by", "best_epoch"):
            assert metrics[key] == first[key]
    record = json.loads((folders[1] / "run.json").read_text())
    assert record["precision"] == "32-true"
    assert record["checkpoint"] == str(onnx_file)
    assert (folders[1] / "report.html").is_file()


def test_training_images_are_found_again_by_their_hash(place, onnx_file):
    _, metadata = read_checkpoint(place / "run/best.ckpt")
    described = OnnxNetwork(onnx_file).description["training_images"]
    assert described["trained_on"] == len(np.unique(metadata.trained_on))
    assert described["selected_on"] == len(np.unique(metadata.selected_on)) > 0


def test_predictor_onnx_takes_onnx_files_only(place, onnx_file, cache, tmp_path):
    succeed(
        "eval.py", "predictor=onnx", f"checkpoint={onnx_file}", "hydra.run.dir=out", cwd=tmp_path, cache=cache
    )
    assert json.loads((tmp_path / "out/run.json").read_text())["predictor"] == "onnx"
    done = run("eval.py", "predictor=onnx", f"checkpoint={place}/run", cwd=tmp_path, cache=cache)
    assert "predictor=onnx takes .onnx files" in sentence(done)


def test_on_other_data_leak_free_accuracy_is_unknown(place, onnx_file, cache, tmp_path):
    succeed(
        "eval.py", f"checkpoint={onnx_file}", "data=synthetic", "data.source.seed=5",
        "data.source.num_train=14", "data.source.num_val=14", "data.source.num_test=70",
        "hydra.run.dir=out", cwd=tmp_path, cache=cache,
    )  # fmt: skip
    metrics, arrays = results_of(tmp_path / "out")
    assert metrics["test"]["n"] == 70
    assert metrics["test"]["leak_free"] is None
    assert "does not hold which images trained" in metrics["test"]["leak_free_near_reason"]
    assert "near_leaked" not in arrays


def test_training_images_that_were_others_are_noticed(place, cache, tmp_path):
    """As after init_from, whose images are in no split of this data set."""
    content = torch.load(place / "run/best.ckpt", weights_only=True)
    content["fer_lightning"]["trained_on"] = torch.cat(
        [content["fer_lightning"]["trained_on"], torch.tensor([7])]
    )
    torch.save(content, tmp_path / "other.ckpt")
    succeed(*EXPORT, "other.ckpt", "--out", "out", cwd=tmp_path, cache=cache)
    succeed("eval.py", "checkpoint=out", "hydra.run.dir=eval", cwd=tmp_path, cache=cache)
    metrics, _ = results_of(tmp_path / "eval")
    assert metrics["test"]["leak_free"] is None
    assert "as after init_from" in metrics["test"]["leak_free_near_reason"]


def test_card_has_the_results_of_the_run(place, onnx_file):
    card = (onnx_file.parent / "README.md").read_text()
    measured = json.loads((place / "run/metrics.json").read_text())["test"]
    low, high = measured["ci95"]["acc"]
    assert f"| test | 42 | {100 * measured['acc']:.2f} % | {100 * low:.1f}-{100 * high:.1f} |" in card
    assert f"{100 * measured['leak_free']['acc']:.2f} % of {measured['leak_free']['n']}" in card
    assert "its predictions on photographs are meaningless" in card
    assert "python train.py model=mlp" in card
    assert str(place) not in card


@pytest.mark.parametrize(
    ("model", "method"),
    [pytest.param("cnn", "static QDQ per channel", marks=pytest.mark.slow), ("rnn", "dynamic")],
)
def test_int8_is_compared_with_float32(model, method, cache, tmp_path):
    small = {"cnn": ["model.widths=[8,16]", "model.hidden=16"], "rnn": ["model.hidden=16"]}[model]
    succeed("train.py", f"model={model}", *small, *SMALL, "hydra.run.dir=run", cwd=tmp_path, cache=cache)
    done = succeed(*EXPORT, "run", "--format", "onnx-int8", "--out", "out", cwd=tmp_path, cache=cache)
    assert "val accuracy: int8" in done.stdout
    assert "McNemar p = " in done.stdout
    card = (tmp_path / "out/README.md").read_text()
    assert f"Quantisation: {method}" in card
    assert "| 64 |" in card
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "model.onnx"]
    network = OnnxNetwork(tmp_path / "out/model.onnx")
    assert network.description["precision"] == "int8"
    succeed("eval.py", "checkpoint=[run,out]", "hydra.run.dir=eval", cwd=tmp_path, cache=cache)
    first, second = (results_of(tmp_path / "eval" / name)[0]["test"] for name in ("0_run", "1_out"))
    assert second["acc"] == pytest.approx(first["acc"], abs=4.5 / 42)
    assert json.loads((tmp_path / "eval/1_out/run.json").read_text())["precision"] == "int8"


@pytest.mark.slow
def test_without_its_data_a_network_is_verified_on_synthetic_faces(monkeypatch, tmp_path, capsys):
    """The shipped network, on 64 faces: 512 at four batch sizes take it twenty seconds."""
    monkeypatch.setattr(images, "NUM_IMAGES", 64)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FER2013_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    main(["--format", "safetensors", "--out", "out"])
    printed = capsys.readouterr().out
    assert "resnet15, which comes with fer_lightning" in printed
    assert "64 synthetic faces" in printed
    card = (tmp_path / "out/README.md").read_text()
    assert "Verified on 64 synthetic faces" in card
    assert card.startswith("---\nlicense: mit\n")
