import numpy as np
import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.data.splits import (
    check_not_empty,
    count_duplicates,
    group_duplicates,
    has_duplicate_in,
    make_splits,
    without_leaks,
)


@pytest.fixture
def faces(make_faces):
    rows = [("train", label, 1 + label + 2 * i) for i in range(10) for label in (0, 1)]
    return make_faces(*rows, ("val", 0, 101), ("val", 1, 102), ("test", 0, 103), ("test", 1, 104))


def test_official_protocol_keeps_the_splits_of_the_data_set(faces):
    rows, _ = make_splits(faces, protocol="official", val_fraction=0.0, seed=0)
    assert [rows[split].tolist() for split in ("train", "val", "test")] == [
        list(range(20)),
        [20, 21],
        [22, 23],
    ]


def test_paper_protocol_tests_on_val_and_test(faces):
    rows, _ = make_splits(faces, protocol="paper", val_fraction=0.0, seed=0)
    assert [rows[split].tolist() for split in ("train", "val", "test")] == [
        list(range(20)),
        [],
        [20, 21, 22, 23],
    ]


@pytest.mark.parametrize(("protocol", "test"), [("official", [22, 23]), ("paper", [20, 21, 22, 23])])
def test_val_fraction_is_taken_only_from_train(faces, protocol, test):
    rows, _ = make_splits(faces, protocol=protocol, val_fraction=0.2, seed=0)
    assert rows["test"].tolist() == test
    assert sorted([*rows["train"], *rows["val"]]) == list(range(20))
    assert np.bincount(faces.labels[rows["val"]]).tolist() == [2, 2]
    assert all(np.array_equal(part, np.sort(part)) for part in rows.values())


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.0, 2, float("nan")])
def test_val_fraction_out_of_range_is_refused(faces, fraction):
    with pytest.raises(FERError, match=rf"val_fraction={fraction}: expected a number in \[0, 1\)"):
        make_splits(faces, protocol="official", val_fraction=fraction, seed=0)


def test_unknown_protocol_is_refused(faces):
    with pytest.raises(FERError, match="data.protocol=kaggle: expected official or paper"):
        make_splits(faces, protocol="kaggle", val_fraction=0.0, seed=0)


def test_val_fraction_must_not_empty_a_training_class(make_faces):
    faces = make_faces(*[("train", 0, i) for i in range(1, 11)], ("train", 1, 11), ("test", 0, 12))
    with pytest.raises(FERError, match=r"data.val_fraction=0.1: .*class happy"):
        make_splits(faces, protocol="official", val_fraction=0.1, seed=0)


@pytest.mark.parametrize(("present", "missing"), [("train", "test"), ("test", "train")])
def test_empty_train_or_test_split_is_named(make_faces, present, missing):
    faces = make_faces((present, 0, 1))
    rows, _ = make_splits(faces, protocol="official", val_fraction=0.0, seed=0)
    expected = rf"the {missing} split is empty \(protocol=official\); there are 1 in {present}"
    with pytest.raises(FERError, match=expected):
        check_not_empty(rows, ["train", "test"], "official")
    check_not_empty(rows, [present], "official")


def test_duplicates_are_found_by_hash():
    hashes, seen = np.array([1, 2, 2**64 - 1], np.uint64), np.array([2**64 - 1, 1, 1], np.uint64)
    assert has_duplicate_in(hashes, seen).tolist() == [True, False, True]
    assert has_duplicate_in(hashes, seen[:0]).tolist() == [False, False, False]


def test_duplicate_groups_have_sizes_and_label_ranges():
    groups = group_duplicates(np.array([7, 5, 7, 7], np.uint64), np.array([2, 0, 1, 2]))
    assert groups.group_of.tolist() == [1, 0, 1, 1]
    assert (groups.sizes.tolist(), groups.lowest.tolist(), groups.highest.tolist()) == (
        [1, 3],
        [0, 1],
        [0, 2],
    )


def test_duplicates_are_counted_by_group_image_and_conflict(make_faces):
    faces = make_faces(
        *[("train", label, level) for label, level in [(0, 1), (0, 1), (1, 1), (1, 2), (1, 2), (0, 3)]]
    )
    assert count_duplicates(faces) == {"groups": 2, "images": 5, "redundant": 3, "conflicting_groups": 1}


# Leaks

LEAKY = [
    ("train", 0, 1),
    ("train", 1, 2),  # a duplicate in val
    ("train", 1, 3),  # a duplicate in test with another label
    ("train", 1, 4),
    ("train", 1, 4),  # a duplicate in the same split
    ("val", 1, 2),
    ("val", 0, 5),  # a duplicate in test
    ("val", 0, 6),
    ("test", 0, 3),
    ("test", 0, 5),
    ("test", 1, 7),
]


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({"protocol": "official"}, {"train": [0, 3, 4], "val": [5, 7], "test": [8, 9, 10]}),
        ({"protocol": "paper"}, {"train": [0, 3, 4], "val": [], "test": [5, 6, 7, 8, 9, 10]}),
    ],
)
def test_without_leaks_keeps_the_whole_test_split(make_faces, settings, left):
    faces = make_faces(*LEAKY)
    rows = without_leaks(faces, make_splits(faces, val_fraction=0.0, seed=0, **settings)[0])
    assert {split: part.tolist() for split, part in rows.items()} == left


def test_without_leaks_ignores_an_unused_official_val(make_faces):
    several = [("train", label, 20 + 2 * i + label) for i in range(5) for label in (0, 1)]
    faces = make_faces(*several, ("train", 0, 1), ("train", 0, 2), ("val", 0, 1), ("test", 0, 2))
    rows, _ = make_splits(faces, protocol="official", val_fraction=0.2, seed=0)
    left = without_leaks(faces, rows)
    gone = [set(rows[split]) - set(left[split]) for split in ("train", "val")]
    assert gone[0] | gone[1] == {11}  # not 10, whose duplicate is in the unused val split
    assert not set(faces.hashes[left["train"]]) & set(faces.hashes[left["val"]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [("train", 1, 1), ("train", 0, 2), ("test", 1, 1)],
            "every train image of class happy has a duplicate in val or test",
        ),
        (
            [("train", 1, 1), ("val", 0, 2), ("test", 0, 2)],
            "every val image of class sad has a duplicate in test",
        ),
    ],
)
def test_class_emptied_by_drop_leaks_is_named(make_faces, rows, message):
    faces = make_faces(*rows)
    with pytest.raises(FERError, match=f"data.drop_leaks=true: {message}"):
        without_leaks(faces, make_splits(faces, protocol="official", val_fraction=0.0, seed=0)[0])
