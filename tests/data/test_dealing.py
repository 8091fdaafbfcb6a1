"""Dealing images out: what belongs together stays together, classes keep their shares."""

from functools import partial

import numpy as np
import pytest
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.data.audit.near_duplicates import NearDuplicates
from fer_lightning.data.audit.summary import summarise_data
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.dealing import Belonging, deal_out, keep_together
from fer_lightning.data.faces import SPLITS
from fer_lightning.data.readers.image_folder import ImageFolder
from fer_lightning.data.synthetic.source import SyntheticFaces

TRAIN, VAL, TEST = range(3)
TENTHS = {"test": 0.1, "val": 0.1}
CLASSES = ("happy", "sad", "surprise")


def deal(labels, units, ratios=TENTHS, seed=0):
    labels, units = np.asarray(labels), np.asarray(units)
    return deal_out(labels, units, ratios, np.random.default_rng(seed).permutation(len(labels)))


def shares(splits, labels):
    return {
        split: [float((splits[labels == label] == code).mean()) for label in np.unique(labels)]
        for code, split in enumerate(SPLITS)
    }


def test_single_images_are_dealt_out_class_by_class():
    labels = np.repeat([0, 1, 2], [200, 100, 10])
    found = shares(deal(labels, np.arange(310)), labels)
    assert found == {"train": [0.8] * 3, "val": [0.1] * 3, "test": [0.1] * 3}


@pytest.mark.parametrize("seed", range(5))
def test_people_stay_whole_and_classes_keep_their_shares(seed):
    random = np.random.default_rng(seed)
    units = np.repeat(np.arange(30), random.integers(20, 60, 30))
    labels = random.choice(3, len(units), p=[0.6, 0.3, 0.1])
    splits = deal(labels, units, seed=seed)
    assert all(len(set(splits[units == unit])) == 1 for unit in range(30))
    found = shares(splits, labels)
    assert found["val"] == pytest.approx([0.1] * 3, abs=0.06)
    assert found["test"] == pytest.approx([0.1] * 3, abs=0.06)


def test_another_seed_deals_out_other_people():
    units = np.repeat(np.arange(20), 12)
    labels = np.tile([0, 1, 2], 80)
    one, again, *others = (deal(labels, units, seed=seed) for seed in (0, 0, 1, 2, 3))
    assert np.array_equal(one, again)
    assert len({tuple(np.unique(units[splits == TEST])) for splits in (one, *others)}) > 1


def test_few_people_are_in_every_split():
    units, labels = np.repeat(np.arange(3), 40), np.tile([0, 1], 60)
    assert sorted(np.bincount(deal(labels, units))) == [40, 40, 40]


def test_class_of_few_units_is_in_every_split():
    units = np.concatenate([np.arange(100), np.repeat([100, 101, 102], 5)])
    labels = np.repeat([0, 1], [100, 15])
    splits = deal(labels, units)
    assert np.bincount(splits[labels == 1]).tolist() == [5, 5, 5]


def pairs(n, *chains, gradient=0.7):
    """Link the rows of each chain, one after the other."""
    first = np.concatenate([np.array(chain[:-1]) for chain in chains])
    second = np.concatenate([np.array(chain[1:]) for chain in chains])
    strength = np.full(len(first), gradient, np.float32)
    return NearDuplicates(first, second, np.zeros(len(first), bool), strength, "")


def kept(n, near, ratios=TENTHS, groups=None):
    labels = np.arange(n) % 2
    belonging = Belonging(np.arange(n, dtype=np.uint64), groups, near)
    return keep_together(belonging, np.arange(n), labels, ratios, np.random.default_rng(0).permutation(n))


def test_chain_of_near_duplicates_stays_together_where_it_can():
    dealt = kept(100, pairs(100, range(0, 100, 2)[:20], range(51, 61)))
    assert dealt.note == ""
    assert len(set(dealt.splits[0:40:2])) == len(set(dealt.splits[51:61])) == 1


def test_chain_through_all_images_is_broken_at_a_stricter_bound():
    near = pairs(100, range(100))
    near.gradient[::5] = 0.95
    dealt = kept(100, near)
    assert "link up to 100 of 100 images" in dealt.note
    assert "a gradient cosine of at least 0.8" in dealt.note
    assert np.array_equal(dealt.splits[:-1:5], dealt.splits[1::5])
    assert np.bincount(dealt.splits).tolist() == [80, 10, 10]


def test_images_that_are_all_alike_are_dealt_out_all_the_same():
    dealt = kept(100, pairs(100, range(100), gradient=0.99))
    assert "no pairs were" in dealt.note
    assert np.bincount(dealt.splits).tolist() == [80, 10, 10]


