"""Faults of published data sets and of CSVs of images."""

import csv

import numpy as np
import pytest
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.data.cache import load_faces
from fer_lightning.data.readers.affectnet import AffectNet
from fer_lightning.data.readers.ckplus import CKPlus
from fer_lightning.data.readers.csv_images import CSVImages
from fer_lightning.data.readers.rafdb import COUNTS, RAFDB
from tests.commands import run


def refusal_of(source, folder):
    """Load a source; return what a command prints of its fault."""
    with pytest.raises(FERError) as caught:
        load_faces(source, cache_dir=folder / "cache", near_duplicates="ignore", log=print)
    return f"error: {caught.value}"


ROWS = [["a.png", "happy", "train"], ["b.png", "sad", "train"], ["c.png", "sad", "train"]]
BOX = ("left", "top", "width", "height")
# Header, rows, settings.
TABLES = {
    "name": (("path", "label"), [["a.png", "happy"], ["b.png", "bored"]], {}),
    "number": (("path", "label"), [["a.png", "0"], ["b.png", "1"]], {}),
    "votes": (("path", "happy", "sad", "contempt"), [["a.png", 1, 0, 9], ["b.png", 0, 3, 0]], {}),
    "path": (("path", "label", "split"), ROWS, {"path": "file"}),
    "label": (("path", "emotion", "split"), ROWS, {}),
    "split": (("path", "label", "split"), [*ROWS[:2], ["c.png", "sad", "dev"]], {}),
    "twice": (("path", "label", "split"), [*ROWS, ROWS[0]], {}),
    "class": (("path", "label", "split"), [ROWS[0], ["b.png", "sad", "test"]], {}),
    "box": (("path", "label", *BOX), [["a.png", "sad", 1, 1, 0, 4]], {}),
    "missing": (("path", "label", "split"), [*ROWS, ["d.png", "sad", "test"]], {}),
    "outside": (("path", "label", *BOX), [["a.png", "sad", 90, 0, 4, 4], ["c.png", "happy", 0, 0, 4, 4]], {}),
}


@pytest.mark.parametrize("kind", TABLES)
def test_csv_fault_is_one_sentence(kind, fault_row, tmp_path):
    header, rows, settings = TABLES[kind]
    with (tmp_path / "faces.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    for number, row in enumerate(rows):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        if not (kind == "missing" and row[0] == "b.png"):
            Image.fromarray(pixels).save(tmp_path / row[0])
    source = CSVImages(root=tmp_path / "faces.csv", classes=("happy", "sad"), image_size=8, **settings)
    fault_row.check_text(refusal_of(source, tmp_path))


def test_csv_that_is_a_folder_is_refused(fault_row, cache, tmp_path):
    (tmp_path / "images").mkdir()
    command = ("train.py", "model=mlp", "data=csv", "data.root=images")
    fault_row.check(run(*command, cwd=tmp_path, cache=cache))
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")


def draw(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "PNG")


@pytest.mark.parametrize("kind", ["whole", "folder", "packed", "code", "missing"])
def test_rafdb_that_cannot_be_right_is_refused(kind, fault_row, tmp_path):
    root = tmp_path / "RAF"
    (root / "EmoLabel").mkdir(parents=True)
    lines = [f"train_{code:05}.jpg {code}" for code in range(1, 8)]
    if kind == "whole":
        counts = list(COUNTS["train"].values())
        counts[5], counts[6] = counts[6], counts[5]
        codes = [code for code, count in enumerate(counts, 1) for _ in range(count)]
        lines = [f"train_{number:05}.jpg {code}" for number, code in enumerate(codes, 1)]
    if kind == "code":
        lines[0] = "train_00001.jpg 8"
    if kind != "folder":
        (root / "EmoLabel/list_patition_label.txt").write_text("\n".join(lines))
    for number in range(1, {"packed": 1, "missing": 7}.get(kind, 8)):
        draw(root / f"Image/aligned/train_{number:05}_aligned.jpg", number)
    fault_row.check_text(refusal_of(RAFDB(root=root, classes=CLASSES, image_size=8), tmp_path))


def test_class_that_a_data_set_lacks_is_refused(fault_row, cache, tmp_path):
    (tmp_path / "RAF").mkdir()
    classes = ("data.classes=[happy,contempt]", "data.num_classes=2")
    command = ("train.py", "model=mlp", "data=rafdb", "data.root=RAF", *classes)
    fault_row.check(run(*command, cwd=tmp_path, cache=cache))
    assert [path.name for path in tmp_path.iterdir()] == ["RAF"]


@pytest.mark.parametrize("kind", ["label", "unlabelled", "empty", "names", "twice", "class"])
def test_ckplus_that_cannot_be_right_is_refused(kind, fault_row, tmp_path):
    root, name = tmp_path / "CK", "S005_001_00000003"
    root.mkdir()
    if kind in ("label", "unlabelled"):
        draw(root / f"cohn-kanade-images/S005/001/{name}.png", 1)
    if kind == "label":
        (root / "Emotion").mkdir()
        (root / f"Emotion/{name}_emotion.txt").write_text("0.0000000e+00")
    if kind in ("names", "class", "twice"):
        draw(root / f"anger/{'face' if kind == 'names' else name}.png", 1)
    if kind == "twice":
        draw(root / f"copy/anger/{name}.png", 1)
    classes = ("angry", "contempt", "disgust", "fear", "happy", "sad", "surprise")
    fault_row.check_text(refusal_of(CKPlus(root=root, classes=classes, image_size=8), tmp_path))


def test_no_frames_of_a_sequence_are_refused(fault_row, cache, tmp_path):
    (tmp_path / "CK").mkdir()
    command = ("train.py", "model=mlp", "data=ckplus", "data.root=CK", "data.source.frames=0")
    fault_row.check(run(*command, cwd=tmp_path, cache=cache))
    assert [path.name for path in tmp_path.iterdir()] == ["CK"]


@pytest.mark.parametrize("kind", ["order", "code", "damaged", "empty", "both", "boxes", "missing"])
def test_affectnet_that_cannot_be_right_is_refused(kind, fault_row, tmp_path):
    root = tmp_path / "AffectNet"
    root.mkdir()
    if kind in ("damaged", "both"):
        (root / "train_set/annotations").mkdir(parents=True)
        (root / "train_set/annotations/0_exp.npy").touch()
    tables = {
        "training.csv": [11 if kind == "code" else 0, *range(1, 8)],
        "validation.csv": [1, *(code for code in range(8) for _ in range(500))][:4000],
    }
    for table, codes in tables.items() if kind not in ("damaged", "empty") else ():
        (root / table).write_text(
            "subDirectory_filePath,expression\n"
            + "".join(f"1/{number}.jpg,{code}\n" for number, code in enumerate(codes))
        )
        if kind == "missing":
            break
    for number in range(7):
        draw(root / f"1/{number}.jpg", number)
    classes = (*CLASSES, "contempt")
    source = AffectNet(root=root, classes=classes, image_size=8, crop=kind == "boxes")
    fault_row.check_text(refusal_of(source, tmp_path))


def test_ferplus_targets_that_are_none_are_refused(fault_row, cache, tmp_path):
    (tmp_path / "fer2013.csv").touch()
    command = ("train.py", "model=mlp", "data=ferplus", "data.root=fer2013.csv", "data.source.targets=multi")
    fault_row.check(run(*command, cwd=tmp_path, cache=cache))
    assert [path.name for path in tmp_path.iterdir()] == ["fer2013.csv"]
