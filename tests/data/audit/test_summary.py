import pytest

from fer_lightning.data.audit.summary import summarise
from fer_lightning.data.splits import make_splits, without_leaks


@pytest.fixture
def describe(make_data, make_faces):
    """Summarise a data set made by hand: each face is (split, label, grey level), equal levels are copies."""

    def run(*rows, protocol="official", dropped=None, **settings):
        data = make_data(name="mine", classes=("sad", "happy"), num_classes=2, protocol=protocol)
        data.faces = make_faces(*rows, **settings)
        data.rows = make_splits(data.faces, protocol=protocol, val_fraction=0.0, seed=0)
        if dropped is not None:
            data.rows, data.dropped = without_leaks(data.faces, data.rows), dropped
        return summarise(data)

    return run


CLEAN = [("train", 0, 1), ("train", 1, 2), ("train", 1, 3), ("val", 0, 4), ("test", 1, 5)]
MESSY = [
    ("train", 0, 1),
    ("train", 0, 1),  # a copy in its own split
    ("train", 1, 2),
    ("train", 1, 0),  # blank
    ("val", 1, 2),  # stands in train
    ("val", 0, 3),
    ("test", 0, 1),  # stands in train
    ("test", 0, 2),  # stands in train and in val, under another name
    ("test", 1, 3),  # stands in val, under another name
    ("test", 1, 9),
    ("test", 0, 0),  # blank, stands in train, under another name
]


def test_each_class_of_each_split_is_counted(describe):
    assert describe(*CLEAN)["counts"] == {
        "train": {"sad": 1, "happy": 2},
        "val": {"sad": 1, "happy": 0},
        "test": {"sad": 0, "happy": 1},
    }


def test_a_clean_data_set_says_so(describe):
    facts = describe(*CLEAN)
    assert (facts["num_copies"], facts["num_copy_groups"], facts["num_conflicts"], facts["num_blank"]) == (
        0,
        0,
        0,
        0,
    )
    assert facts["leaks"] == {"test_in_train": 0, "val_in_train": 0, "test_in_val": 0}
    assert facts["summary"] == (
        "mine (protocol official, fingerprint 0123456789ab): 3 train / 1 val / 1 test faces. "
        "Train holds sad 1, happy 2. No two faces are pixel-identical."
    )


def test_copies_conflicts_and_blanks_are_counted(describe):
    facts = describe(*MESSY)
    assert facts["num_copies"] == 6  # 11 faces, 5 pictures
    assert facts["num_copy_groups"] == 4
    assert facts["num_conflicts"] == 3
    assert facts["num_blank"] == 2


def test_leaks_count_the_images_of_the_later_split(describe):
    assert describe(*MESSY)["leaks"] == {"test_in_train": 3, "val_in_train": 1, "test_in_val": 2}


def test_the_paragraph_tells_the_worst_in_words(describe):
    summary = describe(*MESSY, skipped=("a.jpg: truncated image",))["summary"]
    for sentence in (
        "mine (protocol official, fingerprint 0123456789ab): 4 train / 2 val / 5 test faces.",
        "6 faces are pixel-identical copies of another, in 4 groups, 3 of them with conflicting labels.",
        "3 test faces (60.0 %) also stand in train.",
        "1 val faces (50.0 %) also stand in train.",
        "2 test faces (40.0 %) also stand in val.",
        "2 faces are blank.",
        "1 unreadable images were left out.",
    ):
        assert sentence in summary


def test_without_a_validation_split_it_is_not_mentioned(describe):
    facts = describe(*MESSY, protocol="paper")
    assert facts["leaks"] == {"test_in_train": 4, "val_in_train": 0, "test_in_val": 0}
    assert "4 train / 7 test faces" in facts["summary"]
    assert " val" not in facts["summary"]


def test_what_drop_leaks_removed_is_said_and_leaks_no_more(describe):
    rows = [*MESSY, ("train", 0, 7), ("train", 1, 8), ("val", 1, 6), ("val", 0, 10)]
    facts = describe(*rows, dropped={"train": 4, "val": 2})
    assert facts["dropped"] == {"train": 4, "val": 2}
    assert facts["leaks"] == {"test_in_train": 0, "val_in_train": 0, "test_in_val": 0}
    assert facts["num_copies"] == 6  # of the whole data set
    assert (
        "data.drop_leaks left out 4 train faces with a copy in val or test, and 2 val faces with a copy in "
        "test."
    ) in facts["summary"]


def test_without_drop_leaks_nothing_is_said_of_it(describe):
    facts = describe(*MESSY)
    assert facts["dropped"] == {}
    assert "drop_leaks" not in facts["summary"]
