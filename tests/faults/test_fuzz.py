"""Random and half-broken input: whatever a reader is given, it raises nothing but a sentence."""

import contextlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_lightning.checkpoint import KEY, Origin, load_classifier
from fer_lightning.classifier import FERClassifier
from fer_lightning.data.decode import decode
from fer_lightning.data.image_folder import ImageFolder
from fer_lightning.data.sources import open_fer2013
from fer_lightning.errors import FERError
from fer_lightning.labels import EXPRESSIONS
from fer_lightning.models.mlp import MLP
from fer_lightning.predictions import Predictions
from fer_lightning.replies import read_answer, read_reply
from fer_lightning.run import read_record
from fer_lightning.sample import read_manifest
from fer_lightning.sweep import read_sweep
from tests.chat_server import say

fuzzed = settings(
    max_examples=150,
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


def only_sentences(read, *arguments, **settings):
    """Call a reader, which may refuse its input by a sentence and in no other way."""
    with contextlib.suppress(FERError):
        read(*arguments, **settings)


def checkpoint():
    backbone = MLP(num_classes=7, image_size=4, hidden=[2], dropout=0.0)
    origin = Origin(
        config={"model": {"_target_": "fer_lightning.models.mlp.MLP", "num_classes": 7, "image_size": 4,
                          "hidden": [2], "dropout": 0.0}},
        classes=EXPRESSIONS, fingerprint="0" * 32, trained_on=np.array([1], np.uint64),
        selected_on=np.array([5], np.uint64), selected_by="val/acc", epoch=0, score=0.5,
        precision="32-true", channels_last=False,
    )  # fmt: skip
    module = FERClassifier(backbone=backbone, classes=EXPRESSIONS, mean=0.4, std=0.2)
    buffer = io.BytesIO()
    torch.save({"state_dict": module.state_dict(), KEY: origin.to_plain()}, buffer)
    return buffer.getvalue()


def picture(kind, side=8):
    buffer = io.BytesIO()
    pixels = np.arange(side * side, dtype=np.uint8).reshape(side, side)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def archive(compression):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for split, prefix in (("train", "Training"), ("test", "PublicTest"), ("test", "PrivateTest")):
            for number, name in enumerate(EXPRESSIONS):
                file.writestr(f"{split}/{name}/{prefix}_{number}.png", picture("PNG"))
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


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@fuzzed
@given(drawn=st.data())
def test_archives(compression, drawn, tmp_path):
    (tmp_path / "archive.zip").write_bytes(drawn.draw(broken(archive(compression))))
    only_sentences(read_all, tmp_path / "archive.zip")


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


RECORD = json.dumps({"schema": 1, "state": "running", "overrides": ["seed=1"], "durations": {"fit_s": 1.0}})


@pytest.mark.parametrize(("name", "read"), [("run.json", read_record), ("sweep.json", read_sweep)])
@fuzzed
@given(drawn=st.data())
def test_records(name, read, drawn, tmp_path):
    (tmp_path / name).write_bytes(drawn.draw(broken(RECORD.encode())))
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


@fuzzed
@given(drawn=st.data())
def test_predictions(drawn, tmp_path):
    (tmp_path / "predictions.npz").write_bytes(drawn.draw(broken(saved_predictions(tmp_path))))
    only_sentences(Predictions.load, Path(tmp_path / "predictions.npz"))
