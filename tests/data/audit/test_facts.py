import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fer_lightning.data.audit import facts as facts_module
from fer_lightning.data.audit.facts import audit_data, load_audit
from fer_lightning.data.audit.published import FILE, Published, load_published
from fer_lightning.data.audit.quality import FER2013_COUNTS
from fer_lightning.data.cache import load_faces
from fer_lightning.data.faces import SPLITS, Faces, pixel_digest, pixel_hash
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.data.readers.fer2013 import open_fer2013
from tests.commands import ROOT

REAL = pytest.mark.skipif(not os.environ.get("FER2013_ROOT"), reason="needs FER2013_ROOT")


def make_image(seed):
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 6)).astype(np.uint8)).resize((24, 24))
    return np.asarray(coarse)


def lighter(image):
    return np.clip(image * 0.7 + 50, 0, 255).astype(np.uint8)


def blank(level):
    return np.full((24, 24), level, np.uint8)


def build(*rows, fingerprint="0123456789abcdef"):
    """Make a data set of two classes from rows of (split, label, image)."""
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


a, b, c, d = map(make_image, range(4))
MESSY = build(
    ("train", 0, a),
    ("train", 0, a),  # a duplicate in the same split
    ("train", 1, b),
    ("train", 1, blank(0)),
    ("train", 1, c),
    ("train", 0, lighter(c)),  # near-duplicates in one split
    ("val", 1, b),  # a duplicate in train
    ("val", 0, blank(7)),
    ("test", 0, b),  # duplicates in train and in val, with other labels
    ("test", 1, lighter(a)),  # a near-duplicate of two in train
    ("test", 1, lighter(a)[:, ::-1]),  # the same, mirrored
    ("test", 1, d),
)


def test_duplicates_leaks_and_conflicts_are_counted():
    assert audit_data(MESSY, name="mine")["copies"] == {
        "groups": 2,
        "images": 5,
        "redundant": 3,
        "conflicting_groups": 1,
        "test_in_train": 1,
        "val_in_train": 1,
        "test_in_val": 1,
    }


def test_constant_images_of_every_level_are_counted_by_split():
    assert audit_data(MESSY, name="mine")["constant"] == {"images": 2, "train": 1, "val": 1, "test": 0}


def test_near_duplicates_are_counted_within_and_across_splits():
    near = audit_data(MESSY, name="mine")["near_duplicates"]
    assert near["complete"]
    assert near["all"] == {"pairs": 4, "groups": 2, "images": 6}
    assert near["across_splits"] == {"pairs": 2, "groups": 1, "images": 4}
    assert near["within_splits"] == {"pairs": 2, "groups": 2, "images": 4}
    assert near["mirrored_pairs"] == 2
    assert (near["test_near_train"], near["val_near_train"], near["test_near_val"]) == (2, 0, 0)
    assert "0.93" in near["definition"]


def test_image_with_a_duplicate_in_train_is_no_near_duplicate_of_it():
    faces = build(("train", 0, a), ("train", 0, lighter(a)), ("test", 0, a))
    facts = audit_data(faces, name="mine")
    assert facts["copies"]["test_in_train"] == 1
    assert facts["near_duplicates"]["test_near_train"] == 0


def test_classes_and_their_balance_are_counted_by_split():
    facts = audit_data(
        build(*[("train", 0, make_image(i)) for i in range(3)], ("train", 1, d), ("test", 1, a)), name="m"
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


def test_data_set_of_one_image_is_audited():
    facts = audit_data(build(("train", 0, a)), name="mine")
    assert facts["num_images"] == 1
    assert facts["quality"]["medians"]["test"] == {}
    assert facts["quality"]["ratios"] == {}
    assert facts["warnings"] == []
    json.dumps(facts, allow_nan=False)


def test_examples_show_conflicts_near_duplicates_and_constants():
    examples = audit_data(MESSY, name="mine")["examples"]
    assert [(example["kind"], example["rows"]) for example in examples] == [
        ("conflict", [2, 8]),
        ("near", [0, 9]),
        ("constant", [3]),
        ("constant", [7]),
    ]
    assert examples[0]["ids"] == ["train/happy/2", "test/sad/8"]


def test_examples_list_conflicts_across_splits_first():
    faces = build(
        ("train", 0, a), ("train", 1, a), ("train", 0, b), ("train", 1, b), ("test", 1, b), ("val", 0, d)
    )
    found = [example["rows"] for example in audit_data(faces, name="mine")["examples"]]
    assert found == [[2, 4], [0, 1]]


def test_examples_list_near_duplicates_with_different_labels_first():
    def shifted(image):
        return np.asarray(Image.fromarray(image).crop((1, 1, 24, 24)).resize((24, 24)))

    faces = build(
        *[("train", 0, a), ("train", 0, b), ("train", 0, c), ("train", 1, d)],
        *[("test", 0, shifted(a)), ("test", 0, lighter(b)), ("test", 1, shifted(c)), ("val", 1, shifted(d))],
    )
    found = [example["rows"] for example in audit_data(faces, name="mine")["examples"]]
    assert (found[0], found[1]) == ([2, 6], [1, 5])
    assert sorted(found[2:]) == [[0, 4], [3, 7]]


def many(n, split, seed, change=lambda image: image):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (n, 24, 24)).astype(np.uint8)
    return [(split, i % 2, np.asarray(change(Image.fromarray(image)))) for i, image in enumerate(images)]


