"""A teacher's probabilities as targets: mixed, reordered by class, and refused where they do not fit."""

import hashlib

import numpy as np
import pytest
import torch

from fer_lightning.core.errors import FERError
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.soft_targets import read_teacher
from fer_lightning.evaluation.predictions import OK, Predictions
from tests.data.test_targets import Voted

ROWS = (("train", 0, 1), ("train", 1, 2), ("train", 1, 3), ("val", 0, 4), ("test", 1, 5))
PROBS = np.array([[0.5, 0.5], [0.2, 0.8], [0.9, 0.1]], np.float32)
TRAIN = np.arange(3)


@pytest.fixture
def faces(make_faces):
    return make_faces(*ROWS)


@pytest.fixture
def write(faces, tmp_path):
    """Write the teacher's predictions of the training images, in reversed order; any array can be changed."""

    def write_changed(**changes):
        arrays = {
            "ids": faces.ids[:3],
            "labels": faces.labels[:3],
            "probs": PROBS,
            "status": np.full(3, OK),
            "leaked": np.zeros(3, bool),
            "classes": ("sad", "happy"),
        } | changes
        Predictions(**arrays).subset(np.arange(len(arrays["ids"]))[::-1]).save(tmp_path / "teacher.npz")
        return tmp_path / "teacher.npz"

    return write_changed


def mix(path, faces, *, weight=0.7, temperature=1.0, rows=TRAIN):
    teacher = read_teacher(path, faces.classes)
    return teacher.mixed_with(faces, rows, weight=weight, temperature=temperature)


def test_targets_are_the_mean_of_teacher_and_label_by_weight(write, faces):
    mixed = mix(write(), faces, weight=0.75)
    assert mixed.dtype == np.float32
    expected = [[0.625, 0.375], [0.15, 0.85], [0.675, 0.325], [1, 0], [0, 1]]
    np.testing.assert_allclose(mixed, expected, atol=1e-6)
    np.testing.assert_allclose(mix(write(), faces, weight=1)[:3], PROBS, atol=1e-6)
    np.testing.assert_array_equal(mix(write(), faces, weight=0), np.eye(2)[faces.labels])


def test_temperature_takes_roots_of_the_probabilities(write, faces):
    mixed = mix(write(), faces, weight=1, temperature=2.0)
    np.testing.assert_allclose(mixed[2], [0.75, 0.25], atol=1e-6)  # 0.3 and 0.1, divided by 0.4


@pytest.mark.parametrize("temperature", [1e-4, 1e-300])
def test_a_temperature_near_0_takes_the_most_probable_class(write, faces, temperature):
    mixed = mix(write(), faces, weight=1, temperature=temperature)
    np.testing.assert_array_equal(mixed[:3], [[0.5, 0.5], [0, 1], [1, 0]])


def test_classes_in_another_order_are_matched_by_name(write, faces):
    swapped = write(classes=("happy", "sad"), labels=1 - faces.labels[:3], probs=PROBS[:, ::-1])
    reordered = mix(swapped, faces)
    np.testing.assert_array_equal(reordered, mix(write(), faces))
    assert read_teacher(swapped, ("sad", "happy")).labels.tolist() == faces.labels[:3][::-1].tolist()


def test_three_classes_in_a_rotated_order_are_matched_by_name(tmp_path):
    probs = np.array([[0.1, 0.2, 0.7]], np.float32)
    arrays = (np.array(["a"]), np.array([2]), probs, np.array([OK]), np.array([False]), ("x", "y", "z"))
    Predictions(*arrays).save(tmp_path / "p.npz")
    teacher = read_teacher(tmp_path / "p.npz", ("y", "z", "x"))
    np.testing.assert_allclose(teacher.probs, [[0.2, 0.7, 0.1]], atol=1e-6)
    assert teacher.labels.tolist() == [1]


def test_images_that_are_not_trained_on_may_be_missing_or_wrong(write, faces):
    path = write(labels=np.array([1, 1, 1]), ids=np.array(["none", *faces.ids[1:3]]))
    mixed = mix(path, faces, rows=np.array([1, 2]), weight=1)
    np.testing.assert_allclose(mixed[1:3], PROBS[1:], atol=1e-6)


