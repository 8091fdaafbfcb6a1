"""From an ensemble's predictions of train to one network: the two commands of docs/ensembles.md."""

import hashlib
import json

import numpy as np
import pytest
import torch

from fer_lightning.evaluation.predictions import Predictions
from tests.commands import TINY, succeed

SMALL = (*TINY, "data.image_size=16", "model.hidden=[16]", "model=mlp", "logger=none")


@pytest.fixture(scope="module")
def folder(cache, tmp_path_factory):
    """A folder with two MLPs, the predictions of their ensemble, and a student of it."""
    cwd = tmp_path_factory.mktemp("cwd")
    for seed in (0, 1):
        settings = (f"seed={seed}", "trainer.max_epochs=2", f"hydra.run.dir=mlp{seed}")
        succeed("train.py", *SMALL, *settings, cwd=cwd, cache=cache)
    command = ("checkpoint=[mlp0,mlp1]", "ensemble=true", "split=train", "hydra.run.dir=teacher")
    succeed("eval.py", *command, cwd=cwd, cache=cache)
    student(cwd, cache, "student")
    return cwd


def student(cwd, cache, name, *settings):
    teacher = "data.soft_targets=teacher/predictions_train.npz"
    command = (*SMALL, teacher, "trainer.max_epochs=2", "seed=2", *settings, f"hydra.run.dir={name}")
    return succeed("train.py", *command, cwd=cwd, cache=cache)


def weights_of(run):
    return torch.load(run / "last.ckpt", weights_only=True)["state_dict"]


def test_run_of_a_student_names_its_teacher(folder):
    file = folder / "teacher/predictions_train.npz"
    record = json.loads((folder / "student/run.json").read_text())
    assert record["data"]["soft_targets"] == {
        "file": str(file),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "weight": 0.7,
        "temperature": 1.0,
    }
    assert "70% of each training target are probabilities of a teacher" in record["data"]["summary"]
    assert "soft_targets" in (folder / "student/config.yaml").read_text()
    assert json.loads((folder / "mlp0/run.json").read_text())["data"]["soft_targets"] is None


def test_students_with_one_seed_and_teacher_are_equal_bit_for_bit(folder, cache):
    student(folder, cache, "again")
    one, other = weights_of(folder / "student"), weights_of(folder / "again")
    assert all(torch.equal(one[name], other[name]) for name in one)
    one, other = (Predictions.load(folder / f"{name}/predictions_test.npz") for name in ("student", "again"))
    np.testing.assert_array_equal(one.probs, other.probs)


@pytest.mark.slow
def test_weight_of_zero_trains_on_the_labels_alone(folder, cache):
    student(folder, cache, "labels", "data.soft_targets_weight=0")
    succeed(
        "train.py", *SMALL, "trainer.max_epochs=2", "seed=2", "hydra.run.dir=plain", cwd=folder, cache=cache
    )
    labels, plain, taught = (weights_of(folder / name) for name in ("labels", "plain", "student"))
    assert all(torch.allclose(labels[name], plain[name], atol=1e-4) for name in plain)
    assert not all(torch.allclose(taught[name], plain[name], atol=1e-4) for name in plain)


def test_student_is_evaluated_without_its_teacher(folder, cache):
    file = folder / "teacher/predictions_train.npz"
    file.rename(folder / "away.npz")
    try:
        succeed("eval.py", "checkpoint=student", "hydra.run.dir=tested", cwd=folder, cache=cache)
    finally:
        (folder / "away.npz").rename(file)
    tested, trained = (
        Predictions.load(folder / f"{name}/predictions_test.npz") for name in ("tested", "student")
    )
    np.testing.assert_array_equal(tested.probs, trained.probs)
    assert json.loads((folder / "tested/run.json").read_text())["data"]["soft_targets"] is None
