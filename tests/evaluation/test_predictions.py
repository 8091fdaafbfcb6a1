import struct

import numpy as np
import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.evaluation.predictions import OK, Predictions


def predictions(**changes):
    arrays = {
        "ids": np.array(["test/sad/ä.jpg", "test/happy/b", "test/sad/c"]),
        "labels": np.array([0, 1, 0]),
        "probs": np.array([[0.7, 0.3], [0.4, 0.6], [np.nan, np.nan]], np.float32),
        "status": np.array([OK, OK, "refused"]),
        "leaked": np.array([False, True, False]),
        "classes": ("sad", "happy"),
    }
    return Predictions(**arrays | changes)


def test_saving_and_loading_gives_the_same_predictions(tmp_path):
    before = predictions()
    before.save(tmp_path / "p.npz")
    after = Predictions.load(tmp_path / "p.npz")
    assert after.classes == before.classes
    for name in ("ids", "labels", "probs", "status", "leaked"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name), strict=True)


def test_no_answer_is_predicted_as_no_class():
    assert predictions().predicted.tolist() == [0, 1, -1]
    assert predictions().answered.tolist() == [True, True, False]


def test_answers_carry_a_confidence_unless_all_are_certain():
    assert predictions().graded
    certain = np.array([[1, 0], [0, 1], [np.nan, np.nan]], np.float32)
    assert not predictions(probs=certain).graded
    assert not predictions(status=np.full(3, "refused")).graded


def test_the_confusion_matrix_counts_unanswered_images_in_a_last_column():
    assert predictions().confusion.tolist() == [[1, 0, 1], [0, 1, 0]]


def test_a_subset_may_be_chosen_by_mask_and_by_position():
    some = predictions()
    for rows in (np.array([False, True, True]), np.array([1, 2])):
        assert some.subset(rows).ids.tolist() == ["test/happy/b", "test/sad/c"]
    assert some.subset(np.array([2, 0])).labels.tolist() == [0, 0]
    assert len(some.subset(np.zeros(3, bool))) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"ids": np.array(["a", "b", "a"])},
        {"labels": np.array([0])},
        {"probs": np.zeros((3, 3), np.float32)},
        {"leaked": np.zeros(2, bool)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_arrays_that_do_not_fit_together_are_our_bug(changes):
    with pytest.raises(AssertionError):
        predictions(**changes)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def damaged(path, kind):
    predictions().save(path)
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not an archive")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-40])
    elif kind == "one byte":
        content = bytearray(path.read_bytes())
        content[60] ^= 255  # in the header of the first array
        path.write_bytes(content)
    elif kind == "compressed byte":
        content = bytearray(path.read_bytes())
        name, extra = struct.unpack("<HH", content[26:30])
        content[30 + name + extra] = 255  # where the first array's compressed bytes begin
        path.write_bytes(content)
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "other arrays":
        np.savez(path, a=np.zeros(3))
    elif kind == "without labels":
        np.savez(path, ids=np.array(["a"]), classes=np.array(["sad"]))
    elif kind == "shapes":
        arrays = dict(np.load(path)) | {"labels": np.zeros(7, np.int64)}
        np.savez(path, **arrays)


@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "empty",
        "text",
        "truncated",
        "one byte",
        "compressed byte",
        "npy",
        "other arrays",
        "without labels",
        "shapes",
    ],
)
def test_a_file_that_holds_no_predictions_is_named_in_one_sentence(tmp_path, kind):
    path = tmp_path / "p.npz"
    damaged(path, kind)
    with pytest.raises(FERError, match="p.npz: not a predictions file") as caught:
        Predictions.load(path)
    assert "\n" not in str(caught.value)


def test_a_hostile_file_is_refused_and_nothing_in_it_runs(tmp_path):
    arrays = {name: getattr(predictions(), name) for name in ("ids", "labels", "probs", "status", "leaked")}
    np.savez(tmp_path / "p.npz", classes=np.array([Payload(tmp_path / "ran"), 1], dtype=object), **arrays)
    with pytest.raises(FERError):
        Predictions.load(tmp_path / "p.npz")
    assert not (tmp_path / "ran").exists()
