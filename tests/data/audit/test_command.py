import json
import shutil

import numpy as np
import pytest
from PIL import Image

from fer_lightning.cli.audit import main
from fer_lightning.data.audit.published import Published
from fer_lightning.data.cache import load_faces
from fer_lightning.data.faces import SPLITS
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.data.readers.fer2013 import open_fer2013


def _noise(seed):
    levels = np.random.default_rng(seed).integers(0, 256, (24, 24))
    return Image.fromarray(levels.astype(np.uint8))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Make an empty home folder in which no data set is found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FER2013_ROOT", raising=False)
    monkeypatch.delenv("KAGGLEHUB_CACHE", raising=False)
    monkeypatch.setattr("fer_lightning.data.locate._kaggle_answers", lambda: False)
    return tmp_path


def figures(printed):
    return dict(line.rsplit(maxsplit=1) for line in printed.splitlines() if len(line.split()) > 1)


def test_command_prints_one_figure_per_line_and_writes_the_file(home, forms, monkeypatch, capsys):
    monkeypatch.setenv("FER2013_ROOT", str(forms.zip()))
    assert main([]) == 0
    printed_figures = figures(capsys.readouterr().out)
    assert (printed_figures["images"], printed_figures["train images"], printed_figures["train disgust"]) == (
        "28",
        "14",
        "2",
    )
    assert printed_figures["groups of pixel-identical images"] == "0"
    written = json.loads((home / "outputs" / "audit.json").read_text())
    assert (written["schema"], written["name"], written["as_published"]) == (4, "fer2013", False)


def change_a_label(rows):
    (one, pixels, usage), (other, *rest) = rows[0], rows[-1]
    return [(other, pixels, usage), *rows[1:-1], (one, *rest)]


def change_a_pixel(rows):
    (label, pixels, usage), *rest = rows
    first, *others = pixels.split()
    return [(label, " ".join([str(int(first) ^ 1), *others]), usage), *rest]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rows: rows, None),
        (change_a_label, "this FER-2013 has other labels than published for 2 images, such as train/"),
        (change_a_pixel, "this FER-2013 has 1 image with altered pixels"),
        (lambda rows: rows[1:], "this FER-2013 lacks 1 image of the published 28: 1 of train"),
        (
            lambda rows: [*rows, rows[0]],
            "this FER-2013 has 1 added copy, such as train/angry/row_30: 1 more of train in the same split",
        ),
    ],
    ids=["as published", "a label", "a pixel", "one less", "one more"],
)
def test_any_difference_from_published_fer2013_is_a_warning(
    home, forms, monkeypatch, capsys, change, sentence
):
    source = open_fer2013(root=forms.csv(), classes=EXPRESSIONS)
    faces = load_faces(source, cache_dir=home / "cache", log=lambda sentence: None)
    monkeypatch.setattr("fer_lightning.data.audit.quality.FER2013_FINGERPRINT", faces.fingerprint)
    published = Published.of(faces)
    monkeypatch.setattr("fer_lightning.data.audit.facts.load_published", lambda: published)
    rows = change(forms.rows())
    monkeypatch.setattr(forms, "rows", lambda: rows)

    assert main(["--root", str(forms.csv("changed.csv"))]) == 0

    out = capsys.readouterr().out
    assert figures(out)["as published"] == ("0" if sentence else "1")
    warnings = [line for line in out.splitlines() if line.startswith("WARNING")]
    assert [line.removeprefix("WARNING ")[: len(sentence or "")] for line in warnings] == [sentence] * len(
        warnings
    )
    assert len(warnings) == (sentence is not None)


def test_other_data_sets_are_not_compared_with_fer2013(class_folders, capsys):
    class_folders("train")
    assert main(["--root", "mine"]) == 0
    out = capsys.readouterr().out
    assert "as published" not in figures(out)
    assert "WARNING" not in out


def test_command_takes_a_root_and_an_output_path(home, forms, capsys):
    assert main(["--root", str(forms.csv()), "--out", "here/a.json"]) == 0
    assert json.loads((home / "here" / "a.json").read_text())["num_images"] == 28