def test_only_a_blurred_training_split_gives_warnings():
    rest = [*many(120, "val", 1), *many(120, "test", 2)]
    clean = audit_data(build(*many(300, "train", 0), *rest), name="mine")
    blur = ImageFilter.GaussianBlur(1)
    blurred = audit_data(build(*many(300, "train", 0, lambda image: image.filter(blur)), *rest), name="mine")
    assert clean["warnings"] == []
    assert clean["quality"]["ratios"]["test/train"]["sharpness"] == pytest.approx(1, abs=0.05)
    assert [sentence.split(":")[0] for sentence in blurred["warnings"]] == [
        "train images differ from test images",
        "train images differ from val images",
    ]


def test_only_fer2013_at_48_pixels_has_known_values():
    facts = audit_data(build(("train", 0, a)), name="fer2013")  # of 24 pixels
    assert (facts["quality"]["known"], facts["as_published"]) == (None, None)


def test_incomplete_near_duplicate_search_is_a_warning(monkeypatch):
    monkeypatch.setattr("fer_lightning.data.audit.near_duplicates.MAX_IMAGES", 3)
    facts = audit_data(MESSY, name="mine")
    assert not facts["near_duplicates"]["complete"]
    assert facts["warnings"][0].startswith("near-duplicates were not searched")


def test_leaks_of_a_data_set_are_a_warning():
    (warning,) = audit_data(MESSY, name="mine")["warnings"]
    assert warning.startswith(
        "3 of 4 test images (75.0 %) have a duplicate or near-duplicate in train (1 pixel-identical); 1 of 2"
    )
    assert "data.source.group" in warning


def test_groups_in_two_splits_are_counted_and_a_warning():
    groups = np.array(["a", "b", "a"])
    faces = replace(build(("train", 0, a), ("train", 1, b), ("test", 0, d)), groups=groups)
    facts = audit_data(faces, name="mine")
    assert facts["groups"] == {"groups": 2, "test_in_train": 1, "val_in_train": 0, "test_in_val": 0}
    assert facts["warnings"][0].startswith(
        "1 of 1 test images are of a group that is also in train; scores on"
    )
    assert audit_data(MESSY, name="mine")["groups"] is None


def test_notes_on_the_splits_are_warnings():
    faces = replace(build(("train", 0, a), ("test", 1, d)), notes=("near-duplicates were parted",))
    assert audit_data(faces, name="mine")["warnings"] == ["near-duplicates were parted"]


@pytest.fixture
def load(tmp_path):
    def run(faces=MESSY, *, cache_dir=tmp_path, name="mine"):
        return load_audit(faces, cache_dir=cache_dir, name=name, log=lambda sentence: None)

    return run


@pytest.fixture
def counted(monkeypatch):
    """Count the audits that were made and not read from the cache."""
    made = []
    real = facts_module.audit_data
    monkeypatch.setattr(
        facts_module, "audit_data", lambda *args, **kwargs: made.append(1) or real(*args, **kwargs)
    )
    return made


def test_data_set_is_audited_once(load, counted):
    assert load() == load() == audit_data(MESSY, name="mine")
    assert len(counted) == 1


