import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fer_lightning.data.audit import audit as audit_module
from fer_lightning.data.audit.audit import audit, load_audit, main
from fer_lightning.data.audit.quality import FER2013_COUNTS
from fer_lightning.data.cache import load_faces
from fer_lightning.data.faces import SPLITS, Faces, pixel_digest, pixel_hash
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.data.readers.fer2013 import open_fer2013
from tests.commands import ROOT

REAL = pytest.mark.skipif(not os.environ.get("FER2013_ROOT"), reason="needs FER2013_ROOT")


def picture(seed):
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 6)).astype(np.uint8)).resize((24, 24))
    return np.asarray(coarse)


def lighter(image):
    return np.clip(image * 0.7 + 50, 0, 255).astype(np.uint8)


def blank(level):
    return np.full((24, 24), level, np.uint8)


def build(*rows, fingerprint="0123456789abcdef"):
    """A data set by hand: each face is (split, label, image), of two classes."""
    classes = ("sad", "happy")
    images = np.stack([image for _, _, image in rows])
    return Faces(
        images=images,
        labels=np.array([label for _, label, _ in rows]),
        splits=np.array([SPLITS.index(split) for split, _, _ in rows], np.uint8),
        hashes=np.array([pixel_hash(pixel_digest(image)) for image in images], np.uint64),
        ids=np.array([f"{split}/{classes[label]}/{i}" for i, (split, label, _) in enumerate(rows)]),
        classes=classes,
        fingerprint=fingerprint,
    )


a, b, c, d = map(picture, range(4))
MESSY = build(
    ("train", 0, a),
    ("train", 0, a),  # a copy in its own split
    ("train", 1, b),
    ("train", 1, blank(0)),
    ("train", 1, c),
    ("train", 0, lighter(c)),  # near-duplicates in one split
    ("val", 1, b),  # stands in train
    ("val", 0, blank(7)),
    ("test", 0, b),  # stands in train and in val, under another name
    ("test", 1, lighter(a)),  # near to two of train
    ("test", 1, lighter(a)[:, ::-1]),  # mirrored too
    ("test", 1, d),
)


def test_copies_leaks_and_conflicts_are_counted():
    assert audit(MESSY, name="mine")["copies"] == {
        "groups": 2,
        "images": 5,
        "redundant": 3,
        "conflicting_groups": 1,
        "test_in_train": 1,
        "val_in_train": 1,
        "test_in_val": 1,
    }


def test_constant_images_of_every_level_are_counted_by_split():
    assert audit(MESSY, name="mine")["constant"] == {"images": 2, "train": 1, "val": 1, "test": 0}


def test_near_duplicates_are_counted_within_and_across_splits():
    near = audit(MESSY, name="mine")["near_duplicates"]
    assert near["complete"]
    assert near["all"] == {"pairs": 4, "groups": 2, "images": 6}
    assert near["across_splits"] == {"pairs": 2, "groups": 1, "images": 4}
    assert near["within_splits"] == {"pairs": 2, "groups": 2, "images": 4}
    assert near["mirrored_pairs"] == 2
    assert (near["test_near_train"], near["val_near_train"], near["test_near_val"]) == (2, 0, 0)
    assert "0.93" in near["definition"]


def test_a_face_with_a_copy_in_train_does_not_count_as_near_to_train_too():
    faces = build(("train", 0, a), ("train", 0, lighter(a)), ("test", 0, a))
    facts = audit(faces, name="mine")
    assert facts["copies"]["test_in_train"] == 1
    assert facts["near_duplicates"]["test_near_train"] == 0


def test_classes_and_their_balance_are_counted_by_split():
    facts = audit(
        build(*[("train", 0, picture(i)) for i in range(3)], ("train", 1, d), ("test", 1, a)), name="m"
    )
    assert facts["counts"] == {
        "train": {"sad": 3, "happy": 1},
        "val": {"sad": 0, "happy": 0},
        "test": {"sad": 0, "happy": 1},
    }
    assert facts["balance"] == {
        "train": {"largest": "sad", "smallest": "happy", "ratio": 3.0},
        "val": None,
        "test": {"largest": "happy", "smallest": "sad", "ratio": None},
    }


def test_one_image_is_a_data_set():
    facts = audit(build(("train", 0, a)), name="mine")
    assert facts["num_images"] == 1
    assert facts["quality"]["medians"]["test"] == {}
    assert facts["quality"]["ratios"] == {}
    assert facts["warnings"] == []
    json.dumps(facts, allow_nan=False)