@pytest.fixture
def class_folders(home):
    """Write three different images for each class of each split below ``mine``; ``.`` means no split."""

    def write(*splits, classes=EXPRESSIONS):
        seed = 100
        for split in splits:
            for name in classes:
                (home / "mine" / split / name).mkdir(parents=True)
                for i in range(3):
                    seed += 1
                    _noise(seed).save(home / "mine" / split / name / f"{i}.png")

    return write


@pytest.mark.parametrize("classes", [EXPRESSIONS, ("bored", "in_love")], ids=["the seven", "others"])
@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (["."], {"train"}),
        (["train", "test"], {"train", "test"}),
        (["train", "val", "test"], {"train", "val", "test"}),
        (["Training", "valid", "testing"], {"train", "val", "test"}),
    ],
    ids=lambda value: "/".join(value) if isinstance(value, list) else "",
)
def test_command_takes_class_folders_as_they_are(class_folders, capsys, classes, splits, expected):
    class_folders(*splits, classes=classes)
    assert main(["--root", "mine"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        f"mine: class folders ({', '.join(classes)}), not FER-2013 as published; "
        "images are scaled to 48 pixels\n"
    )
    printed_figures = figures(out)
    assert printed_figures["images"] == str(3 * len(splits) * len(classes))
    for split in SPLITS:
        for name in classes:
            assert printed_figures[f"{split} {name}"] == ("3" if split in expected else "0")


def test_fer2013_of_another_size_is_read_as_class_folders(home, forms, monkeypatch, capsys):
    folder = forms.folder()
    for path in folder.rglob("*.jpg"):
        Image.open(path).resize((60, 60)).save(path, "PNG")
    assert main(["--root", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "not FER-2013 as published (60x60 pixels, expected 48x48); images are scaled to 48 pixels" in out
    assert figures(out)["images"] == "28"


def test_command_takes_class_folders_in_a_zip(home, class_folders, capsys):
    class_folders("train", "test")
    shutil.make_archive("mine", "zip", "mine")
    assert main(["--root", "mine.zip"]) == 0
    assert figures(capsys.readouterr().out)["test happy"] == "3"


def test_missing_class_folder_is_reported(home, class_folders, capsys):
    class_folders("train", "val", "test", classes=("happy", "sad"))
    shutil.rmtree("mine/val/sad")
    assert main(["--root", "mine"]) == 1
    assert capsys.readouterr().err.startswith("error: mine/val: no folder of class sad")


def test_damaged_fer2013_is_not_read_as_class_folders(home, forms, capsys):
    (home / "data" / "submission").mkdir(parents=True)
    path = forms.csv("data/fer2013.csv")
    path.write_text(path.read_text().replace("PrivateTest", "PublicTest"))
    assert main(["--root", "data"]) == 1
    assert "the test split (PrivateTest) is empty" in capsys.readouterr().err


def test_warnings_are_printed_and_exit_with_0(home, forms, monkeypatch, capsys):
    monkeypatch.setattr("fer_lightning.data.audit.quality.MIN_IMAGES", 1)  # the test has a few random images
    assert main(["--root", str(forms.zip())]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("WARNING train images differ from FER-2013: ")]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            [],
            "error: --root: not given, and FER-2013 was not found (--root is not set; FER2013_ROOT is not",
        ),
        (["--root", "nowhere"], "error: nowhere: no such file or folder"),
        (["--root", "empty"], "not FER-2013; looked for"),
    ],
)
def test_nothing_found_is_an_error_and_not_synthetic_faces(home, capsys, arguments, sentence):
    (home / "empty").mkdir()
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert printed.out == ""
    assert not (home / "outputs").exists()


def test_unwritable_output_path_is_an_error(home, forms, capsys):
    (home / "file").write_text("")
    assert main(["--root", str(forms.zip()), "--out", "file/audit.json"]) == 1
    assert "error: --out file/audit.json: cannot be written" in capsys.readouterr().err