def test_groups_and_pixel_identical_images_are_joined():
    hashes = np.array([0, 1, 1, 2, 3, 4], np.uint64)
    groups = np.array(["a", "a", "b", "b", "c", "d"])
    assert np.unique(Belonging(hashes, groups, None).units(np.inf)[:4]).size == 1
    assert np.unique(Belonging(hashes, groups, pairs(6, [0, 4])).units(0)).size == 2


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Write frames of short videos: eight people, one video of each class, slightly changed frames."""
    root = tmp_path_factory.mktemp("faces") / "videos"
    root.mkdir()
    source = SyntheticFaces(
        classes=CLASSES, image_size=64, num_train=24, num_val=3, num_test=3, class_balance="uniform"
    )
    faces = [record for record in source.records() if record.split == "train"]
    random = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir()
        for person, record in enumerate([face for face in faces if face.label == label][:8]):
            still = record.pixels().astype(float)
            for frame in range(8):
                changed = still * (1 + 0.03 * np.sin(frame)) + random.normal(0, 2, still.shape)
                left, top = frame // 3, frame % 2  # the camera moves a little
                image = Image.fromarray(changed.clip(0, 255).astype(np.uint8))
                image = image.crop((left, top, left + 61, top + 61)).resize((64, 64))
                image.save(root / name / f"s{person}_{label}_{frame}.png")
    return root


@pytest.fixture
def load(videos):
    def run(group=None, **settings):
        source = partial(ImageFolder, group=group)
        settings = {"cache_dir": videos.with_name("cache")} | settings
        data = FERDataModule(root=videos, source=source, classes=CLASSES, **settings)
        data.setup()
        return data

    return run


def num_seen(data, split, letters):
    """Count the images of a split whose video (4 letters) or person (2 letters) is in train."""
    parts = np.array([image_id.split("/")[-1][:letters] for image_id in data.faces.ids])
    return int(np.isin(parts[data.rows[split]], parts[data.rows["train"]]).sum())


def test_frames_of_one_video_are_in_one_split_by_default(load):
    assert num_seen(load(near_duplicates="ignore"), "test", 4) > 15
    data = load()
    assert num_seen(data, "test", 4) == num_seen(data, "val", 4) == 0
    assert {split: len(rows) for split, rows in data.rows.items()} == {"train": 144, "val": 24, "test": 24}
    assert data.notes == ()


def test_val_fraction_keeps_frames_of_one_video_together(load):
    settings = {"protocol": "paper", "val_fraction": 0.2}
    assert num_seen(load(near_duplicates="ignore", **settings), "val", 4) > 15
    data = load(**settings)
    assert num_seen(data, "val", 4) == num_seen(data, "test", 4) == 0


def test_groups_are_in_one_split_and_travel_with_the_images(load):
    assert num_seen(load(), "test", 2) > 0  # the same person with another expression
    data = load("/(s[0-9]+)_", val_fraction=0.2)
    assert num_seen(data, "test", 2) == num_seen(data, "val", 2) == 0
    assert sorted(np.unique(data.faces.groups)) == [f"s{person}" for person in range(8)]
    assert all(group in image_id for group, image_id in zip(data.faces.groups, data.faces.ids, strict=True))
    assert "8 groups, none of them in two splits" in summarise_data(data)["summary"]
    again = load("/(s[0-9]+)_", val_fraction=0.2)  # from the cache
    assert np.array_equal(again.faces.groups, data.faces.groups)
    assert np.array_equal(again.rows["val"], data.rows["val"])


def test_summary_counts_near_duplicates_across_the_splits_of_the_run(load):
    facts = summarise_data(load(near_duplicates="ignore"))
    assert facts["near_leaks"]["test_near_train"] > 10
    assert f"{facts['near_leaks']['test_near_train']} test images" in facts["summary"]
    assert "have a near-duplicate among training images" in facts["summary"]


def test_incomplete_search_for_near_duplicates_is_noted(load, monkeypatch, tmp_path):
    monkeypatch.setattr("fer_lightning.data.audit.near_duplicates.MAX_IMAGES", 10)
    assert load(cache_dir=tmp_path).notes[0].startswith("near-duplicates were not searched")


@pytest.mark.parametrize(
    ("group", "sentence"),
    [
        ("(.)", "data.source.group: all 192 images of .* are in one group .t., expected at least 3"),
        ("_([01])_|_(2)_", "data.source.group=.*: finds no group in the image id train/surprise/s0_2_0.png"),
        ("_([01]_|2)", "class happy is in 1 of the groups of .*, and none of them can be in"),
        ("(happy|s)[^/]*/", "the images of .* are in 2 groups, too few to split into train, test, val"),
    ],
)
def test_groups_that_cannot_be_split_are_named(load, group, sentence):
    with pytest.raises(FERError, match=sentence):
        load(group)