def test_examples_show_conflicts_near_duplicates_across_splits_and_constants():
    examples = audit(MESSY, name="mine")["examples"]
    assert [(example["kind"], example["rows"]) for example in examples] == [
        ("conflict", [2, 8]),
        ("near", [0, 9]),
        ("constant", [3]),
        ("constant", [7]),
    ]
    assert examples[0]["ids"] == ["train/happy/2", "test/sad/8"]


def test_conflicts_in_different_splits_come_first():
    faces = build(
        ("train", 0, a), ("train", 1, a), ("train", 0, b), ("train", 1, b), ("test", 1, b), ("val", 0, d)
    )
    found = [example["rows"] for example in audit(faces, name="mine")["examples"]]
    assert found == [[2, 4], [0, 1]]


def test_near_duplicates_are_shown_differently_labelled_ones_first_then_the_nearest():
    def shifted(image):
        return np.asarray(Image.fromarray(image).crop((1, 1, 24, 24)).resize((24, 24)))

    faces = build(
        *[("train", 0, a), ("train", 0, b), ("train", 0, c), ("train", 1, d)],
        *[("test", 0, shifted(a)), ("test", 0, lighter(b)), ("test", 1, shifted(c)), ("val", 1, shifted(d))],
    )
    found = [example["rows"] for example in audit(faces, name="mine")["examples"]]
    assert (found[0], found[1]) == ([2, 6], [1, 5])
    assert sorted(found[2:]) == [[0, 4], [3, 7]]


def many(n, split, seed, change=lambda image: image):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (n, 24, 24)).astype(np.uint8)
    return [(split, i % 2, np.asarray(change(Image.fromarray(image)))) for i, image in enumerate(images)]


def test_a_blurred_training_split_is_warned_of_and_a_clean_one_is_not():
    rest = [*many(120, "val", 1), *many(120, "test", 2)]
    clean = audit(build(*many(300, "train", 0), *rest), name="mine")
    blur = ImageFilter.GaussianBlur(1)
    blurred = audit(build(*many(300, "train", 0, lambda image: image.filter(blur)), *rest), name="mine")
    assert clean["warnings"] == []
    assert clean["quality"]["ratios"]["test/train"]["sharpness"] == pytest.approx(1, abs=0.05)
    assert [sentence.split(":")[0] for sentence in blurred["warnings"]] == [
        "train images are unlike test images",
        "train images are unlike val images",
    ]


def test_only_faces_named_fer2013_at_48_pixels_have_known_values():
    facts = audit(build(("train", 0, a)), name="fer2013")  # of 24 pixels
    assert (facts["quality"]["known"], facts["as_published"]) == (None, None)


def test_a_search_that_was_not_whole_is_a_warning(monkeypatch):
    monkeypatch.setattr("fer_lightning.data.audit.near_duplicates.MAX_PICTURES", 3)
    facts = audit(MESSY, name="mine")
    assert not facts["near_duplicates"]["complete"]
    assert facts["warnings"][0].startswith("near-duplicates were not looked for")


# The cache


@pytest.fixture
def load(tmp_path):
    def run(faces=MESSY, *, cache_dir=tmp_path, name="mine"):
        return load_audit(faces, cache_dir=cache_dir, name=name, say=lambda sentence: None)

    return run


@pytest.fixture
def counted(monkeypatch):
    """Every audit that was made and not read."""
    made = []
    real = audit_module.audit
    monkeypatch.setattr(
        audit_module, "audit", lambda *args, **kwargs: made.append(1) or real(*args, **kwargs)
    )
    return made


def test_a_data_set_is_audited_once(load, counted):
    assert load() == load() == audit(MESSY, name="mine")
    assert len(counted) == 1


def test_another_data_set_name_or_class_list_is_audited_anew(load, counted):
    load()
    load(name="fer2013")
    load(replace(MESSY, fingerprint="another"))
    load(replace(MESSY, classes=("happy", "sad")))
    assert len(counted) == 4


def test_the_same_images_under_other_ids_keep_their_own(load, counted):
    load()
    facts = load(replace(MESSY, ids=np.array([f"train/sad/{i}.png" for i in range(len(MESSY))])))
    assert len(counted) == 1
    assert facts["examples"][0]["ids"] == ["train/sad/2.png", "train/sad/8.png"]


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"examples": [{"rows": [99]}], "warnings": []}',
        '{"examples": [], "warnings": 0}',
    ],
)
def test_a_damaged_cache_is_made_anew(load, tmp_path, damage):
    whole = load()
    (path,) = tmp_path.glob("audit-*.json")
    path.write_text(damage)
    assert load() == whole
    assert json.loads(path.read_text()) == whole


