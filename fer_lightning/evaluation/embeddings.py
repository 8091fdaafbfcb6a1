"""Embeddings: what a network knows of an image before its last layer, and their map in two dimensions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fer_lightning.training.classifier import FERClassifier
from fer_lightning.training.views import NUM_VIEWS

MAX_NUMBERS = 64_000_000  # of all embeddings of a split, as float32 256 MB; more are not recorded
_SUBSPACE, _ITERATIONS = 8, 20


class Recorder:
    """Collects the embeddings of the images that a classifier predicts."""

    def __init__(self, num_images: int, num_views: int) -> None:
        self._num_images, self._num_views = num_images, num_views
        self._found: list[Tensor] = []
        self._full = False

    def add(self, features: Any) -> None:
        """Take the input of the head for one view of the next batch."""
        is_plain = isinstance(features, Tensor) and features.ndim == 2
        if not is_plain or features.shape[1] * self._num_images > MAX_NUMBERS:
            self._full = True
        if not self._full:
            self._found.append(features.detach().float())

    def collect(self, num_images: int) -> NDArray[np.float32] | None:
        """Return ``(num_images, D)`` float32, averaged over the views of each image.

        None if there are too many, or if a network of another kind uses its head in another way.
        """
        if self._full or not self._found:
            return None
        found = torch.cat(self._found)
        if self._num_views > 1:
            batches = zip(*[iter(self._found)] * self._num_views, strict=False)
            found = torch.cat([sum(views) / self._num_views for views in batches])
        return found.cpu().numpy() if len(found) == num_images else None


@contextmanager
def record_embeddings(classifier: FERClassifier, num_images: int) -> Iterator[Recorder]:
    """Record what the head of a classifier is given while it predicts; the predictions do not change.

    Args:
        classifier: Of a network whose last layer is ``head``; of others nothing is recorded.
        num_images: That will be predicted.
    """
    recorder = Recorder(num_images, NUM_VIEWS[classifier.tta])
    head = getattr(classifier.predicting_network, "head", None)
    if not isinstance(head, nn.Module):
        yield recorder
        return
    hook = head.register_forward_pre_hook(lambda _, inputs: recorder.add(inputs[0]))
    try:
        yield recorder
    finally:
        hook.remove()


def project(embeddings: NDArray[np.float32]) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Project embeddings on their first two principal components.

    Args:
        embeddings: ``(N, D)`` float32, N and D at least 2.

    Returns:
        ``(N, 2)`` float32 positions, and the shares of the variance that the two axes hold, in [0, 1]. The
        direction of an axis is arbitrary: the largest weight of each is made positive.
    """
    centred = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    # Subspace iteration: a full decomposition takes seconds for a thousand dimensions.
    axes = np.random.default_rng(0).normal(size=(centred.shape[1], min(centred.shape[1], _SUBSPACE)))
    for _ in range(_ITERATIONS):
        axes, _ = np.linalg.qr(centred.T @ (centred @ axes))
    inside = centred @ axes
    variances, rotation = np.linalg.eigh(inside.T @ inside)
    first = axes @ rotation[:, :-3:-1]
    first = first * np.where(first[np.abs(first).argmax(axis=0), [0, 1]] < 0, -1, 1)
    total = float((centred**2).sum())
    shares = variances[:-3:-1] / total if total > 0 else np.zeros(2)
    return (centred @ first).astype(np.float32), (float(shares[0]), float(shares[1]))
