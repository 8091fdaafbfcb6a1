from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fer_lightning.evaluation.embeddings import project
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.inference import explain_split as splits
from fer_lightning.inference.explain import grad_cam
from fer_lightning.inference.explain_split import explain_split, map_embeddings
from fer_lightning.models.cnn import CNN
from fer_lightning.training.classifier import FERClassifier

CLASSES = ("sad", "happy", "calm")


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    backbone = CNN(num_classes=3, image_size=16, widths=(4, 8), hidden=8)
    return FERClassifier(backbone=backbone, classes=CLASSES, mean=0.5, std=0.25).eval()


def split(n=40, *, side=16, channels=()):
    """Predictions that are right for even rows; nothing is predicted as calm, and no image is calm."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) // 2 % 2
    answers = np.where(np.arange(n) % 2, 1 - labels, labels)
    probs = np.full((n, 3), 0.1, np.float32)
    probs[np.arange(n), answers] = 0.5 + np.arange(n) / (2.5 * n)
    predictions = Predictions(
        ids=np.array([f"test/{CLASSES[label]}/{i}" for i, label in enumerate(labels)]),
        labels=labels,
        probs=probs,
        status=np.full(n, "ok"),
        leaked=np.zeros(n, bool),
        classes=CLASSES,
        embeddings=rng.normal(size=(n, 5)).astype(np.float32),
    )
    return predictions, rng.integers(0, 256, (n, side, side, *channels), dtype=np.uint8)


def test_examples_are_the_most_certain_right_and_wrong_answers(classifier):
    predictions, images = split()
    found = explain_split(classifier, predictions, images)
    assert found.method == "grad-cam"
    assert found.ids.tolist() == ["test/sad/36", "test/sad/37", "test/happy/38", "test/happy/39"]
    assert found.right.tolist() == [True, False, True, False]
    assert found.answers.tolist() == ["sad", "happy", "happy", "sad"]
    assert np.array_equal(found.faces, images[[36, 37, 38, 39]])
    maps = grad_cam(classifier, torch.from_numpy(found.faces)[:, None], torch.tensor([0, 1, 1, 0]))
    np.testing.assert_allclose(found.maps, 255 * maps, atol=0.51)


def test_means_are_of_evenly_spaced_right_answers(classifier, monkeypatch):
    monkeypatch.setitem(splits.NUM_FACES, "grad-cam", 9)
    predictions, images = split()
    found = explain_split(classifier, predictions, images)
    assert found.counts.tolist() == [3, 3, 0]
    rows = [0, 16, 36]  # the first, the fifth and the last of 0, 4, ..., 36
    np.testing.assert_allclose(found.mean_faces[0], images[rows].mean(axis=0), atol=0.51)
    maps = grad_cam(classifier, torch.from_numpy(images[rows])[:, None], torch.zeros(3, dtype=torch.int64))
    np.testing.assert_allclose(found.mean_maps[0], 255 * maps.mean(axis=0), atol=0.51)
    assert not found.mean_maps[2].any()


def test_equal_splits_give_equal_files(classifier, tmp_path):
    for number in range(2):
        predictions, images = split()
        torch.manual_seed(number)
        explain_split(classifier, predictions, images).save(tmp_path / f"e{number}.npz")
        map_embeddings(predictions, images).save(tmp_path / f"m{number}.npz")
    assert (tmp_path / "e0.npz").read_bytes() == (tmp_path / "e1.npz").read_bytes()
    assert (tmp_path / "m0.npz").read_bytes() == (tmp_path / "m1.npz").read_bytes()


def test_large_colour_faces_are_stored_smaller():
    class Mean(nn.Module):
        def forward(self, images):
            return images.mean(dim=(2, 3))

    classifier = FERClassifier(backbone=Mean(), classes=CLASSES, mean=(0.5,) * 3, std=(0.2,) * 3).eval()
    predictions, images = split(6, side=192, channels=(3,))
    found = explain_split(classifier, predictions, images)
    assert found.method == "occlusion"
    assert (found.faces.shape, found.maps.shape) == ((4, 96, 96, 3), (4, 96, 96))
    expected = images[4].reshape(96, 2, 96, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(found.faces[0], expected, atol=0.51)


def test_map_places_every_face_and_holds_it():
    predictions, images = split(side=16)
    found = map_embeddings(predictions, images)
    positions, shares = project(predictions.embeddings)
    assert np.array_equal(found.positions, positions)
    assert found.shares.tolist() == list(shares)
    assert (found.num_images, found.columns, found.side) == (40, 7, 16)
    assert found.answers.tolist() == predictions.predicted.tolist()
    sheet = np.asarray(Image.open(BytesIO(found.sheet.tobytes())))
    assert sheet.shape == (6 * 16, 7 * 16)
    assert np.abs(sheet[16:32, 32:48].mean() - images[9].mean()) < 3


def test_map_of_many_faces_shows_an_even_sample(monkeypatch):
    monkeypatch.setattr(splits, "MAX_POINTS", 5)
    predictions, images = split(41)
    found = map_embeddings(predictions, images)
    assert found.ids.tolist() == predictions.ids[[0, 10, 20, 30, 40]].tolist()
    assert found.num_images == 41
    assert np.array_equal(found.positions, project(predictions.embeddings)[0][[0, 10, 20, 30, 40]])


def test_split_without_embeddings_has_no_map():
    predictions, images = split(2)
    assert map_embeddings(predictions, images) is None
    assert map_embeddings(Predictions(**vars(split()[0]) | {"embeddings": None}), split()[1]) is None
