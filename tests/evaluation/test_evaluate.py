import json

import numpy as np
import pytest
import torch

from fer_lightning.core.errors import FERError
from fer_lightning.data.audit.near_duplicates import NearDuplicates
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.evaluation.evaluate import predict_splits, write_results
from fer_lightning.evaluation.predictions import OK, Predictions
from fer_lightning.training.checkpoint import load_classifier, read_checkpoint

TRAINER = {"accelerator": "cpu", "precision": "32-true", "deterministic": False, "limit_predict_batches": 1.0}


@pytest.fixture
def data(make_data):
    data = make_data()
    data.setup()
    return data


@pytest.fixture
def predict(make_checkpoint, data):
    """Predict a split with a small untrained MLP that has seen the faces named."""

    def run(split="test", trained_on=(), selected_on=(), data=data, **trainer):
        path, _ = make_checkpoint()
        classifier, metadata = load_classifier(path)
        seen = {
            "trained_on": np.array(trained_on, np.uint64),
            "selected_on": np.array(selected_on, np.uint64),
        }
        metadata = type(metadata)(**vars(metadata) | seen)
        return predict_splits(classifier, metadata, data, [split], TRAINER | trainer)[split]

    return run


@pytest.mark.parametrize(("split", "num"), [("train", 70), ("val", 28), ("test", 28), ("all", 126)])
def test_every_image_of_a_split_is_predicted_once_and_in_order(predict, data, split, num):
    predicted = predict(split)
    assert len(predicted) == num
    rows = data.split_rows(split)
    assert predicted.ids.tolist() == data.faces.ids[rows].tolist()
    assert predicted.labels.tolist() == data.faces.labels[rows].tolist()
    assert (predicted.status == OK).all()
    assert predicted.classes == EXPRESSIONS


def test_probabilities_are_those_of_the_network(make_checkpoint, data):
    path, module = make_checkpoint()
    classifier, metadata = load_classifier(path)
    predicted = predict_splits(classifier, metadata, data, ["test"], TRAINER)["test"]
    images = torch.from_numpy(data.faces.images[data.rows["test"]]).unsqueeze(1)
    with torch.inference_mode():
        expected = module(images).softmax(1)
    np.testing.assert_allclose(predicted.probs, expected, atol=1e-6)
    np.testing.assert_allclose(predicted.probs.sum(1), 1, atol=1e-5)


def test_an_image_leaks_if_a_copy_of_it_trained_or_selected(predict, data):
    hashes = data.faces.hashes[data.rows["test"]]
    predicted = predict("test", trained_on=hashes[:2], selected_on=hashes[1:3])
    assert np.flatnonzero(predicted.leaked).tolist() == [0, 1, 2]


def test_on_val_only_what_trained_leaks_for_val_itself_selected(predict, data):
    hashes = data.faces.hashes[data.rows["val"]]
    predicted = predict("val", trained_on=hashes[:2], selected_on=hashes)
    assert np.flatnonzero(predicted.leaked).tolist() == [0, 1]


@pytest.fixture
def with_near(data, monkeypatch):
    """Make three test images near-duplicates of two training images and of a val image."""
    test, train, val = (data.rows[split] for split in ("test", "train", "val"))
    first = np.array([train[0], train[1], min(val[0], test[2])])
    second = np.array([test[0], test[1], max(val[0], test[2])])
    near = NearDuplicates(first, second, np.zeros(3, bool), np.array([0.7, 0.9, 0.65], np.float32), "")
    monkeypatch.setattr(data, "_near", near)
    return data


def test_an_image_leaks_nearly_if_a_near_duplicate_trained_or_selected(predict, with_near):
    hashes, rows = with_near.faces.hashes, with_near.rows
    seen = {"trained_on": hashes[rows["train"]], "selected_on": hashes[rows["val"]]}
    assert np.flatnonzero(predict("test", **seen).near_leaked).tolist() == [0, 1, 2]
    assert not predict("test", **seen).leaked.any()
    seen["selected_on"] = seen["selected_on"][:0]
    assert np.flatnonzero(predict("test", **seen).near_leaked).tolist() == [0, 1]
    assert np.flatnonzero(predict("test", trained_on=hashes[rows["test"][5:6]]).near_leaked).tolist() == [5]


