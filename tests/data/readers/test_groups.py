"""The group of an image: by a regular expression, a folder level or a CSV."""

import numpy as np
import pytest
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.data.cache import load_faces
from fer_lightning.data.readers.groups import open_grouping
from fer_lightning.data.readers.image_folder import ImageFolder

ID = "train/happy/s05_003.png"


@pytest.mark.parametrize(
    ("pattern", "group"),
    [(r"s(\d+)_", "05"), (r"s\d+", "s05"), ("^train/(happy)/", "happy"), ("(?:s|t)(0)(5)", "0")],
)
def test_group_is_the_first_group_of_the_pattern_or_its_match(pattern, group):
    assert open_grouping(pattern).group_of(ID, "happy/s05_003.png") == group


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("s(", r"data.source.group=s\(: not a regular expression \(missing \)"),
        ("folder:0", "data.source.group=folder:0: expected folder: and a whole number of at least 1"),
        ("folder:x", "data.source.group=folder:x: expected folder: and a whole number"),
        (3, "data.source.group=3: expected a regular expression"),
        ("", "data.source.group=: expected a regular expression"),
        ({"csv": "a.csv"}, "data.source.group=.*: expected a regular expression"),
        ({"csv": "a.csv", "column": "x", "colum": "y"}, "data.source.group=.*: expected"),
        ({"csv": "nowhere.csv", "column": "x"}, "data.source.group: nowhere.csv: No such file"),
    ],
)
def test_setting_that_cannot_work_is_refused(setting, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FERError, match=sentence):
        open_grouping(setting)


@pytest.mark.parametrize("pattern", [r"p(\d+)", r"s(9)?"])
def test_id_without_a_group_is_named(pattern):
    with pytest.raises(FERError, match=f"finds no group in the image id {ID}"):
        open_grouping(pattern).group_of(ID, "")


@pytest.fixture
def by_csv(tmp_path):
    def run(text, **more):
        (tmp_path / "subjects.csv").write_text(text, encoding="utf-8-sig")
        return open_grouping({"csv": str(tmp_path / "subjects.csv"), "column": "subject"} | more)

    return run


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("file,subject", "s05_003.png,anna"),
        ("Subject,ID", "anna,train/happy/s05_003.png"),
        ("name;age;subject", "happy/s05_003.png;31;anna"),
        ("filename\tsubject", "s05_003\tanna"),
        ("image,subject", "Happiness\\s05_003.png,anna"),
    ],
)
def test_csv_names_images_by_id_class_path_or_name(by_csv, header, row):
    assert by_csv(f"{header}\n{row}\n").group_of(ID, "Happiness/s05_003.png") == "anna"


def test_csv_can_name_its_key_column(by_csv):
    assert by_csv("who,subject,photo\nx,anna,s05_003.png\n", key="photo").group_of(ID, "") == "anna"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,person\na,b\n", "subjects.csv:1: no column subject, found: file, person"),
        ("", "subjects.csv:1: no column subject, found: nothing"),
        ("subject,who\na,b\n", "subjects.csv:1: no column that names the images, expected one of id, image"),
        ("file,subject\na.png,\n", "subjects.csv:2: '' in the column subject, expected a group"),
        ("file,subject\na.png\n", "subjects.csv:2: 1 columns, expected 2"),
        ("file,subject\na.png,1\na.png,2\n", "subjects.csv:3: a.png is in the group 2, and before in 1"),
    ],
)
def test_fault_of_the_csv_is_one_sentence(by_csv, text, sentence):
    with pytest.raises(FERError, match=sentence):
        by_csv(text)


def test_image_without_a_row_and_ambiguous_name_are_named(by_csv):
    groups = by_csv("file,subject\n1.png,anna\n")
    with pytest.raises(FERError, match="no row for the image happy/2.png; expected one for each image"):
        groups.group_of("train/happy/2.png", "happy/2.png")
    groups.group_of("train/happy/1.png", "happy/1.png")
    with pytest.raises(FERError, match="1.png is the name of happy/1.png and of sad/1.png"):
        groups.group_of("train/sad/1.png", "sad/1.png")


@pytest.fixture
def nested(tmp_path):
    """Write four images of each of six people, in a folder per person below the class folders."""
    random = np.random.default_rng(0)
    for name in ("happy", "sad"):
        for person in range(6):
            folder = tmp_path / "images" / name / f"S{person}"
            folder.mkdir(parents=True)
            for number in range(4):
                Image.fromarray(random.integers(0, 256, (16, 16), np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "images"


def read(root, group):
    return ImageFolder(root=root, classes=("happy", "sad"), image_size=16, group=group)


@pytest.mark.parametrize("group", ["folder:1", "/(S[0-9])/"])
def test_folders_below_the_class_folders_can_be_groups(nested, tmp_path, group):
    faces = load_faces(read(nested, group), cache_dir=tmp_path / "c", log=lambda sentence: None)
    assert len(faces) == 48
    assert faces.ids[0].split("/")[2].startswith("S")
    people = {split: set(faces.groups[faces.splits == split]) for split in range(3)}
    assert sorted(map(len, people.values())) == [1, 1, 4]
    assert not people[0] & people[1] | people[1] & people[2] | people[0] & people[2]


def test_folder_level_that_is_not_there_is_named(nested):
    with pytest.raises(FERError, match=r"folder:2: happy/S0/0.png has 1 folders below its class folder"):
        list(read(nested, "folder:2").records())


def test_folders_below_the_class_folders_are_refused_without_groups(nested):
    with pytest.raises(FERError, match="a folder, expected the files of one class"):
        list(read(nested, None).records())


def test_other_groups_are_another_data_set(nested):
    keys = {read(nested, group).cache_key() for group in ("folder:1", "(S)", None)}
    assert len(keys) == 3
