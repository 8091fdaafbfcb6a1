"""AffectNet, from miniatures of both of its releases."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.data.cache import load_faces
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.faces import Record
from fer_lightning.data.readers.affectnet import COUNTS, NOTE, AffectNet
from tests.commands import succeed

SEVEN = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
EIGHT = (*SEVEN, "contempt")
OF_CODE = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt")
HEADER = (
    *("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks"),
    *("expression", "valence", "arousal"),
)
SPLITS = {"train": ("train_set", "training.csv", 3), "test": ("val_set", "validation.csv", 1)}


def draw(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "PNG")


def newer(root: Path) -> Path:
    """Three training images and one validation image of each of nine codes."""
    for folder, _, each in SPLITS.values():
        (root / folder / "annotations").mkdir(parents=True)
        for number in range(9 * each):
            draw(root / folder / f"images/{number}.jpg", 1000 * each + number)
            np.save(root / folder / f"annotations/{number}_exp.npy", np.array(str(number % 9)))
            np.save(root / folder / f"annotations/{number}_val.npy", np.array("0.5"))
    return root


def older(root: Path) -> Path:
    """Write the same images with the CSVs of the older release; faces are 8 x 8 pixels at (2, 3)."""
    for _, table, each in SPLITS.values():
        rows = []
        for number in range(11 * each):
            name = f"{number % 2}/{table[:3]}{number:05}.jpg"
            draw(root / "Manually_Annotated_Images" / name, 1000 * each + number)
            rows.append([name, 2, 3, 8, 8, "1;2;3", number % 11, -2, -2])
        with (root / table).open("w", newline="") as file:
            csv.writer(file).writerows([HEADER, *rows])
    return root


@pytest.fixture(params=["newer", "older"])
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return {"newer": newer, "older": older}[request.param](tmp_path / "AffectNet")


def source(root: Path, classes: tuple[str, ...] = EIGHT, **settings: Any) -> AffectNet:
    return AffectNet(root=root, classes=classes, **{"image_size": 8} | settings)


def listed(root: Path, **settings: Any) -> list[Record]:
    return list(source(root, **settings).records())


def fault(root: Path, **settings: Any) -> str:
    with pytest.raises(FERError) as caught:
        listed(root, **settings)
    return str(caught.value)


def test_codes_are_classes_by_name_and_validation_is_test(release: Path) -> None:
    found = listed(release)
    assert Counter((record.split, EIGHT[record.label]) for record in found) == {
        (split, name): each for split, (_, _, each) in SPLITS.items() for name in OF_CODE
    }
    by_name = {record.id.rpartition("/")[2].partition(".")[0][-5:]: record for record in found[::-1]}
    for code, name in enumerate(OF_CODE):
        key = str(code) if str(code) in by_name else f"{code:05}"
        assert by_name[key].id.split("/")[1] == name


def test_the_notes_say_what_is_tested_and_left_out(release: Path) -> None:
    notes = source(release).left_out
    assert (
        notes[0]
        == NOTE
        == ("AffectNet: the test split is the official validation set, because the test set is not public")
    )
    codes = 3 if (release / "training.csv").exists() else 1
    assert (
        f"AffectNet: {3 * codes} training images without an expression (none, uncertain or no face), left out"
    ) in notes
    assert (
        f"AffectNet: {codes} images of the official validation set without an expression (none, uncertain or "
        "no face), left out"
    ) in notes
    assert (
        "AffectNet: 8 images of the official validation set, and 4,000 in the whole data set, so the"
        in str(notes)
    )


def test_a_zip_gives_the_same_images(release: Path, tmp_path: Path) -> None:
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", release.parent, release.name)
    one, other = (
        [(record.id, record.pixels().tobytes()) for record in listed(root)]
        for root in (release, Path(packed))
    )
    assert one == other


def test_seven_classes_leave_contempt_out(release: Path) -> None:
    read = source(release, classes=SEVEN)
    assert {SEVEN[record.label] for record in read.records()} == set(SEVEN)
    assert (
        "AffectNet: 4 images of class contempt, which data.classes does not name, left out" in read.left_out
    )


def test_the_face_is_cut_out_in_the_older_release(tmp_path: Path) -> None:
    root = older(tmp_path / "AffectNet")
    record = next(record for record in listed(root, channels=3) if record.id.endswith("0/tra00000.jpg"))
    pixels = np.array(Image.open(root / "Manually_Annotated_Images/0/tra00000.jpg"))
    assert record.id == "train/neutral/0/tra00000.jpg"
    assert np.array_equal(record.pixels(), pixels[3:11, 2:10])
    whole = listed(root, channels=3, crop=False, image_size=12)[0]
    assert np.array_equal(whole.pixels(), pixels)
    assert source(root).cache_key() != source(root, crop=False).cache_key()


def test_images_of_the_newer_release_are_used_whole(tmp_path: Path) -> None:
    root = newer(tmp_path / "AffectNet")
    record = next(record for record in listed(root, channels=3, image_size=12) if "/fear/4.jpg" in record.id)
    assert np.array_equal(record.pixels(), np.array(Image.open(root / "train_set/images/4.jpg")))


def test_the_whole_data_set_is_checked_by_its_class_counts(tmp_path: Path) -> None:
    assert {split: sum(counts.values()) for split, counts in COUNTS.items()} == {
        "train": 287651,
        "test": 4000,
    }
    root = tmp_path / "AffectNet"
    root.mkdir()
    draw(root / "1/a.jpg", 1)

    def write(table: str, codes: list[int]) -> None:
        with (root / table).open("w") as file:
            file.write("subDirectory_filePath,expression\n")
            file.writelines(f"1/{number}.jpg,{code}\n" for number, code in enumerate(codes))

    write("training.csv", list(range(8)))
    write("validation.csv", [code for code in range(8) for _ in range(500)])
    assert "4,000" not in str(source(root, crop=False).left_out)
    write("validation.csv", [1, *(code for code in range(8) for _ in range(500))][:-1])
    assert fault(root, crop=False) == (
        "AffectNet: 4,000 images of the official validation set, as in the whole data set, but 501 of class "
        "happy, expected 500; the labels are in another order, or altered"
    )


def test_labels_of_any_type_of_number_are_read(tmp_path: Path) -> None:
    root = newer(tmp_path / "AffectNet")
    path = root / "train_set/annotations/3_exp.npy"
    expected = [record.id for record in listed(root)]
    for value in (np.array(3), np.array([3.0]), np.array("3.0"), np.int64(3)):
        np.save(path, value)
        assert [record.id for record in listed(root)] == expected
    for value, words in ((np.array(11), "'11'"), (np.array([1, 2]), "'2 numbers'"), (np.array("x"), "'x'")):
        np.save(path, value)
        assert f"3_exp.npy: expression {words}, expected a number from 0 (neutral) to 10" in fault(root)
    np.save(path, np.array({}, dtype=object), allow_pickle=True)
    assert "3_exp.npy: not a NumPy file with one number" in fault(root)
    path.write_bytes(b"")
    assert "3_exp.npy: not a NumPy file with one number" in fault(root)


def test_missing_images_and_boxes_are_bad_images(tmp_path: Path) -> None:
    root = older(tmp_path / "older")
    (root / "Manually_Annotated_Images/0/tra00000.jpg").unlink()
    text = (root / "training.csv").read_text()
    (root / "training.csv").write_text(text.replace("1/tra00001.jpg,2,3", "1/tra00001.jpg,NULL,3"))
    draw(root / "Manually_Annotated_Images/0/other.jpg", 1)
    read = source(root)
    assert "AffectNet: 1 images without a label, left out" in read.left_out
    faces = load_faces(read, cache_dir=tmp_path / "c", on_bad="skip", log=lambda _: None)
    assert [line.rpartition("older/")[2] for line in faces.skipped] == [
        "training.csv:2: 0/tra00000.jpg: no image 0/tra00000.jpg",
        "training.csv:3: 1/tra00001.jpg: a box of NULL, 3, 8, 8; expected finite numbers",
    ]
    root = newer(tmp_path / "newer")
    (root / "train_set/images/2.jpg").unlink()
    with pytest.raises(FERError, match="2_exp.npy: no image train_set/2"):
        load_faces(source(root), cache_dir=tmp_path / "c", log=lambda _: None)


def test_other_faults_are_one_sentence(tmp_path: Path) -> None:
    root = older(tmp_path / "AffectNet")
    (root / "deep").mkdir()
    text = (root / "training.csv").read_text()
    (root / "deep/training.csv").write_text(text)
    assert "a second table of this split, after" in fault(root)
    (root / "deep/training.csv").unlink()
    (root / "training.csv").write_text(text.replace("face_x", "x"))
    assert "training.csv:1: no column face_x, found: " in fault(root)
    assert "as in AffectNet's CSVs; data.source.crop=false does without boxes" in fault(root)
    assert len(listed(root, crop=False)) == 32
    (root / "training.csv").write_text(text + "1/x.jpg,1\n")
    assert "training.csv:35: 2 columns, expected 9" in fault(root)
    (root / "training.csv").write_text(text + text.splitlines()[1] + "\n")
    assert "training.csv:35: 0/tra00000.jpg: 0/tra00000.jpg is also in" in fault(root)
    (root / "training.csv").unlink()
    assert "no training image of class angry, disgust" in fault(root)
    assert len(listed(root, partial=True)) == 8
    newer(root)
    assert "both releases, expected train_set/images/0.jpg" in fault(root)
    (tmp_path / "empty").mkdir()
    assert "no labels of AffectNet, expected train_set/images/0.jpg" in fault(tmp_path / "empty")
    with pytest.raises(FERError, match="data.source.crop=1: expected true or false"):
        source(root, crop=1)


def test_the_labels_are_not_read_for_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the newer release, each is a file: a run whose images are cached starts at once."""
    root = newer(tmp_path / "AffectNet")
    whole, partial = source(root).cache_key(), source(root, partial=True).cache_key()
    assert whole == partial
    monkeypatch.setattr(AffectNet, "_list_items", lambda *_: pytest.fail("labels were read"))
    assert source(root).cache_key() == whole


