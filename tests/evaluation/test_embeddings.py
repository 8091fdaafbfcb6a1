import numpy as np
import pytest
import torch
from torch import nn

from fer_lightning.evaluation import embeddings
from fer_lightning.evaluation.embeddings import project, record_embeddings
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.models.mlp import MLP
from fer_lightning.training.classifier import FERClassifier

IMAGES = torch.randint(0, 256, (10, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def classifier_of(**settings):
    torch.manual_seed(0)
    backbone = MLP(num_classes=3, image_size=8, hidden=(6,))
    return FERClassifier(backbone=backbone, classes="abc", mean=0.5, std=0.2, **settings).eval()


@pytest.mark.parametrize("settings", [{}, {"flip_test": True}, {"ema_decay": 0.9}])
def test_the_head_maps_embeddings_to_the_predicted_logits(settings):
    classifier = classifier_of(**settings)
    with torch.inference_mode(), record_embeddings(classifier, 10) as recorder:
        logits = torch.cat([classifier(IMAGES[:6]), classifier(IMAGES[6:])])
    found = recorder.collect(10)
    head = classifier.predicting_network.head
    assert (found.dtype, found.shape) == (np.float32, (10, 6))
    with torch.no_grad():
        np.testing.assert_allclose(head(torch.from_numpy(found)), logits, atol=1e-5)
    assert not head._forward_pre_hooks


def test_nothing_is_recorded_of_networks_with_another_head():
    class Backbone(nn.Module):
        def __init__(self, head):
            super().__init__()
            if head:
                self.head = head

        def forward(self, images):
            return images.mean(dim=(1, 2))[:, :3]

    for head in (None, nn.Linear(2, 3)):  # none, or one that is never called
        classifier = FERClassifier(backbone=Backbone(head), classes="abc").eval()
        with record_embeddings(classifier, 10) as recorder:
            classifier(IMAGES)
        assert recorder.collect(10) is None


def test_too_many_numbers_and_another_number_of_images_are_not_recorded(monkeypatch):
    for limit, num_images in ((59, 10), (60, 9)):
        monkeypatch.setattr(embeddings, "MAX_NUMBERS", limit)
        classifier = classifier_of()
        with torch.no_grad(), record_embeddings(classifier, 10) as recorder:
            classifier(IMAGES)
        assert recorder.collect(num_images) is None


@pytest.mark.parametrize("shape", [(50, 20), (9, 40), (30, 2)])
def test_projection_is_that_of_the_singular_value_decomposition(shape):
    scales = 0.6 ** np.arange(shape[1])
    vectors = (np.random.default_rng(0).normal(size=shape) * scales + 3).astype(np.float32)
    positions, shares = project(vectors)
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    expected = centred @ axes[:2].T
    signs = np.sign((positions * expected).sum(axis=0))
    np.testing.assert_allclose(positions, expected * signs, atol=1e-4)
    assert shares == pytest.approx((values**2 / (values**2).sum())[:2], abs=1e-6)


def test_equal_embeddings_are_one_point():
    positions, shares = project(np.ones((5, 4), np.float32))
    assert np.array_equal(positions, np.zeros((5, 2)))
    assert shares == (0, 0)


def test_embeddings_follow_a_subset_and_are_not_in_the_file(tmp_path):
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    predictions = Predictions(
        ids=np.array(["a", "b", "c"]),
        labels=np.array([0, 1, 0]),
        probs=np.full((3, 2), 0.5, np.float32),
        status=np.full(3, "ok"),
        leaked=np.zeros(3, bool),
        classes=("x", "y"),
        embeddings=vectors,
    )
    assert np.array_equal(predictions.subset(np.array([2, 0])).embeddings, vectors[[2, 0]])
    predictions.save(tmp_path / "p.npz")
    assert Predictions.load(tmp_path / "p.npz").embeddings is None