def test_a_cache_that_cannot_be_written_is_no_error(load, tmp_path):
    (tmp_path / "file").write_text("")
    assert load(cache_dir=tmp_path / "file" / "below")["num_images"] == len(MESSY)


# The command


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Nothing is found unless a test puts it there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FER2013_ROOT", raising=False)
    monkeypatch.delenv("KAGGLEHUB_CACHE", raising=False)
    monkeypatch.setattr("fer_lightning.data.locate._kaggle_answers", lambda: False)
    return tmp_path


def figures(printed):
    return dict(line.rsplit(maxsplit=1) for line in printed.splitlines() if len(line.split()) > 1)


def test_the_command_prints_a_figure_a_line_and_writes_the_file(home, forms, monkeypatch, capsys):
    monkeypatch.setenv("FER2013_ROOT", str(forms.zip()))
    assert main([]) == 0
    told = figures(capsys.readouterr().out)
    assert (told["images"], told["train images"], told["train disgust"]) == ("28", "14", "2")
    assert told["groups of pixel-identical copies"] == "0"
    written = json.loads((home / "outputs" / "audit.json").read_text())
    assert (written["schema"], written["name"], written["as_published"]) == (3, "fer2013", False)


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
        (change_a_label, "this FER-2013 is not the published one: every split has as many images"),
        (change_a_pixel, "this FER-2013 is not the published one: every split has as many images"),
        (lambda rows: rows[1:], "this FER-2013 has 13 train / 7 val / 7 test images, not the 14 / 7 / 7"),
        (lambda rows: [*rows, rows[0]], "this FER-2013 has 15 train / 7 val / 7 test images, not the 14"),
    ],
    ids=["as published", "a label", "a pixel", "one less", "one more"],
)
def test_one_pixel_label_or_image_that_differs_from_fer2013_as_published_is_told(
    home, forms, monkeypatch, capsys, change, sentence
):
    source = open_fer2013(root=forms.csv(), classes=EXPRESSIONS)
    published = load_faces(source, cache_dir=home / "cache", say=lambda sentence: None).fingerprint
    monkeypatch.setattr("fer_lightning.data.audit.quality.FER2013_FINGERPRINT", published)
    monkeypatch.setattr("fer_lightning.data.audit.quality.FER2013_COUNTS", {"train": 14, "val": 7, "test": 7})
    rows = change(forms.rows())
    monkeypatch.setattr(forms, "rows", lambda: rows)

    assert main(["--root", str(forms.csv("changed.csv"))]) == 0

    out = capsys.readouterr().out
    assert figures(out)["as published"] == ("0" if sentence else "1")
    told = [line for line in out.splitlines() if line.startswith("WARNING")]
    assert [line.removeprefix("WARNING ")[: len(sentence or "")] for line in told] == [sentence] * len(told)
    assert len(told) == (sentence is not None)


def test_whether_other_data_are_as_published_is_no_question(class_folders, capsys):
    class_folders("train")
    assert main(["--root", "mine"]) == 0
    out = capsys.readouterr().out
    assert "as published" not in figures(out)
    assert "WARNING" not in out


def test_the_command_takes_a_root_and_a_place_to_write(home, forms, capsys):
    assert main(["--root", str(forms.csv()), "--out", "here/a.json"]) == 0
    assert json.loads((home / "here" / "a.json").read_text())["num_images"] == 28