def test_soft_targets_of_the_data_take_the_place_of_labels(tmp_path):
    plain = FERDataModule(source=Voted(), cache_dir=tmp_path)
    plain.setup()
    ids = plain.faces.ids[plain.rows["train"]]
    probs = np.tile(np.float32([0.2, 0.2, 0.6]), (len(ids), 1))
    arrays = (np.full(len(ids), 1), probs, np.full(len(ids), OK), np.zeros(len(ids), bool))
    Predictions(ids, *arrays, plain.classes).save(tmp_path / "p.npz")
    data = FERDataModule(
        source=Voted(), cache_dir=tmp_path, soft_targets=tmp_path / "p.npz", soft_targets_weight=0.5
    )
    data.setup()
    batch = next(iter(data.train_dataloader()))
    np.testing.assert_allclose(batch.targets[0], [0.1, 0.475, 0.425], atol=1e-6)


def test_only_training_batches_have_the_teachers_targets(make_data, tmp_path):
    plain = make_data()
    plain.setup()
    rows = plain.rows["train"]
    probs = np.random.default_rng(0).dirichlet(np.ones(7), len(rows)).astype(np.float32)
    arrays = (plain.faces.labels[rows], probs, np.full(len(rows), OK), np.zeros(len(rows), bool))
    Predictions(plain.faces.ids[rows], *arrays, plain.classes).save(tmp_path / "p.npz")
    data = make_data(soft_targets=str(tmp_path / "p.npz"), soft_targets_weight=1.0)
    data.setup()
    assert data.teacher is None
    for batch in data.train_dataloader():
        where = np.searchsorted(rows, batch.rows.numpy())
        np.testing.assert_allclose(batch.targets, probs[where], atol=1e-6)
    assert data.teacher.sha256 == hashlib.sha256((tmp_path / "p.npz").read_bytes()).hexdigest()
    for loader in (data.val_dataloader(), data.test_dataloader(), data.eval_loader("train")):
        assert next(iter(loader)).targets is None
    assert torch.equal(batch.labels, data._labels[batch.rows])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"ids": np.array(["a", "b", "c"])},
            "has no prediction of any of the 3 training images, such as train/sad/0; it is of another data "
            "set or another split: evaluate it with split=train",
        ),
        (
            {"ids": np.array(["train/sad/0", "train/happy/1", "c"])},
            "has no prediction of 1 of the 3 training images, such as train/happy/2; the teacher was",
        ),
        (
            {"labels": np.array([0, 0, 1])},
            "1 of the 3 training images, such as train/happy/1, have another label there",
        ),
        (
            {"status": np.array([OK, OK, "refused"])},
            "no answer for 1 of the 3 training images, such as train/happy/2;",
        ),
        (
            {"classes": ("sad", "fear")},
            "has the classes sad, fear, the student has sad, happy; take a teacher with the same classes",
        ),
        ({"probs": PROBS * 2}, "not a predictions file (its probabilities are not in"),
        ({"probs": np.full((3, 2), np.nan, np.float32)}, "not a predictions file (its probabilities are not"),
    ],
    ids=["no image", "an image", "label", "answer", "classes", "sum", "numbers"],
)
def test_unsuitable_predictions_get_a_sentence(write, faces, changes, message):
    path = write(**changes)
    with pytest.raises(FERError) as caught:
        mix(path, faces)
    assert f"data.soft_targets={path}: " in str(caught.value)
    assert message in str(caught.value)


def test_files_that_hold_no_predictions_get_a_sentence(tmp_path):
    (tmp_path / "p.npz").write_bytes(b"no zip")
    np.savez(tmp_path / "q.npz", ids=np.array(["a"]))
    torch.save({"state_dict": {"weight": torch.ones(2)}}, tmp_path / "best.ckpt")
    for name in ("p.npz", "q.npz", "best.ckpt"):
        with pytest.raises(
            FERError, match=f"data.soft_targets=.*{name}: not a predictions file .*split=train"
        ):
            read_teacher(tmp_path / name, ("sad", "happy"))
    with pytest.raises(FERError, match="no such file; write one with python eval.py checkpoint=TEACHER"):
        read_teacher(tmp_path / "none.npz", ("sad", "happy"))
    with pytest.raises(FERError, match="a folder; name the file in it"):
        read_teacher(tmp_path, ("sad", "happy"))


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("soft_targets", 5, "a file, predictions_train.npz, or null"),
        ("soft_targets", "", "a file, predictions_train.npz, or null"),
        ("soft_targets_weight", 1.5, r"a number in \[0, 1\]"),
        ("soft_targets_weight", True, r"a number in \[0, 1\]"),
        ("soft_targets_temperature", 0, "a number above 0"),
        ("soft_targets_temperature", float("nan"), "a number above 0"),
    ],
)
def test_settings_out_of_range_are_refused(make_data, setting, value, expected):
    with pytest.raises(FERError, match=f"data.{setting}={value}: expected {expected}"):
        make_data(**{setting: value})
