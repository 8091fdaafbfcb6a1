import pytest

from fer_lightning.data.audit.summary import summarise_data
from fer_lightning.data.splits import make_splits, without_leaks


@pytest.fixture
def describe(make_data, make_faces):
    """Summarise a data set of rows of (split, label, grey level); equal levels are duplicates."""

    def run(*rows, protocol="official", dropped=None, **settings):
        data = make_data(name="mine", classes=("sad", "happy"), num_classes=2, protocol=protocol)
        data.faces = make_faces(*rows, **settings)
        data.rows, _ = make_splits(data.faces, protocol=protocol, val_fraction=0.0, seed=0)
        if dropped is not None:
            data.rows, data.dropped = without_leaks(data.faces, data.rows), dropped
        return summarise_data(data)

    return run


CLEAN = [("train", 0, 1), ("train", 1, 2), ("train", 1, 3), ("val", 0, 4), ("test", 1, 5)]
MESSY = [
    ("train", 0, 1),
    ("train", 0, 1),  # a duplicate in the same split
    ("train", 1, 2),
    ("train", 1, 0),  # blank
    ("val", 1, 2),  # a duplicate in train
    ("val", 0, 3),
    ("test", 0, 1),  # a duplicate in train
    ("test", 0, 2),  # duplicates in train and in val, with another label
    ("test", 1, 3),  # a duplicate in val with another label
    ("test", 1, 9),
    ("test", 0, 0),  # blank, a duplicate in train with another label
]


def test_classes_are_counted_by_split(describe):
    assert describe(*CLEAN)["counts"] == {
        "train": {"sad": 1, "happy": 2},
        "val": {"sad": 1, "happy": 0},
        "test": {"sad": 0, "happy": 1},
    }


def test_summary_of_a_clean_data_set(describe):
    facts = describe(*CLEAN)
    assert (facts["num_copies"], facts["num_copy_groups"], facts["num_conflicts"], facts["num_blank"]) == (
        0,
        0,
        0,
        0,
    )
    assert facts["leaks"] == {"test_in_train": 0, "val_in_train": 0, "test_in_val": 0}
    assert facts["summary"] == (
        "mine (protocol official, fingerprint 0123456789ab): 3 train / 1 val / 1 test images. "
        "Training images per class: sad 1, happy 2. No two images are pixel-identical."
    )


def test_duplicates_conflicts_and_blanks_are_counted(describe):
    facts = describe(*MESSY)
    assert facts["num_copies"] == 6  # 11 images, 5 different ones
    assert facts["num_copy_groups"] == 4
    assert facts["num_conflicts"] == 3
    assert facts["num_blank"] == 2


def test_leaks_count_the_images_of_the_later_split(describe):
    assert describe(*MESSY)["leaks"] == {"test_in_train": 3, "val_in_train": 1, "test_in_val": 2}


def test_summary_reports_duplicates_leaks_blanks_and_skipped(describe):
    summary = describe(*MESSY, skipped=("a.jpg: truncated image",))["summary"]
    for sentence in (
        "mine (protocol official, fingerprint 0123456789ab): 4 train / 2 val / 5 test images.",
        "6 images are pixel-identical duplicates of another, in 4 groups, 3 of them with conflicting labels",
        "3 test images (60.0 %) are duplicates of training images.",
        "1 val images (50.0 %) are duplicates of training images.",
        "2 test images (40.0 %) are duplicates of val images.",
        "2 images are blank.",
        "1 unreadable images were skipped.",
    ):
        assert sentence in summary


def test_summary_does_not_mention_an_empty_val_split(describe):
    facts = describe(*MESSY, protocol="paper")
    assert facts["leaks"] == {"test_in_train": 4, "val_in_train": 0, "test_in_val": 0}
    assert "4 train / 7 test images" in facts["summary"]
    assert " val" not in facts["summary"]


def test_summary_reports_what_drop_leaks_removed(describe):
    rows = [*MESSY, ("train", 0, 7), ("train", 1, 8), ("val", 1, 6), ("val", 0, 10)]
    facts = describe(*rows, dropped={"train": 4, "val": 2})
    assert facts["dropped"] == {"train": 4, "val": 2}
    assert facts["leaks"] == {"test_in_train": 0, "val_in_train": 0, "test_in_val": 0}
    assert facts["num_copies"] == 6  # of the whole data set
    assert "data.drop_leaks removed 4 training images" in facts["summary"]
    assert "2 val images with a duplicate in test" in facts["summary"]


def test_summary_does_not_mention_drop_leaks_without_it(describe):
    facts = describe(*MESSY)
    assert facts["dropped"] == {}
    assert "drop_leaks" not in facts["summary"]
