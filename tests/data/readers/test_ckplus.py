"""CK+, from miniatures of both of its layouts."""

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
from fer_lightning.data.readers.ckplus import EXPRESSIONS, SEQUENCES, CKPlus
from tests.commands import succeed

CLASSES = ("angry", "contempt", "disgust", "fear", "happy", "sad", "surprise")
SUBJECTS = ("S005", "S010", "S011", "S999")


def draw(path: Path, seed: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8), dtype=np.uint8)).save(path)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Each subject shows each expression in five frames; one more sequence has no label."""
    root = tmp_path / "CK+"
    for number, subject in enumerate(SUBJECTS):
        for code in range(8):
            sequence = f"{code + 1:03}"
            for frame in range(1, 6):
                name = f"{subject}_{sequence}_{frame:08}.png"
                draw(root / "cohn-kanade-images" / subject / sequence / name, [number, code, frame])
            folder = root / "Emotion" / subject / sequence
            folder.mkdir(parents=True)
            if code:
                (folder / f"{subject}_{sequence}_00000005_emotion.txt").write_text(f"   {code}.0000000e+00\n")
    return root


@pytest.fixture
def folders(published: Path, tmp_path: Path) -> Path:
    """The last three frames of each sequence, in class folders."""
    for record in source(published).records():
        target = tmp_path / "CK+48" / EXPRESSIONS[record.label] / record.id.rpartition("/")[2]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(record.where, target)
    return tmp_path / "CK+48"


def source(root: Path, classes: tuple[str, ...] = CLASSES, **settings: Any) -> CKPlus:
    return CKPlus(root=root, classes=classes, **{"image_size": 8} | settings)


def fault(root: Path, **settings: Any) -> str:
    with pytest.raises(FERError) as caught:
        list(source(root, **settings).records())
    return str(caught.value)


def test_the_last_frames_of_labelled_sequences_are_listed(published: Path) -> None:
    found = list(source(published).records())
    assert [record.id for record in found[:4]] == [
        "train/angry/S005_002_00000003.png",
        "train/angry/S005_002_00000004.png",
        "train/angry/S005_002_00000005.png",
        "train/contempt/S005_003_00000003.png",
    ]
    assert Counter(record.label for record in found) == dict.fromkeys(range(7), 12)
    assert {record.group for record in found} == set(SUBJECTS)
    assert {record.group for record in found if "S010" in record.id} == {"S010"}
    assert Counter(record.label for record in source(published, frames=1).records())[0] == 4
    assert np.array_equal(found[0].pixels().shape, (8, 8)), (
        "the whole image is resized to a square, as for any data set"
    )


def test_what_is_not_used_is_a_note(published: Path) -> None:
    assert source(published).left_out == (
        "CK+: 4 sequences have no label, left out",
        "CK+: 84 images, and 981 in the whole data set, so the order of the labels could not be checked by "
        "their counts",
    )
    few = source(published, classes=("happy", "sad"))
    assert len(list(few.records())) == 24
    assert "CK+: 12 images of class contempt, which data.classes does not name, left out" in few.left_out


def test_class_folders_give_the_same_images(published: Path, folders: Path) -> None:
    def listed(root: Path) -> list[Any]:
        return sorted((r.id, r.group, r.pixels().tobytes()) for r in source(root).records())

    assert listed(folders) == listed(published)
    packed = shutil.make_archive(str(published.parent / "packed"), "zip", published.parent, published.name)
    assert listed(Path(packed)) == listed(published)


@pytest.mark.parametrize("form", ["published", "folders"])
def test_subjects_stay_in_one_split(form: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    read = source(request.getfixturevalue(form), val_ratio=0.25, test_ratio=0.25)
    faces = load_faces(read, cache_dir=tmp_path / "c", log=lambda _: None)
    of_subject: dict[str, set[str]] = {}
    for image_id, group in zip(faces.ids.tolist(), faces.groups.tolist(), strict=True):
        of_subject.setdefault(group, set()).add(image_id.split("/")[0])
    assert sorted(tuple(splits) for splits in of_subject.values()) == [
        ("test",),
        ("train",),
        ("train",),
        ("val",),
    ]


def test_the_whole_data_set_is_checked_by_its_class_counts(folders: Path) -> None:
    assert sum(SEQUENCES.values()) == 327
    shutil.rmtree(folders)
    for name, count in SEQUENCES.items():
        (folders / name).mkdir(parents=True)
        for number in range(count * 3):
            (folders / name / f"S{number // 9:03}_{number:03}_00000001.png").touch()
    read = source(folders)
    assert (read.left_out, read.num_images) == ((), 981)
    (folders / "anger/S000_000_00000001.png").rename(folders / "fear/S000_999_00000001.png")
    assert fault(folders) == (
        "CK+: 981 images, as in the whole data set, but 134 of class anger, expected 135; the labels are in "
        "another order, or altered"
    )


def test_a_label_that_is_none_is_named(published: Path) -> None:
    label = published / "Emotion/S010/004/S010_004_00000005_emotion.txt"
    for text in ("0.0000000e+00", "8", "2.5", "nan", "happy", ""):
        label.write_text(text)
        assert f"S010_004_00000005_emotion.txt: '{text}', expected a number from 1 (anger)" in fault(
            published
        )
    label.write_bytes(b"\xff\xfe3")
    assert "S010_004_00000005_emotion.txt: not UTF-8 text" in fault(published)


def test_a_sequence_without_frames_is_a_bad_image(published: Path) -> None:
    shutil.rmtree(published / "cohn-kanade-images/S005/002")
    record = next(iter(source(published).records()))
    assert record.where.endswith("S005_002_00000005_emotion.txt")
    with pytest.raises(FERError, match=r"^no image S005_002_\*.png of this sequence$"):
        record.pixels()


def test_other_faults_are_one_sentence(published: Path, folders: Path, tmp_path: Path) -> None:
    draw(folders / "neutral/S010_001_00000001.png", [1])
    assert "neither a label of its sequence nor a class folder; expected Emotion/S005" in fault(folders)
    shutil.rmtree(folders / "neutral")
    draw(folders / "anger/face1.png", [1])
    assert "face1.png: no subject in the name, expected one such as S010_004" in fault(folders)
    (folders / "anger/face1.png").unlink()
    shutil.copytree(folders / "fear", folders / "more/fear")
    assert "S005_005_00000003.png is also in" in fault(folders)
    shutil.copytree(published / "Emotion/S005", published / "Emotion/more")
    assert "a second label, after" in fault(published)
    shutil.rmtree(published / "Emotion")
    assert "neither a label of its sequence nor a class folder" in fault(published)
    (tmp_path / "empty").mkdir()
    assert "no images of CK+, expected Emotion/S005" in fault(tmp_path / "empty")
    shutil.rmtree(folders / "fear")
    shutil.rmtree(folders / "more")
    assert "no training image of class fear" in fault(folders)
    with pytest.raises(FERError, match="CK\\+ has no class neutral"):
        source(folders, classes=(*CLASSES, "neutral"))
    for frames in (0, True, 1.5):
        with pytest.raises(FERError, match="expected a whole number of at least 1"):
            source(folders, frames=frames)


def test_the_key_changes_with_the_settings(published: Path) -> None:
    keys = {
        source(published, **settings).cache_key()
        for settings in ({}, {"frames": 1}, {"val_ratio": 0.2}, {"split_seed": 1}, {"partial": True})
    }
    assert len(keys) == 4, "partial changes nothing here"


def test_the_data_module_gives_batches(published: Path, tmp_path: Path) -> None:
    data = FERDataModule(root=published, source=CKPlus, classes=CLASSES, cache_dir=tmp_path / "c")
    data.setup()
    assert data.name == "ckplus"
    assert {split: len(rows) for split, rows in data.rows.items()} == {"train": 42, "val": 21, "test": 21}


@pytest.mark.slow
def test_a_run_and_an_evaluation_of_other_classes_read_ckplus(published: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    place: dict[str, Any] = {"cwd": tmp_path, "cache": tmp_path / "home"}
    quick = ("model=mlp", "model.hidden=[8]", "logger=none", "trainer=smoke", "num_threads=1")
    data = ("data=ckplus", f"data.root={published}")
    succeed("train.py", *quick, *data, "data.image_size=16", "hydra.run.dir=run", **place)
    assert json.loads((tmp_path / "run/metrics.json").read_text())["test"]["n"] == 21
    other = (
        "data=synthetic",
        "data.source.num_train=70",
        "data.source.num_val=35",
        "data.source.num_test=35",
    )
    succeed("train.py", *quick, *other, "data.image_size=16", "hydra.run.dir=other", **place)
    succeed("eval.py", "checkpoint=other", *data, "split=all", "hydra.run.dir=eval", **place)
    assert json.loads((tmp_path / "eval/metrics.json").read_text())["all"]["n"] == 72
    notes = json.loads((tmp_path / "eval/run.json").read_text())["data"]["notes"]
    assert "CK+: 12 images of class contempt, which data.classes does not name, left out" in notes
    assert "CK+: no images of class neutral" in notes