def test_near_leaks_are_unknown_if_the_training_images_are_elsewhere(
    predict, data, with_near, make_checkpoint, tmp_path
):
    predicted = predict("test", trained_on=[1, 2, int(data.faces.hashes[data.rows["train"][0]])])
    assert predicted.near_leaked is None
    _, metadata = read_checkpoint(make_checkpoint()[0])  # trained on two images of hash 1 and 2**64 - 1
    test = write_results(tmp_path, data, metadata, {"test": predicted})["test"]
    assert test["leak_free_near"] is None
    assert test["leak_free_near_reason"].startswith(
        "the checkpoint was trained or selected on 3 images that are not in this data set"
    )
    test = write_results(tmp_path, data, None, {"test": predicted})["test"]
    assert (test["leak_free"], test["leak_free_near"]) == (None, None)
    assert "not known" in test["leak_free_near_reason"]


def test_near_leaks_are_unknown_if_the_search_was_incomplete(predict, with_near, monkeypatch):
    monkeypatch.setattr(with_near, "_near", with_near._near._replace(left_out="searched only in part"))
    assert predict("test").near_leaked is None


def test_second_leak_free_value_leaves_out_near_duplicates(
    predict, with_near, make_checkpoint, tmp_path, data
):
    hashes = data.faces.hashes
    predicted = predict("test", trained_on=hashes[data.rows["train"]])
    metrics = write_results(tmp_path, data, read_checkpoint(make_checkpoint()[0])[1], {"test": predicted})
    near, loaded = metrics["test"]["leak_free_near"], Predictions.load(tmp_path / "predictions_test.npz")
    assert (metrics["test"]["leak_free"]["n"], near["n"]) == (28, 26)
    assert near["acc"] == pytest.approx((loaded.predicted == loaded.labels)[2:].mean())
    assert near["ci95"]["acc"][0] < near["acc"] + 1e-9 < near["ci95"]["acc"][1] + 1e-6
    assert np.flatnonzero(loaded.near_leaked).tolist() == [0, 1]
    assert np.flatnonzero(loaded.subset(np.arange(1, 5)).near_leaked).tolist() == [0]
    assert "leak_free_near_reason" not in metrics["test"]


def test_an_empty_split_is_named(predict, make_data):
    data = make_data(protocol="paper")
    data.setup()
    with pytest.raises(FERError, match=r"split=val: this split is empty \(data.protocol=paper\)"):
        predict("val", data=data)


def test_a_trainer_that_limits_batches_gives_fewer_rows(predict):
    assert len(predict("test", limit_predict_batches=2)) == 16
    assert len(predict("test", limit_test_batches=1)) == 8


def test_nan_probabilities_raise_one_sentence(make_checkpoint, data):
    def break_it(content):
        content["state_dict"]["backbone.head.bias"].fill_(torch.nan)

    classifier, metadata = load_classifier(make_checkpoint(change=break_it)[0])
    with pytest.raises(FERError, match="split=test: .*NaN"):
        predict_splits(classifier, metadata, data, ["test"], TRAINER)["test"]


def test_results_are_files_that_agree_with_each_other(predict, data, make_checkpoint, tmp_path):
    _, metadata = read_checkpoint(make_checkpoint()[0])
    predicted = {split: predict(split) for split in ("val", "test")}
    metrics = write_results(tmp_path, data, metadata, predicted)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written == metrics
    assert written["schema"] == 1
    assert (written["dataset"], written["synthetic"]) == ("synthetic", True)
    assert (written["selected_by"], written["best_epoch"]) == ("val/acc", 4)
    for split in ("val", "test"):
        loaded = Predictions.load(tmp_path / f"predictions_{split}.npz")
        assert written[split]["acc"] == pytest.approx((loaded.predicted == loaded.labels).mean())
        assert written[split]["n"] == written[split]["leak_free"]["n"] == 28


def test_equal_results_are_equal_files(predict, data, make_checkpoint, tmp_path):
    _, metadata = read_checkpoint(make_checkpoint()[0])
    predicted = predict()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_results(tmp_path / name, data, metadata, {"test": predicted})
    one, other = ((tmp_path / name / "metrics.json").read_bytes() for name in ("a", "b"))
    assert one == other
