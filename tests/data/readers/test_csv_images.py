"""A CSV that names images: labels, votes, splits, groups and boxes."""

import csv
import gzip
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.data.cache import load_faces
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.decode import decode_crop
from fer_lightning.data.faces import Faces, Record
from fer_lightning.data.readers.csv_images import CSVImages
from tests.commands import succeed

CLASSES = ("happy", "sad")


def draw(path: Path, number: int, *, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write(
    folder: Path, rows: Sequence[Sequence[Any]], header: Sequence[str] = ("path", "label"), **dialect: Any
) -> Path:
    """Write a CSV, and the images that the first column of its rows names."""
    folder.mkdir(exist_ok=True)
    for number, row in enumerate(rows):
        if not (folder / str(row[0])).exists():
            draw(folder / str(row[0]), number)
    with (folder / "faces.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, **dialect).writerows([header, *rows])
    return folder / "faces.csv"


def two_classes(count: int, **columns: Any) -> list[list[Any]]:
    """Rows of ``count`` images of each class, with further columns by position."""
    rows = []
    for number in range(count):
        for name in CLASSES:
            further = [made(number) for made in columns.values()]
            rows.append([f"images/{name}_{number:02}.png", name, *further])
    return rows


def source(root: Path, **options: Any) -> CSVImages:
    return CSVImages(root=root, classes=CLASSES, **{"image_size": 8} | options)


def listed(root: Path, **options: Any) -> list[Record]:
    return list(source(root, **options).records())


def load(root: Path, **options: Any) -> Faces:
    read = source(root, **options)
    return load_faces(read, cache_dir=root.parent / "cache", near_duplicates="ignore", log=lambda _: None)


def fault(root: Path, **options: Any) -> str:
    with pytest.raises(FERError) as caught:
        listed(root, **options)
    return str(caught.value)


def counts(faces: Faces) -> dict[tuple[str, str], int]:
    return dict(Counter((image_id.split("/")[0], image_id.split("/")[1]) for image_id in faces.ids.tolist()))


def test_paths_start_at_the_csv_or_are_absolute(tmp_path: Path) -> None:
    draw(tmp_path / "elsewhere/far.png", 1)
    rows = [["a/one.png", "Happiness"], [str(tmp_path / "elsewhere/far.png"), "sad"], ["a\\two.png", "sad"]]
    draw(tmp_path / "set/a/two.png", 2)
    root = write(tmp_path / "set", rows)
    found = listed(root)
    assert [record.id for record in found][::2] == ["train/happy/a/one.png", "train/sad/a/two.png"]
    assert found[1].id.endswith("elsewhere/far.png")
    assert [record.label for record in found] == [0, 1, 1]
    for record, place in zip(found, ("set/a/one.png", "elsewhere/far.png", "set/a/two.png"), strict=True):
        assert np.array_equal(record.pixels(), np.array(Image.open(tmp_path / place)))


@pytest.mark.parametrize(
    "words",
    [("train", "val", "test"), ("Training", "PublicTest", "PrivateTest"), ("TRAIN", "valid", "testing")],
)
def test_splits_are_those_of_the_column(tmp_path: Path, words: tuple[str, str, str]) -> None:
    rows = two_classes(6, split=lambda number: words[number % 3])
    faces = load(write(tmp_path / "set", rows, ("path", "label", "Split")))
    assert counts(faces) == {(split, name): 2 for split in ("train", "val", "test") for name in CLASSES}
    assert "val/sad/images/sad_01.png" in faces.ids


def test_splits_that_no_row_names_are_dealt_out(tmp_path: Path) -> None:
    rows = two_classes(20, split=lambda number: "test" if number < 2 else "train")
    faces = load(write(tmp_path / "set", rows, ("path", "label", "split")), val_ratio=0.5)
    assert counts(faces) == {
        (split, name): number for split, number in (("train", 9), ("val", 9), ("test", 2)) for name in CLASSES
    }
    everything = load(write(tmp_path / "set", rows, ("path", "label", "split")), split=False)
    assert counts(everything) == {
        (split, name): number
        for split, number in (("train", 16), ("val", 2), ("test", 2))
        for name in CLASSES
    }


def test_groups_stay_in_one_split(tmp_path: Path) -> None:
    rows = two_classes(24, person=lambda number: f"person {number // 4}")
    faces = load(
        write(tmp_path / "set", rows, ("path", "label", "person")),
        group="person",
        val_ratio=0.2,
        test_ratio=0.2,
    )
    of_group: dict[str, set[str]] = {}
    for image_id, group in zip(faces.ids.tolist(), faces.groups.tolist(), strict=True):
        of_group.setdefault(group, set()).add(image_id.split("/")[0])
    assert len(of_group) == 6
    assert all(len(splits) == 1 for splits in of_group.values())
    assert set.union(*of_group.values()) == {"train", "val", "test"}


def test_votes_are_soft_targets_in_the_order_of_the_classes(tmp_path: Path) -> None:
    rows = [["a.png", 1, 3], ["b.png", "4", "0"], ["c.png", 0.25, 0.75]]
    root = write(tmp_path / "set", rows, ("path", "sadness", "Happy"))
    faces = load(root, val_ratio=0, test_ratio=0)
    found = dict(zip(faces.ids.tolist(), faces.targets.tolist(), strict=True))
    assert found == {
        "train/happy/a.png": [0.75, 0.25],
        "train/sad/b.png": [0, 1],
        "train/happy/c.png": [0.75, 0.25],
    }


def test_columns_of_votes_may_have_other_names(tmp_path: Path) -> None:
    rows = [["a.png", "x", 1, 3], ["b.png", "y", 4, 0]]
    root = write(tmp_path / "set", rows, ("path", "label", "n1", "n2"))
    found = listed(root, votes={"happy": "n2", "sadness": "n1"})
    assert [record.target.tolist() for record in found] == [[3, 1], [0, 4]]


def test_label_and_votes_together_need_a_choice(tmp_path: Path) -> None:
    rows = [["a.png", "sad", 1, 3], ["b.png", "happy", 4, 0]]
    root = write(tmp_path / "set", rows, ("path", "label", "sad", "happy"))
    assert [record.label for record in listed(root)] == [1, 0], "label is the default, where it is"
    assert [record.label for record in listed(root, votes=True)] == [0, 1]
    assert "choose the votes with data.source.votes=true" in fault(root, votes=True, label="label")


def test_codes_name_the_classes_of_other_labels(tmp_path: Path) -> None:
    rows = [["a.png", 1], ["b.png", 0], ["c.png", "sad"], ["d.png", 8], ["e.png", 8]]
    root = write(tmp_path / "set", rows)
    read = source(root, codes={0: "sadness", 1: "happy", 8: None})
    assert [(record.label, record.id[-5:]) for record in read.records()] == [
        (0, "a.png"),
        (1, "b.png"),
        (1, "c.png"),
    ]
    assert read.left_out == (f"{root}: 2 rows of the label '8', left out",)
    assert "faces.csv:2: unknown class '1', expected one of: happy, sad; correct it, or say" in fault(root)


def test_a_box_is_cut_out_before_resizing(tmp_path: Path) -> None:
    draw(tmp_path / "set/big.png", 0, size=(20, 12))
    pixels = np.array(Image.open(tmp_path / "set/big.png"))
    rows = [["big.png", "happy", 3, 2, 8, 8], ["big.png", "sad", "11.6", 4, 8, 8]]
    root = write(tmp_path / "set", rows, ("path", "label", "left", "top", "width", "height"))
    happy, sad = listed(root)
    assert happy.id == "train/happy/big.png#3,2,8,8"
    assert np.array_equal(happy.pixels(), pixels[2:10, 3:11])
    assert np.array_equal(sad.pixels(), pixels[4:12, 12:20])
    whole = listed(write(tmp_path / "set", [["big.png", "happy"], ["s.png", "sad"]]))[0]
    assert not np.array_equal(happy.pixels(), whole.pixels())


def test_columns_of_width_and_height_alone_are_no_box(tmp_path: Path) -> None:
    rows = [["a.png", "happy", 640, 480], ["b.png", "sad", 640, 480]]
    found = listed(write(tmp_path / "set", rows, ("path", "label", "width", "height")))
    assert [record.id for record in found] == ["train/happy/a.png", "train/sad/b.png"]
    root = write(tmp_path / "set", rows, ("path", "label", "left", "top"))
    assert (
        "no column width, found: path, label, left, top; name the right one with data.source.box="
        in fault(root)
    )
    assert len(listed(root, box=False)) == 2


def test_a_box_is_in_pixels_of_the_upright_image(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    found = decode_crop((tmp_path / "turned.png").read_bytes(), (1, 2, 4, 4), size=4)
    assert np.array_equal(found, np.rot90(pixels, -1)[2:6, 1:5])


def test_what_is_outside_the_image_is_cut_off(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", 0, size=(10, 10))
    data, pixels = (tmp_path / "a.png").read_bytes(), np.array(Image.open(tmp_path / "a.png"))
    assert np.array_equal(decode_crop(data, (-2, -2, 8, 8), size=6), pixels[:6, :6])
    assert np.array_equal(decode_crop(data, (4, 4, 1e9, 1e9), size=6), pixels[4:, 4:])
    assert decode_crop(data, (0, 0, 5, 5), size=6, channels=3).shape == (6, 6, 3)
    for box in ((10, 0, 5, 5), (0, -9, 5, 5), (3, 3, 0.2, 4)):
        with pytest.raises(FERError, match="expected one that has pixels of the image of 10x10"):
            decode_crop(data, box, size=6)


def test_a_missing_image_is_a_bad_image_of_its_row(tmp_path: Path) -> None:
    root = write(tmp_path / "set", two_classes(3))
    (tmp_path / "set/images/sad_01.png").unlink()
    with pytest.raises(FERError, match=r"faces.csv:5: images/sad_01.png: cannot be read \(No such file"):
        load(root, val_ratio=0, test_ratio=0)
    faces = load_faces(
        source(root, val_ratio=0, test_ratio=0), cache_dir=tmp_path / "c", on_bad="skip", log=lambda _: None
    )
    assert (len(faces), len(faces.skipped)) == (5, 1)
    (tmp_path / "set/images/sad_01.png").mkdir()
    with pytest.raises(FERError, match="not a regular file"):
        load(root, val_ratio=0, test_ratio=0)


ROWS = [["a.png", "happy"], ["b.png", "sad"], ["c.png", "sad"]]
FAULTS: dict[str, tuple[list[list[Any]], tuple[str, ...], dict[str, Any], str]] = {
    "path": (
        ROWS,
        ("file", "label"),
        {},
        "faces.csv:1: no column path, found: file, label; name the right one with data.source.path=",
    ),
    "label": (
        ROWS,
        ("path", "class"),
        {},
        "faces.csv:1: no column label, and no column of votes for happy, sad, "
        "found: path, class; name the column of the labels with data.source.label=",
    ),
    "one vote": ([["a.png", 1]], ("path", "happy"), {}, "no column of votes for sad, found: path, happy"),
    "split": (ROWS, ("path", "label"), {"split": "part"}, "no column part, found: path, label"),
    "twice": ([[*row, "x"] for row in ROWS], ("path", "label", "label"), {}, "two columns label; remove one"),
    "word": (
        [[*row, "dev"] for row in ROWS],
        ("path", "label", "split"),
        {},
        "faces.csv:2: unknown split 'dev', expected train, val or test",
    ),
    "group": ([[*row, ""] for row in ROWS], ("path", "label", "group"), {}, "faces.csv:2: '' as group"),
    "cells": ([*ROWS, ["d.png"]], ("path", "label"), {}, "faces.csv:5: 1 columns, expected 2"),
    "empty path": ([*ROWS[:2], [" ", "sad"]], ("path", "label"), {}, "faces.csv:4: no path"),
    "row twice": ([*ROWS, ["./a.png", "sad"]], ("path", "label"), {}, "faces.csv:5: ./a.png is also in "),
    "votes": (
        [["a.png", 1, 2], ["b.png", "many", 0]],
        ("path", "happy", "sad"),
        {},
        "faces.csv:3: votes many, 0; expected finite numbers",
    ),
    "box": (
        [["a.png", "sad", 1, 1, 0, 4]],
        ("path", "label", "left", "top", "width", "height"),
        {},
        "faces.csv:2: a box of width 0 and height 4, expected numbers above 0",
    ),
    "no train": (
        [[*row, "val"] for row in ROWS],
        ("path", "label", "split"),
        {},
        "no row is in the split train, found val",
    ),
    "class": (ROWS[1:], ("path", "label"), {}, "no training image of class happy; expected some of each"),
    "old Mac": ([], ("path", "label\ra.png"), {}, "faces.csv: lines end with carriage returns alone"),
    "no row": ([], ("path", "label"), {}, "no row names an image of a known class"),
    "codes": (
        ROWS,
        ("path", "label"),
        {"codes": {0: "bored"}},
        "data.source.codes={0: 'bored'}: unknown class",
    ),
    "no codes": (
        ROWS,
        ("path", "label"),
        {"codes": [1]},
        "data.source.codes=[1]: expected the class of each",
    ),
    "number": (ROWS, ("path", "label"), {"label": 1}, "data.source.label=1: expected the name of a column"),
    "three": (
        ROWS,
        ("path", "label"),
        {"box": ["a", "b", "c"]},
        "data.source.box=['a', 'b', 'c']: expected four",
    ),
    "votes of one": (
        ROWS,
        ("path", "label"),
        {"votes": {"sad": "n"}},
        "no column for happy; expected one for each",
    ),
    "ratio": (ROWS, ("path", "label"), {"val_ratio": 1}, "data.source.val_ratio=1, "),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_one_sentence(tmp_path: Path, kind: str) -> None:
    rows, header, options, sentence = FAULTS[kind]
    (tmp_path / "set").mkdir()
    with (tmp_path / "set/faces.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    assert sentence in fault(tmp_path / "set/faces.csv", **options)


def test_votes_without_any_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "set", [["a.png", 1, 0], ["b.png", 0, 0], ["c.png", 0, 1]], ("path", *CLASSES))
    with pytest.raises(FERError, match=r"faces.csv:3: b.png: a target of \[0, 0\], expected"):
        load(root, val_ratio=0, test_ratio=0)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FERError, match="a folder, expected a CSV that names images"):
        source(tmp_path)


def test_other_dialects_give_the_same_records(tmp_path: Path) -> None:
    rows = two_classes(2)
    expected = [(record.id, record.label) for record in listed(write(tmp_path / "set", rows))]
    root = write(tmp_path / "set", rows, ("Path", " LABEL "), delimiter=";", quoting=csv.QUOTE_ALL)
    assert [(record.id, record.label) for record in listed(root)] == expected
    packed = root.with_suffix(".csv.gz")
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + root.read_bytes()))
    assert [(record.id, record.label) for record in listed(packed)] == expected


def test_the_key_depends_on_rows_settings_and_images(tmp_path: Path) -> None:
    root = write(tmp_path / "set", two_classes(3))
    keys = [source(root).cache_key(), source(root, val_ratio=0.2).cache_key()]
    assert source(root).cache_key() == source(root, partial=True).cache_key() == keys[0]
    draw(tmp_path / "set/images/sad_00.png", 99, size=(9, 9))
    keys.append(source(root).cache_key())
    write(tmp_path / "set", [*two_classes(3)[1:], ["x.png", "happy"]])
    keys.append(source(root).cache_key())
    assert len(set(keys)) == 4


def test_a_partial_csv_says_what_it_lacks(tmp_path: Path) -> None:
    root = write(
        tmp_path / "set", [["a.png", "bored", "test"], ["b.png", "sad", "test"]], ("path", "label", "split")
    )
    read = source(root, partial=True)
    assert [record.id for record in read.records()] == ["test/sad/b.png"]
    assert read.holdout() is None
    assert read.left_out == (
        f"{root}: 1 row of the unknown class 'bored', left out",
        f"{root}: no images of class happy",
    )


def test_votes_for_an_expression_without_a_class(tmp_path: Path) -> None:
    """Left out with ``partial`` where it has at least as many votes as each class; refused otherwise."""
    header = ("path", "happy", "Contemptuous", "sad", "contempt", "fear")
    rows = [
        ["a.png", 3, 9, 0, 2, 0],
        ["b.png", 0, 0, 2, 0, 2],
        ["c.png", 0, 0, 0, 1, 0],
        ["d.png", 1, 0, 2, 1, 0],
    ]
    root = write(tmp_path / "set", rows, header)
    read = source(root, partial=True)
    assert [record.id for record in read.records()] == ["train/happy/a.png", "train/sad/d.png"]
    assert read.left_out == (
        f"{root}: 1 row of the unknown class 'contempt', left out",
        f"{root}: 1 row of the unknown class 'fear', left out",
    )
    with pytest.raises(FERError, match=r"faces.csv:1: votes for contempt, fear, which data.classes lacks"):
        listed(root)
    named = listed(root, votes={"happy": "happy", "sad": "sad"}, partial=True)
    assert [record.label for record in named[:2]] == [0, 1]


def test_labels_that_are_all_unknown_are_named(tmp_path: Path) -> None:
    root = write(tmp_path / "set", [["a.png", "0"], ["b.png", "bored"]])
    with pytest.raises(FERError, match="known class, found the labels '0', 'bored'; expected happy, sad, or"):
        listed(root, partial=True)


def test_the_data_module_gives_colour_batches(tmp_path: Path) -> None:
    root = write(tmp_path / "set", two_classes(20))
    data = FERDataModule(
        root=root, source=CSVImages, classes=CLASSES, image_size=16, channels=3, cache_dir=tmp_path / "c"
    )
    data.setup()
    assert data.name == "csv"
    assert next(iter(data.train_dataloader())).images.shape == (32, 3, 16, 16)


def test_a_run_and_an_evaluation_read_a_csv(tmp_path: Path) -> None:
    rows = two_classes(16, split=lambda number: ("train", "train", "val", "test")[number % 4])
    rows.append(["images/none.png", 9, "train"])
    write(tmp_path / "set", rows, ("path", "label", "split"))
    (tmp_path / "home").mkdir()
    place = {"cwd": tmp_path, "cache": tmp_path / "home"}
    data = ("data=csv", "data.root=set/faces.csv", "data.source.codes={9:null}")
    small = ("model=mlp", "model.hidden=[8]", "logger=none", "trainer=smoke", "num_threads=1")
    classes = ("data.classes=[happy,sad]", "data.num_classes=2", "data.image_size=16")
    succeed("train.py", *small, *data, *classes, "hydra.run.dir=run", **place)
    record = json.loads((tmp_path / "run/run.json").read_text())
    (note,) = record["data"]["notes"]
    assert note.endswith("set/faces.csv: 1 row of the label '9', left out")
    assert json.loads((tmp_path / "run/metrics.json").read_text())["test"]["n"] == 8
    succeed(
        *("eval.py", "checkpoint=run", "data=csv", "data.root=set/faces.csv", "data.source.codes={9:null}"),
        *("num_threads=1", "hydra.run.dir=eval"),
        **place,
    )
    assert (tmp_path / "eval/metrics.json").exists()
