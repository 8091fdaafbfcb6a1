"""Random and damaged input: a reader raises nothing but FERError, with one sentence."""

import contextlib
import copy
import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_lightning.config.checks import check_stored
from fer_lightning.config.stored import read_config
from fer_lightning.core.errors import FERError
from fer_lightning.data.decode import decode
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.data.readers.fer2013 import open_fer2013
from fer_lightning.data.readers.image_folder import ImageFolder
from fer_lightning.data.sampling import read_manifest
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.llm.replies import read_answer, read_reply
from fer_lightning.models.mlp import MLP
from fer_lightning.runs.folder import RunFolder, read_record
from fer_lightning.runs.sweep_resume import expand_resume
from fer_lightning.training.build import (
    build_callbacks,
    build_classifier,
    build_datamodule,
    build_trainer,
)
from fer_lightning.training.checkpoint import KEY, CheckpointMetadata, init_backbone, load_classifier
from fer_lightning.training.classifier import FERClassifier
from tests.chat_server import say

NUM_EXAMPLES = int(os.environ.get("FER_NUM_EXAMPLES", "30"))  # of each test; `make slow` sets 150

fuzzed = settings(
    max_examples=NUM_EXAMPLES,
    deadline=None,
    derandomize=True,  # a test that fails once fails always
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def broken(draw, whole):
    """Bytes of a whole file with some changed, cut out, doubled or put in; or any bytes at all."""
    data = bytearray(whole)
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=300))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["flip", "flip", "cut", "end", "insert", "double"]))
        if kind == "flip" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        elif kind == "end":
            del data[max(at, len(data) // 2) :]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=12))
        else:
            data[at:at] = data[at : at + 60]
    return bytes(data)


def places(node, above=()):
    """List the paths to all that a nested value holds."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        yield (*above, key)
        yield from places(value, (*above, key))


JUNK = (
    *(None, True, -1, 0, 3, 10**12, 1e300, float("nan"), "", "x", "<b>", "../..", "\x1b[31m"),
    *([], ["a"], [[1]], {}, {"a": 1}, {1: 2}, {"_target_": "os.system"}, {"_target_": "torch.optim.SGD"}),
)


@st.composite
def altered(draw, whole, junk=JUNK):
    """A nested value with one of its parts taken away, or another in its place."""
    content = copy.deepcopy(whole)
    *above, key = draw(st.sampled_from(list(places(content))))
    node = content
    for step in above:
        node = node[step]
    if draw(st.integers(0, 5)) == 0:
        del node[key]
    else:
        node[key] = copy.deepcopy(draw(st.sampled_from(junk)))
    return content


def only_sentences(read, *arguments, **settings):
    """Call a reader, which may refuse its input by a sentence and in no other way."""
    with contextlib.suppress(FERError):
        read(*arguments, **settings)


CONFIG = yaml.safe_load("""
seed: 0
monitor: val/acc
monitor_mode: max
init_from: null
model: {_target_: fer_lightning.models.mlp.MLP, num_classes: 7, image_size: 4, hidden: [2], dropout: 0.0}
classifier: {_target_: fer_lightning.training.classifier.FERClassifier, flip_test: false}
optimizer: {_target_: torch.optim.Adam, _partial_: true, lr: 0.001}
scheduler: {}
loss: {_target_: fer_lightning.training.losses.CrossEntropy, label_smoothing: 0.1}
callbacks:
  checkpoint: {_target_: fer_lightning.training.callbacks.ModelCheckpoint, monitor: val/acc, mode: max}
  progress: {_target_: fer_lightning.training.callbacks.ProgressBar}
compile: false
keep_epochs: false
save_every_steps: null
save_every_minutes: null
early_stopping: null
trainer: {_target_: lightning.pytorch.Trainer, accelerator: cpu, devices: 1, precision: 32-true,
  max_epochs: 2, deterministic: false, limit_predict_batches: 1.0}
data:
  _target_: fer_lightning.data.datamodule.FERDataModule
  name: synthetic
  source: {_target_: fer_lightning.data.synthetic.source.SyntheticFaces, _partial_: true, num_train: 9}
  classes: [angry, disgust, fear, happy, neutral, sad, surprise]
  num_classes: 7
  image_size: 4
  protocol: official
  val_fraction: 0.0
  batch_size: 2
  eval_batch_size: 2
  augment: {_target_: fer_lightning.data.augment.Augment, flip: 0.5}
  cache_dir: nowhere
  on_bad: error
  seed: 0
""")


SMALL = {key: value for key, value in CONFIG["model"].items() if key != "_target_"}


def describe():
    """A checkpoint's content."""
    backbone = MLP(**SMALL)
    origin = CheckpointMetadata(
        config=CONFIG, classes=EXPRESSIONS, fingerprint="0" * 32, trained_on=np.array([1], np.uint64),
        selected_on=np.array([5], np.uint64), selected_by="val/acc", epoch=0, score=0.5,
        precision="32-true", channels_last=False,
    )  # fmt: skip
    module = FERClassifier(backbone=backbone, classes=EXPRESSIONS, mean=0.4, std=0.2)
    return {"state_dict": dict(module.state_dict()), KEY: origin.to_plain()}


def checkpoint():
    buffer = io.BytesIO()
    torch.save(describe(), buffer)
    return buffer.getvalue()


def picture(kind, side=8):
    buffer = io.BytesIO()
    pixels = np.arange(side * side, dtype=np.uint8).reshape(side, side)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def archive(compression, *, mark=""):
    """A zip of faces; every name contains ``mark``, which makes it UTF-8 if it is not ASCII."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for split, prefix in (("train", "Training"), ("test", "PublicTest"), ("test", "PrivateTest")):
            for number, name in enumerate(EXPRESSIONS):
                file.writestr(f"{split}/{name}/{prefix}_{number}{mark}.png", picture("PNG"))
    return buffer.getvalue()


def table():
    rows = [
        f"{label},{' '.join(['7'] * 63 + [str(label)])},{usage}"
        for usage in ("Training", "PublicTest", "PrivateTest")
        for label in range(7)
    ]
    return "\n".join(["emotion,pixels,Usage", *rows, ""]).encode()


def read_all(root):
    source = open_fer2013(root=root, classes=EXPRESSIONS, image_size=8)
    for record in source.records():
        only_sentences(record.pixels)


@fuzzed
@given(data=broken(checkpoint()))
def test_checkpoints(data, tmp_path):
    (tmp_path / "best.ckpt").write_bytes(data)
    only_sentences(load_classifier, tmp_path / "best.ckpt")


def use_checkpoint(path):
    """Do with it what predict, eval.py and init_from do."""
    only_sentences(init_backbone, MLP(**SMALL), path, EXPRESSIONS, lambda _: None)
    classifier, metadata = load_classifier(path)
    side = metadata.config["model"]["image_size"]
    classifier(torch.zeros(1, 1, side, side))
    check_stored(metadata.config, path, trains=False)
    build_datamodule(metadata.config["data"])


TENSORS = (torch.zeros(2), torch.zeros(2, 2, dtype=torch.int64), torch.zeros(3, dtype=torch.complex64))


@fuzzed
@given(content=altered(describe(), (*JUNK, *TENSORS)))
def test_checkpoints_that_say_something_else(content, tmp_path):
    torch.save(content, tmp_path / "best.ckpt")
    only_sentences(use_checkpoint, tmp_path / "best.ckpt")


def use_config(path):
    """Do with it what ``resume`` does."""
    config = read_config(path)
    check_stored(config, path, trains=True)
    config = CONFIG | config
    build_classifier(config)
    build_datamodule(config["data"])
    build_trainer(config, path.parent, build_callbacks(config), [])


@fuzzed
@given(drawn=st.data())
def test_configs_of_runs(drawn, tmp_path):
    (tmp_path / "config.yaml").write_bytes(drawn.draw(broken(yaml.safe_dump(CONFIG).encode())))
    only_sentences(use_config, tmp_path / "config.yaml")


@settings(fuzzed, max_examples=NUM_EXAMPLES // 3)  # each builds every part
@given(config=altered(CONFIG))
def test_configs_that_say_something_else(config, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    only_sentences(use_config, tmp_path / "config.yaml")


ARCHIVES = {
    "stored": archive(zipfile.ZIP_STORED),
    "deflated": archive(zipfile.ZIP_DEFLATED),
    "lzma": archive(zipfile.ZIP_LZMA),
    "not ASCII": archive(zipfile.ZIP_STORED, mark="é" * 20),
}


@pytest.mark.parametrize("kind", ARCHIVES)
@fuzzed
@given(drawn=st.data())
def test_archives(kind, drawn, tmp_path):
    (tmp_path / "archive.zip").write_bytes(drawn.draw(broken(ARCHIVES[kind])))
    only_sentences(read_all, tmp_path / "archive.zip")


@st.composite
def altered_within(draw, whole):
    """A zip whole but for a byte or a few of its members' headers and contents: its directory still reads."""
    data, end = bytearray(whole), whole.index(b"PK\1\2")
    for _ in range(draw(st.integers(1, 4))):
        data[draw(st.integers(0, end - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@pytest.mark.parametrize("kind", ARCHIVES)
@fuzzed
@given(drawn=st.data())
def test_archives_of_altered_members(kind, drawn, tmp_path):
    (tmp_path / "archive.zip").write_bytes(drawn.draw(altered_within(ARCHIVES[kind])))
    only_sentences(read_all, tmp_path / "archive.zip")


def test_a_file_without_a_name_in_an_archive_is_overlooked(tmp_path):
    name = b"test/sad/PrivateTest_5.png"
    nameless = archive(zipfile.ZIP_STORED).replace(name, b"\0" + name[1:])
    (tmp_path / "archive.zip").write_bytes(nameless)
    source = open_fer2013(root=tmp_path / "archive.zip", classes=EXPRESSIONS, image_size=8)
    assert len(list(source.records())) == 20


@fuzzed
@given(data=broken(table()))
def test_tables(data, tmp_path):
    (tmp_path / "fer2013.csv").write_bytes(data)
    only_sentences(read_all, tmp_path / "fer2013.csv")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"])
@fuzzed
@given(drawn=st.data())
def test_pictures(kind, drawn):
    only_sentences(decode, drawn.draw(broken(picture(kind))), size=8, exact=True)


@fuzzed
@given(
    names=st.lists(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12),
        max_size=6,
    )
)
def test_folders_of_any_names(names, tmp_path_factory):
    root = tmp_path_factory.mktemp("faces")
    for number, name in enumerate(names):
        folder = root / name
        if name not in (".", "..") and not folder.exists():
            folder.mkdir()
            (folder / f"{number}.png").write_bytes(picture("PNG"))

    def read():
        source = ImageFolder(root=root, classes=EXPRESSIONS, image_size=8, val_ratio=0.2, test_ratio=0.2)
        for record in source.records():
            only_sentences(record.pixels)

    only_sentences(read)


@fuzzed
@given(text=st.text(max_size=200))
def test_any_text_is_an_answer_or_none(text):
    reply = read_answer(text, EXPRESSIONS)
    assert (reply.label in range(7)) == (reply.status == "ok")


@fuzzed
@given(data=broken(say("happy").body.encode()))
def test_bodies_of_replies(data):
    reply = read_reply(data.decode(errors="replace"), EXPRESSIONS)
    assert reply.status


@fuzzed
@given(
    data=broken(
        b"id,label,hash\ntest/happy/1.png,happy,00000000000000ff\ntest/sad/2.png,sad,0000000000000001\n"
    )
)
def test_lists_of_images(data, tmp_path):
    (tmp_path / "sample.csv").write_bytes(data)
    only_sentences(read_manifest, tmp_path / "sample.csv")


RECORD = {
    "schema": 1, "state": "running", "overrides": ["seed=1"], "hydra": ["hydra/launcher=joblib"],
    "resumed": ["2026-01-01"], "durations": {"fit_s": 1.0}, "limited": ["trainer=smoke"],
    "segments": [{"git": {"commit": "a"}, "versions": {"torch": "2"}}],
}  # fmt: skip


def use_record(folder):
    """Do with it what a run does that goes on in its folder."""
    run = RunFolder(folder)
    try:
        run.start()
        with run.stage("fit_s"):
            pass
        run.end("finished")
    finally:
        run.release()


def use_sweep(folder):
    """Do with it what ``resume`` does; it ends the command by its sentence."""
    with contextlib.suppress(SystemExit):
        expand_resume([f"resume={folder}"])


RECORDS = [("run.json", read_record), ("run.json", use_record), ("sweep.json", use_sweep)]


@pytest.mark.parametrize(("name", "read"), RECORDS)
@fuzzed
@given(drawn=st.data())
def test_records(name, read, drawn, tmp_path):
    (tmp_path / name).write_bytes(drawn.draw(broken(json.dumps(RECORD).encode())))
    only_sentences(read, tmp_path)


@pytest.mark.parametrize(("name", "read"), RECORDS)
@fuzzed
@given(record=altered(RECORD))
def test_records_that_say_something_else(name, read, record, tmp_path):
    (tmp_path / name).write_text(json.dumps(record))
    only_sentences(read, tmp_path)


def saved_predictions(folder):
    Predictions(
        ids=np.array(["test/happy/1", "test/sad/2"]),
        labels=np.array([3, 5]),
        probs=np.full((2, 7), 1 / 7, np.float32),
        status=np.array(["ok", "ok"]),
        leaked=np.array([False, True]),
        classes=EXPRESSIONS,
    ).save(folder / "predictions.npz")
    return (folder / "predictions.npz").read_bytes()


def repacked(data, compression):
    """The same zip, each member packed by another method."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return buffer.getvalue()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_LZMA], ids=["stored", "lzma"])
@fuzzed
@given(drawn=st.data())
def test_predictions(compression, drawn, tmp_path):
    whole = repacked(saved_predictions(tmp_path), compression)
    (tmp_path / "predictions.npz").write_bytes(drawn.draw(broken(whole)))
    only_sentences(Predictions.load, Path(tmp_path / "predictions.npz"))
