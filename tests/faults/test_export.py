"""Faults of ``fer-lightning export`` and of ONNX files."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from tests.commands import run, succeed
from tests.slow import slow_except

EXPORT = ("-m", "fer_lightning.export")


@pytest.fixture(scope="module")
def exported(trained, cache, tmp_path_factory):
    """An ONNX file of the small run, to be altered in copies."""
    cwd = tmp_path_factory.mktemp("exported")
    succeed(*EXPORT, trained, "--out", "out", cwd=cwd, cache=cache)
    return cwd / "out/model.onnx"


def described(path, change):
    """Change the description in an ONNX file, or replace it by a text."""
    model = onnx.load(path)
    (entry,) = (entry for entry in model.metadata_props if entry.key == "fer_lightning")
    if isinstance(change, str):
        entry.value = change
    else:
        content = json.loads(entry.value)
        change(content)
        entry.value = json.dumps(content)
    return model.SerializeToString()


def foreign(_):
    """An ONNX file of another program."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [info("x", TensorProto.FLOAT, [1])],
        [info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return model.SerializeToString()


def other_graph(path):
    """The description of our file in a graph that computes something else."""
    model = onnx.load_model_from_string(foreign(path))
    helper.set_model_props(model, {each.key: each.value for each in onnx.load(path).metadata_props})
    return model.SerializeToString()


def outside(path):
    """Weights that are read from another file of the machine."""
    model = onnx.load(path)
    tensor = next(each for each in model.graph.initializer if len(each.raw_data) > 1000)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    return model.SerializeToString()


HOSTILE = {
    "cut": lambda path: path.read_bytes()[:2000],
    "text": lambda path: b"hello",
    "foreign": foreign,
    "other graph": other_graph,
    "outside": outside,
    "no json": lambda path: described(path, "{"),
    "long": lambda path: described(path, "x" * 2_000_000),
    "temperature": lambda path: described(path, lambda it: it["calibration"].update(temperature=1e9)),
    "incomplete": lambda path: described(path, lambda it: it.pop("checkpoint")),
    "schema": lambda path: described(path, lambda it: it.update(schema=9)),
    "target": lambda path: described(
        path, lambda it: it["checkpoint"]["config"]["data"].update(_target_="os.mkdir")
    ),
    "classes": lambda path: described(path, lambda it: it["checkpoint"].update(classes=["a", "b"])),
}


@pytest.mark.parametrize("kind", slow_except(("cut", "other graph", "outside", "target", "classes"), HOSTILE))
def test_damaged_or_hostile_onnx_file_is_refused(kind, exported, fault_row, cache, tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(100_000))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/model.onnx").write_bytes(HOSTILE[kind](exported))
    fault_row.check(run("eval.py", "checkpoint=in/model.onnx", cwd=tmp_path, cache=cache))


def test_export_into_a_folder_with_other_files_is_refused(trained, fault_row, cache, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("mine")
    fault_row.check(run(*EXPORT, trained, "--out", "out", cwd=tmp_path, cache=cache))
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "thesis.tex"]


def test_int8_without_training_images_is_refused(fault_row, cache, tmp_path):
    fault_row.check(run(*EXPORT, "--format", "onnx-int8", "--out", "out", cwd=tmp_path, cache=cache))
    assert not list(tmp_path.iterdir())


def test_given_data_of_an_export_that_are_not_there_are_named(fault_row, cache, tmp_path):
    fault_row.check(run(*EXPORT, "--data", "nowhere", "--out", "out", cwd=tmp_path, cache=cache))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_export_without_onnx_names_the_command_that_installs_it(trained, fault_row, cache, tmp_path):
    (tmp_path / "onnx.py").write_text("raise ImportError('no onnx')\n")  # shadows the library
    fault_row.check(run(*EXPORT, trained, "--out", "out", cwd=tmp_path, cache=cache, fresh=True))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_file_that_answers_otherwise_leaves_nothing(trained, fault_row, cache, tmp_path):
    """A program that shadows ONNX Runtime and answers a little otherwise."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.abc, sys\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'fer_lightning.inference.export.export':\n"
        "            import fer_lightning.inference.onnx_network as it\n"
        "            right = it.OnnxNetwork.__call__\n"
        "            it.OnnxNetwork.__call__ = lambda self, images: right(self, images) + 0.001\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    path = f"{tmp_path}:{run.__globals__['ROOT']}"
    done = run(*EXPORT, trained, "--out", "out", cwd=tmp_path, cache=cache, fresh=True, PYTHONPATH=path)
    fault_row.check(done)
    assert [path.name for path in tmp_path.iterdir()] == ["sitecustomize.py"]


def test_network_of_nan_is_not_exported(trained, fault_row, cache, tmp_path):
    import torch

    content = torch.load(trained / "best.ckpt", weights_only=True)
    for value in content["state_dict"].values():
        if value.is_floating_point() and value.ndim:
            value.fill_(np.nan)
    torch.save(content, tmp_path / "nan.ckpt")
    fault_row.check(run(*EXPORT, "nan.ckpt", "--out", "out", cwd=tmp_path, cache=cache))
    assert not (tmp_path / "out").exists()


def test_an_onnx_file_cannot_be_explained(exported, fault_row, cache, tmp_path):
    face = tmp_path / "face.png"
    Image.fromarray(np.full((16, 16), 90, np.uint8)).save(face)
    command = ("-m", "fer_lightning.predict", face, "--checkpoint", exported, "--detector", "none")
    fault_row.check(run(*command, "--save", "saved", "--explain", cwd=tmp_path, cache=cache))
    assert not (tmp_path / "saved").exists()
    done = succeed(*command, "--json", cwd=tmp_path, cache=cache)
    (found,) = json.loads(done.stdout)["predictions"]
    assert sum(found["probs"].values()) == pytest.approx(1, abs=1e-5)
    assert "trained on synthetic faces" in done.stderr