@pytest.fixture
def class_folders(home):
    """Write three different pictures for each class of each split, below ``mine``; no split is ``.``."""

    def write(*splits, classes=EXPRESSIONS):
        seed = 100
        for split in splits:
            for name in classes:
                (home / "mine" / split / name).mkdir(parents=True)
                for i in range(3):
                    seed += 1
                    Image.fromarray(picture(seed)).save(home / "mine" / split / name / f"{i}.png")

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
def test_the_command_takes_class_folders_as_they_are(class_folders, capsys, classes, splits, expected):
    class_folders(*splits, classes=classes)
    assert main(["--root", "mine"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        f"mine: class folders ({', '.join(classes)}), not FER-2013; images are scaled to 48 pixels\n"
    )
    told = figures(out)
    assert told["images"] == str(3 * len(splits) * len(classes))
    for split in SPLITS:
        for name in classes:
            assert told[f"{split} {name}"] == ("3" if split in expected else "0")


def test_the_command_takes_class_folders_in_a_zip(home, class_folders, capsys):
    class_folders("train", "test")
    shutil.make_archive("mine", "zip", "mine")
    assert main(["--root", "mine.zip"]) == 0
    assert figures(capsys.readouterr().out)["test happy"] == "3"


def test_class_folders_that_do_not_agree_are_one_sentence(home, class_folders, capsys):
    class_folders("train", "val", "test", classes=("happy", "sad"))
    shutil.rmtree("mine/val/sad")
    assert main(["--root", "mine"]) == 1
    assert capsys.readouterr().err == (
        "error: mine/val: no folder of class sad; expected one for each class\n"
    )


def test_fer2013_that_is_at_fault_is_not_taken_for_class_folders(home, forms, capsys):
    (home / "data" / "submission").mkdir(parents=True)
    path = forms.csv("data/fer2013.csv")
    path.write_text(path.read_text().replace("PrivateTest", "PublicTest"))
    assert main(["--root", "data"]) == 1
    assert "the test split (PrivateTest) is empty" in capsys.readouterr().err


def test_warnings_are_loud_and_no_failure(home, forms, monkeypatch, capsys):
    monkeypatch.setattr(
        "fer_lightning.data.audit.quality.MIN_IMAGES", 1
    )  # noise is no face, and there are few
    assert main(["--root", str(forms.zip())]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("WARNING train images are not those of FER-2013: ")]


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
def test_nothing_found_is_a_sentence_and_never_drawn_faces(home, capsys, arguments, sentence):
    (home / "empty").mkdir()
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert printed.out == ""
    assert not (home / "outputs").exists()


def test_a_place_that_cannot_be_written_is_told(home, forms, capsys):
    (home / "file").write_text("")
    assert main(["--root", str(forms.zip()), "--out", "file/audit.json"]) == 1
    assert "error: --out file/audit.json: cannot be written" in capsys.readouterr().err


def test_a_run_that_keeps_its_audit_loads_no_part_of_the_command():
    listed = "import sys, fer_lightning.data.audit.audit; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", listed], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(output.stdout.split())
    assert "fer_lightning.data.audit.near_duplicates" in loaded
    assert not loaded & {"rich", "fer_lightning.runs.folder", "fer_lightning.data.locate"}


# The real data set


@pytest.fixture(scope="module")
def fer2013(tmp_path_factory):
    source = open_fer2013(root=os.environ["FER2013_ROOT"], classes=EXPRESSIONS)
    return load_faces(source, cache_dir=Path(tmp_path_factory.mktemp("cache")), say=lambda sentence: None)


@REAL
def test_the_real_data_set_has_its_known_defects_and_no_warning(fer2013):
    facts = audit(fer2013, name="fer2013")
    assert facts["copies"] == {
        "groups": 1516,
        "images": 3369,
        "redundant": 1853,
        "conflicting_groups": 57,
        "test_in_train": 288,
        "val_in_train": 280,
        "test_in_val": 44,
    }
    assert facts["constant"] == {"images": 12, "train": 11, "val": 1, "test": 0}
    assert list(facts["counts"]["train"].values()) == [3995, 436, 4097, 7215, 4965, 4830, 3171]
    assert {split: sum(by_class.values()) for split, by_class in facts["counts"].items()} == FER2013_COUNTS
    assert facts["balance"]["train"] == {"largest": "happy", "smallest": "disgust", "ratio": 16.548}
    near = facts["near_duplicates"]
    # Exact on any processor: the pair next to a bound is 2e-6 off it, and sums are rounded by 1e-7.
    assert near["all"] == {"pairs": 1377, "groups": 760, "images": 2158}
    assert near["across_splits"] == {"pairs": 560, "groups": 344, "images": 1068}
    assert near["mirrored_pairs"] == 17
    assert facts["as_published"]
    assert facts["warnings"] == []


@REAL
def test_a_real_data_set_with_blurred_training_images_is_called_out(fer2013):
    rows = np.arange(0, len(fer2013), 8)
    part = replace(
        fer2013,
        **{
            name: np.array(getattr(fer2013, name)[rows])
            for name in ("images", "labels", "splits", "hashes", "ids")
        },
        fingerprint="a part",
    )
    (whole,) = audit(part, name="fer2013")["warnings"]
    assert "no fault if it is meant" in whole
    for row in np.flatnonzero(part.splits == 0):
        blurred = Image.fromarray(part.images[row]).filter(ImageFilter.GaussianBlur(1))
        part.images[row] = np.asarray(blurred)
    _, warning = audit(part, name="fer2013")["warnings"]
    assert warning.startswith("train images are not those of FER-2013: median sharpness 1")
    assert "(-93 %)" in warning
    assert "They look blurred" in warning
