"""Random damage to the lists, tables and labels of published data sets: a correct read or one sentence."""

import csv
import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.data.cache import load_faces
from fer_lightning.data.readers.affectnet import EXPRESSIONS as AFFECTNET
from fer_lightning.data.readers.affectnet import AffectNet
from fer_lightning.data.readers.ckplus import EXPRESSIONS as CKPLUS
from fer_lightning.data.readers.ckplus import CKPlus
from fer_lightning.data.readers.csv_images import CSVImages
from fer_lightning.data.readers.ferplus import EMOTIONS, LABELS_FILE, FERPlus
from fer_lightning.data.readers.rafdb import EXPRESSIONS as RAFDB_EXPRESSIONS
from fer_lightning.data.readers.rafdb import LISTS, RAFDB
from fer_lightning.data.soft_targets import read_teacher
from tests.faults.test_fuzz import broken, fuzzed, only_sentences, picture
from tests.faults.test_fuzz_readers import decode_all

DIGITS = "9" * 5000  # more than int() takes
# Fields of a table that are none, or too much.
JUNK = (
    *("", " ", "x", "nan", "inf", "-inf", "1e39", "3e38", "-1", "0", "8", "10", "0.5", "1e400", "٣", DIGITS),
    *("../../x.png", "/dev/zero", "a\nb", '"', "\x1b[31m", "é" * 300, "1/0.png", "\N{FULLWIDTH DIGIT ONE}"),
)


def as_csv(rows):
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return file.getvalue().encode()


@st.composite
def damaged(draw, rows):
    """A table with damaged bytes, or with other fields, lost rows and rows that are there twice."""
    if draw(st.booleans()):
        return draw(broken(as_csv(rows)))
    rows = [list(row) for row in rows]
    for _ in range(draw(st.integers(1, 4))):
        row = draw(st.sampled_from(rows))
        kind = draw(st.sampled_from(["field", "field", "field", "less", "more", "twice"]))
        if kind == "field" and row:
            row[draw(st.integers(0, len(row) - 1))] = draw(st.sampled_from(JUNK))
        elif kind == "less" and row:
            del row[-1]
        elif kind == "more":
            row.append(draw(st.sampled_from(JUNK)))
        else:
            rows.append(row)
    return as_csv(rows)


def write_images(folder, names, *, first=0):
    for number, name in enumerate(names, first):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


# FER+

USAGES = ("Training", "PublicTest", "PrivateTest")
PIXELS = [
    ("emotion", "pixels", "Usage"),
    *((0, " ".join([str(number)] * 64), usage) for usage in USAGES for number in range(8)),
]
VOTES = [
    ("Usage", "Image name", *EMOTIONS, "unknown", "NF"),
    *(
        (usage, f"{number}.png", *(10 * (number == label) for label in range(8)), 0, 0)
        for usage in USAGES
        for number in range(8)
    ),
]


def ferplus(folder, votes, targets="votes"):
    (folder / "fer2013.csv").write_bytes(as_csv(PIXELS))
    (folder / LABELS_FILE).write_bytes(votes)
    return FERPlus(root=folder, classes=EMOTIONS, image_size=8, targets=targets)


@fuzzed
@given(votes=damaged(VOTES), targets=st.sampled_from(["votes", "probability", "majority"]))
def test_votes_of_ferplus(votes, targets, tmp_path):
    only_sentences(lambda: decode_all(ferplus(tmp_path, votes, targets)))


# RAF-DB

LIST = [[f"{split}_{code:05}.jpg {code}"] for split in ("train", "test") for code in range(1, 8)]


def rafdb(folder, lines):
    (folder / "EmoLabel").mkdir(exist_ok=True)
    (folder / "EmoLabel" / LISTS[0]).write_bytes(lines)
    write_images(folder / "Image/aligned", [row[0].split(".")[0] + "_aligned.jpg" for row in LIST])
    return RAFDB(root=folder, classes=RAFDB_EXPRESSIONS, image_size=8)


@fuzzed
@given(drawn=st.data())
def test_list_of_rafdb(drawn, tmp_path):
    lines = drawn.draw(damaged([*LIST, [f"train_00008.jpg {drawn.draw(st.sampled_from(JUNK))}"]]))
    only_sentences(lambda: decode_all(rafdb(tmp_path, lines)))


def test_class_with_very_many_digits(tmp_path):
    with pytest.raises(FERError, match=r"label\.txt:15: 'train_00008\.jpg 999.*class from 1 to 7"):
        decode_all(rafdb(tmp_path, as_csv([*LIST, [f"train_00008.jpg {DIGITS}"]])))


# AffectNet