def test_the_data_module_gives_batches(release: Path, tmp_path: Path) -> None:
    data = FERDataModule(root=release, source=AffectNet, classes=EIGHT, channels=3, cache_dir=tmp_path / "c")
    data.setup()
    assert data.name == "affectnet"
    assert {split: len(rows) for split, rows in data.rows.items()} == {"train": 24, "val": 0, "test": 8}
    assert data.notes[0] == NOTE


@pytest.mark.slow
def test_every_page_says_which_split_was_tested(tmp_path: Path) -> None:
    newer(tmp_path / "AffectNet")
    (tmp_path / "home").mkdir()
    place: dict[str, Any] = {"cwd": tmp_path, "cache": tmp_path / "home"}
    quick = ("model=mlp", "model.hidden=[8]", "logger=none", "trainer=smoke", "num_threads=1")
    data = ("data=affectnet", "data.root=AffectNet")
    done = succeed("train.py", *quick, *data, "data.image_size=16", "hydra.run.dir=run", **place)
    assert NOTE in " ".join((done.stdout + done.stderr).split())
    assert json.loads((tmp_path / "run/metrics.json").read_text())["test"]["n"] == 8
    assert NOTE in json.loads((tmp_path / "run/run.json").read_text())["data"]["notes"]
    page = (tmp_path / "run/report.html").read_text()
    assert "MLP on AffectNet (official validation set)" in page
    assert NOTE in page
    succeed("eval.py", "checkpoint=run", *data, "hydra.run.dir=eval", **place)
    assert "AffectNet (official validation set)" in (tmp_path / "eval/report.html").read_text()
