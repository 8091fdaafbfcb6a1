import os
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.data.cache import load_faces
from fer_lightning.data.faces import Record
from fer_lightning.data.readers.image_folder import ImageFolder

CLASSES = ("happy", "sad")


def fill(folder: Path, numbers: range, *, classes: tuple[str, ...] = CLASSES) -> Path:
    """Write different small images into class folders."""
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            random = np.random.default_rng([number, len(name)])
            pixels = random.integers(0, 256, (5, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")
    return folder


def source(root: Path, **options: Any) -> ImageFolder:
    return ImageFolder(root=root, classes=CLASSES, **{"image_size": 8} | options)


def listed(root: Path, **options: Any) -> list[Record]:
    """List the records, with the splits and ids that dealing them out gives them."""
    read = source(root, **options)
    with tempfile.TemporaryDirectory() as folder:
        faces = load_faces(read, cache_dir=Path(folder), on_bad="skip", log=lambda sentence: None)
    names = {image_id.partition("/")[2]: image_id for image_id in faces.ids.tolist()}
    if read.holdout() is None:
        return list(read.records())
    return [
        record._replace(id=found, split=found.partition("/")[0])
        if record.split == "train" and (found := names.get(record.id.partition("/")[2]))
        else record
        for record in read.records()
    ]


def counts(records: list[Record]) -> dict[tuple[str, str], int]:
    return dict(Counter((record.split, CLASSES[record.label]) for record in records))


def fault(root: Path, **options: float) -> str:
    with pytest.raises(FERError) as caught:
        listed(root, **options)
    return str(caught.value)


def test_class_folders_are_split_by_ratio_in_each_class(tmp_path: Path) -> None:
    fill(tmp_path, range(20))
    fill(tmp_path, range(20, 50), classes=("sad",))
    assert counts(listed(tmp_path, val_ratio=0.2, test_ratio=0.1)) == {
        ("train", "happy"): 14,
        ("val", "happy"): 4,
        ("test", "happy"): 2,
        ("train", "sad"): 35,
        ("val", "sad"): 10,
        ("test", "sad"): 5,
    }


def test_every_image_is_listed_once_with_a_unique_id(tmp_path: Path) -> None:
    records = listed(fill(tmp_path, range(20)))
    assert len({record.where for record in records}) == len({record.id for record in records}) == 40
    for record in records:
        assert record.id == f"{record.split}/{CLASSES[record.label]}/{Path(record.where).name}"


def test_images_of_any_size_and_colour_become_grey_squares(tmp_path: Path) -> None:
    for record in listed(fill(tmp_path, range(3))):
        assert record.pixels().shape == (8, 8)
        assert record.pixels().dtype == np.uint8


def test_bad_file_is_a_fault_of_one_image(tmp_path: Path) -> None:
    fill(tmp_path, range(5))
    (tmp_path / "sad" / "bad.png").write_bytes(b"")
    (record,) = (record for record in listed(tmp_path) if record.where.endswith("bad.png"))
    with pytest.raises(FERError, match=r"^0 bytes$"):
        record.pixels()


def test_split_does_not_depend_on_the_order_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, range(30))
    for number in range(10):  # a group of duplicates goes where its first member goes
        shutil.copy(tmp_path / "sad" / f"{number:03}.png", tmp_path / "sad" / f"copy{number}.png")
    expected = {record.id for record in listed(tmp_path)}
    scandir = os.scandir

    class Reversed:
        def __init__(self, path: Path) -> None:
            self.entries = reversed(list(scandir(path)))

        def __enter__(self) -> object:
            return self.entries

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    assert {record.id for record in listed(tmp_path)} == expected


def test_another_seed_gives_another_split(tmp_path: Path) -> None:
    fill(tmp_path, range(30))
    one, other = ({record.id for record in listed(tmp_path, split_seed=seed)} for seed in (0, 1))
    assert one != other
    assert source(tmp_path, split_seed=0).cache_key() != source(tmp_path, split_seed=1).cache_key()


@pytest.mark.parametrize("seed", range(5))
def test_identical_files_stay_in_one_split(tmp_path: Path, seed: int) -> None:
    fill(tmp_path, range(20))
    for number in range(10):  # two duplicates of half the images, one in the other class
        original = tmp_path / "happy" / f"{number:03}.png"
        shutil.copy(original, tmp_path / "happy" / f"copy{number}.png")
        shutil.copy(original, tmp_path / "sad" / f"copy{number}.png")
    splits: dict[bytes, set[str]] = {}
    for record in listed(tmp_path, val_ratio=0.3, test_ratio=0.3, split_seed=seed):
        splits.setdefault(Path(record.where).read_bytes(), set()).add(record.split)
    assert len(splits) == 40
    assert all(len(found) == 1 for found in splits.values())


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "validation", "testing")])
def test_split_folders_are_kept(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for name, number in zip(names, (5, 3, 2), strict=True):
        fill(tmp_path / name, range(number))
    assert counts(listed(tmp_path)) == {
        (split, label): number
        for split, number in (("train", 5), ("val", 3), ("test", 2))
        for label in CLASSES
    }


def test_split_without_a_folder_is_split_off_from_train(tmp_path: Path) -> None:
    fill(tmp_path / "train", range(20))
    fill(tmp_path / "test", range(20, 23))
    found = counts(listed(tmp_path))
    assert found == {
        ("train", "happy"): 18,
        ("val", "happy"): 2,
        ("test", "happy"): 3,
        ("train", "sad"): 18,
        ("val", "sad"): 2,
        ("test", "sad"): 3,
    }


def test_ratio_of_zero_omits_the_split(tmp_path: Path) -> None:
    fill(tmp_path, range(10))
    assert {record.split for record in listed(tmp_path, test_ratio=0)} == {"train", "val"}
    assert {record.split for record in listed(tmp_path, val_ratio=0, test_ratio=0)} == {"train"}


def test_small_class_is_in_every_split(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    assert set(counts(listed(tmp_path, val_ratio=0.05, test_ratio=0.9)).values()) == {1}


@pytest.mark.parametrize("top", ["", "my faces/"])
def test_zip_and_folder_give_the_same_records(tmp_path: Path, top: str) -> None:
    folder = fill(tmp_path / "folder", range(20))
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, top + file.relative_to(folder).as_posix())
    found = [{(r.id, r.pixels().tobytes()) for r in listed(tmp_path / n)} for n in ("folder", "faces.zip")]
    assert found[0] == found[1]


FAULTS: dict[str, Callable[[Path], object]] = {
    "no folder of class sad; expected one for each class": lambda root: shutil.rmtree(root / "sad"),
    "bored: unknown class 'bored', expected one of: happy, sad; rename or remove": lambda root: (
        root / "bored"
    ).mkdir(),
    "sad: an empty class folder": lambda root: [file.unlink() for file in (root / "sad").iterdir()],
    "a second folder of class sad": lambda root: fill(root, range(1), classes=("sadness",)),
    "a.png: an image outside the class folders": lambda root: (root / "a.png").write_bytes(b""),
}


@pytest.mark.parametrize("sentence", FAULTS)
@pytest.mark.parametrize("part", ["", "train", "val", "test"])
def test_class_folder_fault_is_one_sentence(tmp_path: Path, sentence: str, part: str) -> None:
    for name in ("train", "val", "test") if part else ("",):
        fill(tmp_path / name, range(5))
    FAULTS[sentence](tmp_path / part)
    assert sentence in fault(tmp_path)
    assert fault(tmp_path).startswith(str(tmp_path / part))


def test_split_folders_without_train_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "val", range(5))
    fill(tmp_path / "test", range(5))
    assert fault(tmp_path) == f"{tmp_path}: no folder train, found test, val"