NUMBERED = [(f"{code}/{code}.png", code) for code in range(8)]
BOXED = [
    ("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "expression"),
    *((name, 1, 1, 6, 6, code) for name, code in NUMBERED),
]


def affectnet(folder, table):
    for name in ("training.csv", "validation.csv"):
        (folder / name).write_bytes(table if name == "training.csv" else as_csv(BOXED))
    write_images(folder, [name for name, _ in NUMBERED])
    return AffectNet(root=folder, classes=AFFECTNET, image_size=8)


@fuzzed
@given(table=damaged(BOXED))
def test_tables_of_affectnet(table, tmp_path):
    only_sentences(lambda: decode_all(affectnet(tmp_path, table)))


def npy(value):
    file = io.BytesIO()
    np.save(file, value)
    return file.getvalue()


def affectnet_of_numbers(folder, label):
    for split in ("train_set", "val_set"):
        write_images(folder / split / "images", [f"{code}.png" for code in range(8)])
        (folder / split / "annotations").mkdir(exist_ok=True)
        for code in range(8):
            (folder / split / f"annotations/{code}_exp.npy").write_bytes(npy(np.array(str(code))))
    (folder / "train_set/annotations/3_exp.npy").write_bytes(label)
    return AffectNet(root=folder, classes=AFFECTNET, image_size=8)


HUGE = npy(np.zeros(1)).replace(b"(1,), }", b"(999999999999,), }")
LABELS = {
    "text": npy(np.array("3")),
    "number": npy(np.array([3])),
    "huge": HUGE,
    "objects": b"\x93NUMPY\x01\x00" + npy(np.zeros(1))[8:].replace(b"'<f8'", b"'|O' "),
}


@pytest.mark.parametrize("kind", LABELS)
@fuzzed
@given(drawn=st.data())
def test_labels_of_affectnet(kind, drawn, tmp_path):
    label = drawn.draw(st.one_of(st.just(LABELS[kind]), broken(LABELS[kind])))
    only_sentences(lambda: decode_all(affectnet_of_numbers(tmp_path, label)))


# CK+


def ckplus(folder, label, frame="00000003"):
    for number, _ in enumerate(CKPLUS, 1):
        sequence = f"S{number:03}_001"
        write_images(folder / f"cohn-kanade-images/{sequence}", [f"{sequence}_00000001.png"], first=number)
        (folder / "Emotion").mkdir(exist_ok=True)
        text = f"   {number}.0000000e+00\n".encode()
        (folder / f"Emotion/{sequence}_00000001_emotion.txt").write_bytes(label if number == 3 else text)
    write_images(folder / "cohn-kanade-images/S003_001", [f"S003_001_{frame}.png"])
    return CKPlus(root=folder, classes=CKPLUS, image_size=8, val_ratio=0, test_ratio=0)


@fuzzed
@given(
    label=st.one_of(broken(b"   3.0000000e+00\n"), st.sampled_from([text.encode() for text in JUNK])),
    frame=st.sampled_from(["00000003", "٣", "9" * 200, "3" + "x" * 100]),
)
def test_labels_of_ckplus(label, frame, tmp_path):
    only_sentences(lambda: decode_all(ckplus(tmp_path, label, frame)))


def test_frames_with_very_long_numbers(tmp_path):
    with zipfile.ZipFile(tmp_path / "ck.zip", "w") as archive:
        for number in range(1, 8):
            name = f"S{number:03}_001_00000001"
            archive.writestr(f"Emotion/{name}_emotion.txt", f"{number}.0")
            archive.writestr(f"images/{name}.png", picture("PNG"))
        archive.writestr(f"images/S001_001_{DIGITS}.png", picture("PNG"))
    source = CKPlus(root=tmp_path / "ck.zip", classes=CKPLUS, image_size=8)
    assert len(list(source.records())) == 7


# CSVs of images

CLASSES = ("happy", "sad")
BOX = ("left", "top", "width", "height")
FACES = [
    ("path", *CLASSES, "split", "group", *BOX),
    *(
        (f"{split}/{name}.png", 3 * (name == "happy"), 2 * (name == "sad"), split, f"{split}1", 1, 1, 5, 5)
        for split in ("train", "val", "test")
        for name in CLASSES
    ),
]
LABELLED = [("path", "label", "split"), *((row[0], CLASSES[not row[1]], row[3]) for row in FACES[1:])]


def csv_images(folder, table, **settings):
    write_images(folder, [row[0] for row in FACES[1:]])
    (folder / "faces.csv").write_bytes(table)
    return CSVImages(root=folder / "faces.csv", classes=CLASSES, image_size=8, **settings)


@pytest.mark.parametrize("rows", [FACES, LABELLED], ids=["votes", "labels"])
@fuzzed
@given(drawn=st.data())
def test_csvs_of_images(rows, drawn, tmp_path):
    table, partial = drawn.draw(damaged(rows)), drawn.draw(st.booleans())
    only_sentences(lambda: decode_all(csv_images(tmp_path, table, partial=partial)))


# A teacher's predictions


def predictions():
    labels = np.arange(4) % 2
    probs = np.eye(2, dtype=np.float32)[labels]
    arrays = {"ids": np.array(list("abcd")), "labels": labels, "probs": probs, "status": np.array(["ok"] * 4)}
    file = io.BytesIO()
    np.savez(file, classes=np.array(CLASSES), **arrays)
    return file.getvalue()


@fuzzed
@given(content=broken(predictions()))
def test_predictions_of_a_teacher(content, tmp_path):
    (tmp_path / "predictions_train.npz").write_bytes(content)
    only_sentences(read_teacher, tmp_path / "predictions_train.npz", CLASSES)


# What the tests above damage is no damage in itself.

WHOLE = {
    "ferplus": lambda folder: ferplus(folder, as_csv(VOTES)),
    "rafdb": lambda folder: rafdb(folder, as_csv(LIST)),
    "affectnet": lambda folder: affectnet(folder, as_csv(BOXED)),
    "affectnet_of_numbers": lambda folder: affectnet_of_numbers(folder, LABELS["text"]),
    "ckplus": lambda folder: ckplus(folder, b"3.0"),
    "csv": lambda folder: csv_images(folder, as_csv(FACES)),
    "labelled": lambda folder: csv_images(folder, as_csv(LABELLED)),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_data_sets_are_read(kind, tmp_path):
    source = WHOLE[kind](tmp_path)
    faces = load_faces(source, cache_dir=tmp_path / "cache", near_duplicates="ignore", log=print)
    assert len(faces.labels) == len(list(source.records())) > 5


def test_a_whole_teacher_is_read(tmp_path):
    (tmp_path / "predictions_train.npz").write_bytes(predictions())
    assert len(read_teacher(tmp_path / "predictions_train.npz", CLASSES).ids) == 4