def test_other_data_name_or_class_list_is_audited_again(load, counted):
    load()
    load(name="fer2013")
    load(replace(MESSY, fingerprint="another"))
    load(replace(MESSY, classes=("happy", "sad")))
    assert len(counted) == 4


def test_cached_audit_gets_the_ids_of_the_data_set(load, counted):
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
def test_damaged_cached_audit_is_made_again(load, tmp_path, damage):
    whole = load()
    (path,) = tmp_path.glob("audit-*.json")
    path.write_text(damage)
    assert load() == whole
    assert json.loads(path.read_text()) == whole


def test_unwritable_cache_is_no_error(load, tmp_path):
    (tmp_path / "file").write_text("")
    assert load(cache_dir=tmp_path / "file" / "below")["num_images"] == len(MESSY)


def test_facts_import_neither_the_command_nor_locate():
    listed = "import sys, fer_lightning.data.audit.facts; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", listed], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(output.stdout.split())
    assert "fer_lightning.data.audit.near_duplicates" in loaded
    assert not loaded & {"rich", "fer_lightning.runs.folder", "fer_lightning.data.locate"}


@pytest.fixture(scope="module")
def fer2013(tmp_path_factory):
    source = open_fer2013(root=os.environ["FER2013_ROOT"], classes=EXPRESSIONS)
    return load_faces(source, cache_dir=Path(tmp_path_factory.mktemp("cache")), log=lambda sentence: None)


@REAL
def test_fer2013_has_its_known_defects_and_no_warning(fer2013):
    facts = audit_data(fer2013, name="fer2013")
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
    # Exact on any processor: the closest pair is 2e-6 from a bound, and rounding errors are 1e-7.
    assert near["all"] == {"pairs": 1377, "groups": 760, "images": 2158}
    assert near["across_splits"] == {"pairs": 560, "groups": 344, "images": 1068}
    assert near["mirrored_pairs"] == 17
    assert facts["as_published"]
    assert facts["warnings"] == []


@REAL
def test_fer2013_with_blurred_training_images_gives_a_warning(fer2013):
    rows = np.arange(0, len(fer2013), 8)
    part = replace(
        fer2013,
        **{
            name: np.array(getattr(fer2013, name)[rows])
            for name in ("images", "labels", "splits", "hashes", "ids")
        },
        fingerprint="a part",
    )
    (incomplete,) = audit_data(part, name="fer2013")["warnings"]
    assert incomplete.startswith("this FER-2013 lacks 31,401 images of the published 35,887: 25,")
    for row in np.flatnonzero(part.splits == 0):
        blurred = Image.fromarray(part.images[row]).filter(ImageFilter.GaussianBlur(1))
        part.images[row] = np.asarray(blurred)
    part = replace(
        part, hashes=np.array([pixel_hash(pixel_digest(image)) for image in part.images], np.uint64)
    )
    altered, missing, warning = audit_data(part, name="fer2013")["warnings"]
    assert altered.startswith("this FER-2013 has 3,5")
    assert "images with altered pixels (compressed, resized," in altered
    assert "they look blurred" in altered
    assert missing.startswith("this FER-2013 lacks 31,401 images of the published 35,887")
    assert warning.startswith("train images differ from FER-2013: median sharpness 1")
    assert "(-93 %)" in warning
    assert "They look blurred" in warning


@REAL
def test_published_file_describes_the_real_archive(fer2013, tmp_path):
    expected, shipped = Published.of(fer2013), load_published()
    for name in Published._fields:
        assert np.array_equal(getattr(expected, name), getattr(shipped, name)), name
    expected.save(tmp_path / "again.npz")
    assert FILE.stat().st_size == (tmp_path / "again.npz").stat().st_size < 400_000


@REAL
def test_training_images_added_to_test_are_named_with_the_leaks(fer2013):
    rows = np.concatenate([np.arange(len(fer2013)), np.flatnonzero(fer2013.splits == 0)[:717]])
    fields = ("images", "labels", "splits", "hashes", "ids")
    part = {name: np.array(getattr(fer2013, name)[rows]) for name in fields}
    part["splits"][-717:] = 2
    copies, leaks = audit_data(replace(fer2013, **part, fingerprint="more"), name="fer2013")["warnings"]
    assert copies.startswith("this FER-2013 has 717 added copies")
    assert "717 of train also in test" in copies
    assert leaks.startswith(
        "more images leak than in the published FER-2013: 1,005 test images have a duplicate"
    )
