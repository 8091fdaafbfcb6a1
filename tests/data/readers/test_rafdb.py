"""RAF-DB, from a miniature of its layout."""

import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.faces import Record
from fer_lightning.data.readers.rafdb import COUNTS, EXPRESSIONS, RAFDB
from tests.commands import succeed

CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
OF_CODE = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")  # from 1


def colour(number: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(number).integers(0, 256, (10, 10, 3), dtype=np.uint8)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Four training and two test images of each class, below ``basic/``."""
    aligned = tmp_path / "RAF-DB/basic/Image/aligned"
    aligned.mkdir(parents=True)
    (tmp_path / "RAF-DB/basic/EmoLabel").mkdir()
    lines = []
    for split, each in (("train", 4), ("test", 2)):
        for number in range(7 * each):
            name = f"{split}_{number + 1:05}"
            lines.append(f"{name}.jpg {number % 7 + 1}")
            # PNG data, because JPEG changes pixels.
            Image.fromarray(colour(len(lines))).save(aligned / f"{name}_aligned.jpg", "PNG")
    (tmp_path / "RAF-DB/basic/EmoLabel/list_patition_label.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "RAF-DB"


def labels(root: Path) -> Path:
    return root / "basic/EmoLabel/list_patition_label.txt"


def source(root: Path, classes: tuple[str, ...] = CLASSES, **settings: Any) -> RAFDB:
    return RAFDB(root=root, classes=classes, **{"image_size": 10} | settings)


def fault(root: Path, **settings: Any) -> str:
    with pytest.raises(FERError) as caught:
        list(source(root, **settings).records())
    return str(caught.value)


def test_codes_are_classes_by_name(small: Path) -> None:
    found = list(source(small, channels=3).records())
    assert [record.id for record in found[:7]] == [
        f"train/{name}/train_{number:05}" for number, name in enumerate(OF_CODE, 1)
    ]
    assert [CLASSES[record.label] for record in found[28:35]] == [*OF_CODE]
    assert found[28].id == "test/surprise/test_00001"
    assert np.array_equal(found[2].pixels(), colour(3))
    assert Counter(record.split for record in found) == {"train": 28, "test": 14}


def test_a_partial_copy_is_a_note(small: Path) -> None:
    assert source(small).left_out == (
        "RAF-DB: 28 training images, and 12,271 in the whole data set, so the order of the labels could not "
        "be checked by their counts",
        "RAF-DB: 14 test images, and 3,068 in the whole data set, so the order of the labels could not be "
        "checked by their counts",
    )


def write_whole(root: Path, order: tuple[str, ...]) -> None:
    """List as many images of each class as the whole data set has, with codes in some order."""
    lines = [
        f"{split}_{number:05}.jpg {order.index(name) + 1}"
        for split in ("train", "test")
        for number, name in enumerate(
            (name for name, count in COUNTS[split].items() for _ in range(count)), 1
        )
    ]
    labels(root).write_text("\n".join(lines))


def test_the_whole_data_set_is_checked_by_its_class_counts(small: Path) -> None:
    assert {split: sum(counts.values()) for split, counts in COUNTS.items()} == {"train": 12271, "test": 3068}
    write_whole(small, EXPRESSIONS)
    read = source(small)
    assert (read.left_out, read.num_images) == ((), 15_339)
    write_whole(small, ("surprise", "fear", "disgust", "happiness", "sadness", "neutral", "anger"))
    assert fault(small) == (
        "RAF-DB: 12,271 training images, as in the whole data set, but 2,524 of class anger, expected 705; "
        "the labels are in another order, or altered"
    )


def test_classes_that_the_list_lacks_are_left_out_and_counted(small: Path) -> None:
    few = source(small, classes=("happy", "sad"))
    assert Counter(record.label for record in few.records()) == {0: 6, 1: 6}
    assert "RAF-DB: 6 images of class anger, which data.classes does not name, left out" in few.left_out
    eight = (*CLASSES, "contempt")
    with pytest.raises(FERError, match="RAF-DB has no class contempt; expected some of surprise, fear"):
        source(small, classes=eight)
    assert source(small, classes=eight, partial=True).left_out[-1] == "RAF-DB: no images of class contempt"


def test_other_images_are_no_faces_of_the_set(small: Path) -> None:
    """The original photographs, and the compound expressions with a list of the same name."""
    before = [record.id for record in source(small).records()]
    for folder in ("basic/Image/original", "compound/Image/aligned", "compound/EmoLabel"):
        (small / folder).mkdir(parents=True)
    Image.fromarray(colour(0)).save(small / "basic/Image/original/train_00001.jpg")
    Image.fromarray(colour(0)).save(small / "compound/Image/aligned/train_00001_aligned.jpg")
    (small / "compound/EmoLabel/list_patition_label.txt").write_text("train_00001.jpg 9\n")
    found: list[Record] = list(source(small, channels=3).records())
    assert [record.id for record in found] == before
    assert np.array_equal(found[0].pixels(), colour(1))


def test_a_zip_gives_the_same_images(small: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "raf.zip", "w") as archive:
        for file in sorted(small.rglob("*.*")):
            archive.write(file, file.relative_to(tmp_path).as_posix())
    one, other = (
        [(record.id, record.pixels().tobytes()) for record in source(root).records()]
        for root in (small, tmp_path / "raf.zip")
    )
    assert one == other


def test_numbered_folders_are_the_codes(small: Path, tmp_path: Path) -> None:
    """A copy that is passed around: DATASET/train/5/train_00001_aligned.jpg, with tables of its own."""
    copy = tmp_path / "DATASET"
    for line in labels(small).read_text().split("\n")[:-1]:
        name, code = line.split()
        name = name.replace(".jpg", "_aligned.jpg")
        place = copy / name.partition("_")[0] / code / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((small / "basic/Image/aligned" / name).read_bytes())
    (tmp_path / "train_labels.csv").write_text("image,label\ntrain_00001_aligned.jpg,1\n")
    one, other = (
        sorted((record.id, record.pixels().tobytes()) for record in source(root).records())
        for root in (small, copy)
    )
    assert one == other
    assert len(one) == 42


def test_an_image_that_is_missing_is_bad_and_one_without_label_is_noted(small: Path) -> None:
    aligned = small / "basic/Image/aligned"
    (aligned / "train_00002_aligned.jpg").rename(aligned / "train_09999_aligned.jpg")
    read = source(small)
    record = list(read.records())[1]
    assert record.where.endswith("list_patition_label.txt:2: train_00002")
    with pytest.raises(FERError, match=r"^no image train_00002_aligned.jpg$"):
        record.pixels()
    assert read.left_out[-1].endswith("no label for 1 of the aligned images, left out")


def test_the_key_changes_with_the_list(small: Path) -> None:
    key = source(small).cache_key()
    assert source(small).cache_key() == source(small, partial=True).cache_key() == key
    labels(small).write_text(labels(small).read_text().replace("train_00001.jpg 1", "train_00001.jpg 02"))
    assert source(small).cache_key() != key


@pytest.mark.parametrize(
    "line", ["train_00099.jpg 8", "train_00099.jpg 0", "valid_00001.jpg 3", "image label"]
)
def test_a_line_that_is_none_is_named(small: Path, line: str) -> None:
    labels(small).write_text(f"{line}\n{labels(small).read_text()}")
    assert f"list_patition_label.txt:1: '{line}', expected an image and a class from 1 to 7" in fault(small)


def test_other_faults_are_one_sentence(small: Path) -> None:
    text = labels(small).read_text()
    labels(small).write_text(text + "train_00001.jpg 1\n")
    assert "list_patition_label.txt:43: train_00001 is also in" in fault(small)
    labels(small).write_text(text.replace(" 4\n", " 5\n"))
    assert "no training image of class happy; expected the folder of RAF-DB" in fault(small)
    (small / "list_partition_label.txt").write_text(text)
    assert "a second list of labels, after" in fault(small)
    (small / "list_partition_label.txt").unlink()
    labels(small).unlink()
    assert "no list_patition_label.txt, expected EmoLabel/list_patition_label.txt and Image/aligned" in fault(
        small
    )
    labels(small).write_text(text)
    (small / "basic/Image/aligned").rename(small / "basic/Image/original")
    for file in (small / "basic/Image/original").iterdir():
        file.rename(file.with_name(file.name.replace("_aligned", "")))
    assert "no aligned image, expected" in fault(small)


def test_the_data_module_validates_on_a_part_of_train(small: Path, tmp_path: Path) -> None:
    data = FERDataModule(
        root=small, source=RAFDB, classes=CLASSES, channels=3, val_fraction=0.25, cache_dir=tmp_path / "c"
    )
    data.setup()
    assert data.name == "rafdb"
    assert {split: len(rows) for split, rows in data.rows.items()} == {"train": 21, "val": 7, "test": 14}
    assert next(iter(data.train_dataloader())).images.shape == (21, 3, 48, 48)
    assert len(data.notes) == 2


@pytest.mark.slow
def test_a_run_and_an_evaluation_read_rafdb(small: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    place: dict[str, Any] = {"cwd": tmp_path, "cache": tmp_path / "home"}
    quick = ("model=mlp", "model.hidden=[8]", "logger=none", "trainer=smoke", "num_threads=1")
    data = ("data=rafdb", "data.root=RAF-DB", "data.image_size=16", "data.channels=3")
    succeed("train.py", *quick, *data, "hydra.run.dir=run", **place)
    assert json.loads((tmp_path / "run/metrics.json").read_text())["test"]["n"] == 14
    assert "RAF-DB" in (tmp_path / "run/report.html").read_text()
    assert len(json.loads((tmp_path / "run/run.json").read_text())["data"]["notes"]) == 2
    succeed("eval.py", "checkpoint=run", *data[:2], "data.channels=3", "hydra.run.dir=eval", **place)
    assert json.loads((tmp_path / "eval/metrics.json").read_text())["test"]["n"] == 14
