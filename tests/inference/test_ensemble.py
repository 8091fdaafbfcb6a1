"""The parts of an ensemble that commands on synthetic faces, which have no duplicates, do not show."""

from types import SimpleNamespace

import numpy as np

from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.inference.ensemble import _unique, _with_val_leaks


def test_duplicates_of_images_that_chose_the_members_are_leaked():
    # Rows 0 and 1 are val; row 3 of test has the pixels of row 1.
    faces = SimpleNamespace(
        ids=np.array(["val/a/0", "val/a/1", "test/a/2", "test/a/3", "test/a/4"]),
        hashes=np.array([10, 11, 12, 11, 14], np.uint64),
    )
    data = SimpleNamespace(faces=faces, split_rows=lambda split: {"val": np.array([0, 1])}[split])
    predictions = Predictions(
        ids=faces.ids[[4, 3, 2]],
        labels=np.zeros(3, np.int64),
        probs=np.full((3, 2), 0.5, np.float32),
        status=np.full(3, "ok"),
        leaked=np.array([True, False, False]),
        classes=("a", "b"),
    )
    found = _with_val_leaks(predictions, data)
    assert found.leaked.tolist() == [True, True, False]
    assert found.near_leaked is None


def test_members_of_one_name_are_numbered_until_each_differs():
    assert _unique(["a", "b"]) == ["a", "b"]
    assert _unique(["a", "b", "a"]) == ["a_0", "b", "a_2"]
    assert len(set(_unique(["a", "a", "a_0"]))) == 3
