"""Explain a predicted split for its report: heat maps of each class, and the map of the embeddings."""

import math
from io import BytesIO
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fer_lightning.evaluation.embeddings import project
from fer_lightning.evaluation.explanations import EmbeddingMap, Explanations
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.inference.explain import Method, as_batch, choose_method, explain
from fer_lightning.training.classifier import FERClassifier

MAX_CLASSES = 30  # as many as figures list
# Faces in all means together: they bound the time, which occlusion multiplies by the number of windows.
NUM_FACES: dict[Method, int] = {"grad-cam": 84, "occlusion": 28}
MAX_SIDE = 96  # pixels of a stored face
MAX_POINTS = 4000  # faces on the map
SHEET_SIDE, SHEET_QUALITY = 48, 60  # 0.45 kB for a face of FER-2013


def explain_split(
    classifier: FERClassifier, predictions: Predictions, images: NDArray[np.uint8]
) -> Explanations:
    """Compute the mean heat map of each class, and those of its most certain right and wrong answers.

    The means are over correctly classified faces, evenly spaced in the order of the split: 84 in all, so 12
    of each of 7 classes, and 28 for a network that needs occlusion.

    Args:
        classifier: That made the predictions.
        predictions: Of the split, all answered.
        images: ``(N, S, S)`` or ``(N, S, S, 3)`` uint8, in the same order; possibly memory-mapped.
    """
    labels, answers, probs = predictions.labels, predictions.predicted, predictions.probs.max(axis=1)
    method = choose_method(classifier, images.shape[1], images.shape[3] if images.ndim == 4 else 1)
    classes = predictions.classes[:MAX_CLASSES]
    num_each = max(1, NUM_FACES[method] // len(classes))
    for_means, examples = [], []
    for label in range(len(classes)):
        right = np.flatnonzero((labels == label) & (answers == label))
        wrong = np.flatnonzero((labels == label) & (answers != label))
        for_means.append(right[_evenly(len(right), num_each)])
        examples += [rows[np.argmax(probs[rows])] for rows in (right, wrong) if len(rows)]
    shown = np.array(examples, np.int64)
    rows = np.concatenate([*for_means, shown])
    faces = np.asarray(images[rows])
    heat = explain(classifier, as_batch(faces), torch.from_numpy(answers[rows]), method)
    faces, maps = _shrink(faces.astype(np.float32), MAX_SIDE), _shrink(255 * heat, MAX_SIDE)
    starts = np.cumsum([0, *map(len, for_means)])
    parts = [slice(first, last) for first, last in pairwise(starts.tolist())]
    return Explanations(
        classes=classes,
        method=method,
        counts=np.array([len(part) for part in for_means]),
        mean_faces=_means(faces, parts),
        mean_maps=_means(maps, parts),
        ids=predictions.ids[shown],
        labels=labels[shown],
        answers=np.array([predictions.classes[answer] for answer in answers[shown]], dtype=np.str_),
        probs=probs[shown],
        right=labels[shown] == answers[shown],
        faces=_to_uint8(faces[starts[-1] :]),
        maps=_to_uint8(maps[starts[-1] :]),
    )


def map_embeddings(predictions: Predictions, images: NDArray[np.uint8]) -> EmbeddingMap | None:
    """Place the faces of a split by the first two principal components of their embeddings.

    Args:
        predictions: Of the split, all answered.
        images: ``(N, S, S)`` or ``(N, S, S, 3)`` uint8, in the same order; possibly memory-mapped.

    Returns:
        At most 4,000 faces, evenly spaced in the order of the split; the axes are those of all faces. None if
        no embeddings were recorded, or fewer than three.
    """
    embeddings = predictions.embeddings
    if embeddings is None or min(embeddings.shape) < 2 or len(embeddings) < 3:
        return None
    positions, shares = project(embeddings)
    rows = _evenly(len(predictions), MAX_POINTS)
    side = min(images.shape[1], SHEET_SIDE)
    columns = math.ceil(math.sqrt(len(rows)))
    return EmbeddingMap(
        classes=predictions.classes,
        num_images=len(predictions),
        shares=np.array(shares),
        ids=predictions.ids[rows],
        positions=positions[rows],
        labels=predictions.labels[rows],
        answers=predictions.predicted[rows],
        probs=predictions.probs.max(axis=1)[rows],
        sheet=_draw_sheet(_to_uint8(_shrink(np.asarray(images[rows], np.float32), side)), columns),
        columns=columns,
        side=side,
    )


def _evenly(count: int, most: int) -> NDArray[np.int64]:
    """Return at most ``most`` of ``count`` positions, evenly spaced."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)


def _shrink(images: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Scale ``(N, S, S)`` or ``(N, S, S, 3)`` images down to a side by means of areas, if they are larger."""
    if not len(images) or images.shape[1] <= side:
        return images
    pixels = torch.from_numpy(images)
    pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    small = torch.nn.functional.interpolate(pixels, size=(side, side), mode="area")
    return (small.squeeze(1) if images.ndim == 3 else small.permute(0, 2, 3, 1)).numpy()


def _means(images: NDArray[np.float32], parts: list[slice]) -> NDArray[np.uint8]:
    """Return the mean of each part; an empty one is 0."""
    empty = np.zeros(images.shape[1:], np.float32)
    return _to_uint8(
        np.stack([images[part].mean(axis=0) if part.stop > part.start else empty for part in parts])
    )


def _to_uint8(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    return images.round().clip(0, 255).astype(np.uint8)


def _draw_sheet(faces: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Return a JPEG of ``(M, S, S[, 3])`` faces, row by row."""
    side = faces.shape[1]
    sheet = Image.new(
        "L" if faces.ndim == 3 else "RGB", (columns * side, -(-len(faces) // columns) * side), 0
    )
    for number, face in enumerate(faces):
        sheet.paste(Image.fromarray(face), (number % columns * side, number // columns * side))
    content = BytesIO()
    sheet.save(content, "JPEG", quality=SHEET_QUALITY)
    return np.frombuffer(content.getvalue(), np.uint8)