def test_class_folder_next_to_split_folders_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "train", range(5))
    fill(tmp_path, range(5))
    assert "unexpected folder next to split folders" in fault(tmp_path)


def test_two_folders_of_one_split_are_refused(tmp_path: Path) -> None:
    for name in ("train", "val", "valid"):
        fill(tmp_path / name, range(5))
    assert "a second val folder" in fault(tmp_path)


def test_class_too_small_to_split_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, range(9))
    for number in range(2, 9):
        (tmp_path / "sad" / f"{number:03}.png").unlink()
    assert "class sad has 2 different images, too few to split into train, test, val" in fault(tmp_path)


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0.1), (0.5, 0.5), (0.1, 1.2)])
def test_impossible_ratios_are_refused(tmp_path: Path, val: float, test: float) -> None:
    assert f"val_ratio={val}, data.source.test_ratio={test}: expected" in fault(
        tmp_path, val_ratio=val, test_ratio=test
    )


def test_missing_root_is_named(tmp_path: Path) -> None:
    assert fault(tmp_path / "nowhere").startswith(f"{tmp_path / 'nowhere'}: no such file or folder")


# Taking what is there


def test_a_partial_folder_may_lack_splits_and_classes_and_have_others(tmp_path):
    fill(tmp_path / "test", range(3), classes=("smile", "contempt"))
    fill(tmp_path / "notes", range(1), classes=("sad",))
    read = source(tmp_path, partial=True)
    assert sorted(record.id for record in read.records()) == [f"test/happy/00{n}.png" for n in range(3)]
    assert read.holdout() is None
    assert read.left_out == (
        f"{tmp_path}/notes: a folder next to split folders, left out",
        f"{tmp_path}/test/contempt: 3 images of an unknown class, left out",
        f"{tmp_path}/test: no images of class sad",
    )
    with pytest.raises(FERError, match="unexpected folder next to split folders"):
        list(source(tmp_path).records())


def test_a_whole_folder_has_the_same_cache_as_a_partial_one(tmp_path):
    fill(tmp_path / "whole", range(9))
    assert source(tmp_path / "whole", partial=True).cache_key() == source(tmp_path / "whole").cache_key()
    fill(tmp_path / "cut", range(9), classes=("happy",))
    with pytest.raises(FERError, match="no folder of class sad"):
        list(source(tmp_path / "cut").records())
    assert source(tmp_path / "cut", partial=True).cache_key() != source(tmp_path / "cut").cache_key()


def test_a_partial_folder_without_any_known_class_is_refused(tmp_path):
    fill(tmp_path, range(3), classes=("contempt",))
    with pytest.raises(FERError, match="no folder of class happy, sad; expected at least one of them"):
        list(source(tmp_path, partial=True).records())


def test_the_notes_of_a_partial_folder_travel_with_its_images(tmp_path):
    fill(tmp_path / "faces/test", range(3), classes=("happy", "contempt"))
    for _ in range(2):  # decoded, then from the cache
        faces = load_faces(source(tmp_path / "faces", partial=True), cache_dir=tmp_path / "cache", log=print)
        assert len(faces) == 3
        assert [note.partition(": ")[2] for note in faces.notes] == [
            "3 images of an unknown class, left out",
            "no images of class sad",
        ]


def test_an_empty_split_of_a_partial_folder_is_a_missing_one(tmp_path):
    fill(tmp_path / "test", range(3))
    (tmp_path / "train/happy").mkdir(parents=True)
    (tmp_path / "val").mkdir()
    read = source(tmp_path, partial=True)
    assert {record.split for record in read.records()} == {"test"}
    assert read.holdout() is None
