"""A trained network on image files."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fer_lightning.config.limits import limits_warning
from fer_lightning.core.errors import FERError
from fer_lightning.core.files import special_kind
from fer_lightning.core.hardware import choose_device
from fer_lightning.core.text import writable
from fer_lightning.data.decode import MAX_PHOTO_PIXELS, decode
from fer_lightning.training.checkpoint import SYNTHETIC_WARNING, load_classifier
from fer_lightning.training.classifier import FERClassifier

log = logging.getLogger(__name__)

BATCH_SIZE = 256  # images predicted at a time
MAX_PHOTO_BYTES = 2**30  # of one image file: 200 million pixels of 8 bits take 600 MB unpacked


def predict(
    images: Sequence[Path], checkpoint: Path, *, trust: Collection[str] = ()
) -> list[dict[str, float]]:
    """Classify images, each of one face that fills it, in float32, on a GPU if there is one.

    Args:
        images: Files of any size, colour or grey.
        checkpoint: A checkpoint of this project.
        trust: Packages whose networks the checkpoint may name, besides this one.

    Returns:
        For each image, class name -> probability in [0, 1], in the checkpoint's order.

    Raises:
        FERError: If an image or the checkpoint cannot be read; all unreadable images are named.

    A photograph may have more pixels than an image of a data set, of which many are decoded at once.
    """
    classifier, metadata = load_classifier(checkpoint, trust=trust)
    if metadata.is_synthetic:
        log.warning("%s: %s", checkpoint, SYNTHETIC_WARNING)
    if metadata.limits:
        log.warning("%s: %s", checkpoint, limits_warning(metadata.limits))
    model = metadata.config["model"]
    size, channels = model["image_size"], model.get("in_channels", 1)
    faces, problems = [], []
    for path in images:
        try:
            data = _read(path)
            faces.append(decode(data, size=size, channels=channels, exact=False, max_pixels=MAX_PHOTO_PIXELS))
        except OSError as error:
            problems.append(f"{writable(str(path))}: {error.strerror or error}")
        except FERError as error:
            problems.append(f"{writable(str(path))}: {error}")
    if problems:
        raise FERError("; ".join(problems))
    for path, face in zip(images, faces, strict=True):
        if face.min() == face.max():
            log.warning("%s: blank, all its pixels are equal; the prediction means nothing", path)
    probs = _predict_faces(classifier.to(choose_device("auto")), faces)
    if not probs.isfinite().all():
        raise FERError(
            f"{checkpoint}: the network answers NaN, since its weights have diverged or are damaged; take "
            "another checkpoint"
        )
    return [dict(zip(metadata.classes, row, strict=True)) for row in probs.tolist()]


def _read(path: Path) -> bytes:
    if kind := special_kind(path):
        raise FERError(f"{kind}, expected a file; save its content to a file first")
    with path.open("rb") as file:
        data = file.read(MAX_PHOTO_BYTES + 1)
    if len(data) > MAX_PHOTO_BYTES:
        raise FERError(f"more than the {MAX_PHOTO_BYTES:,} bytes allowed for an image")
    return data


def _predict_faces(classifier: FERClassifier, faces: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Predict images in batches of bounded memory.

    Args:
        classifier: On its device.
        faces: Each ``(S, S)`` or ``(S, S, 3)`` uint8.

    Returns:
        ``(N, C)`` float32 probs on the CPU.
    """
    probs = []
    for first in range(0, len(faces), BATCH_SIZE):
        pixels = torch.from_numpy(np.stack(faces[first : first + BATCH_SIZE]))
        batch = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
        with torch.inference_mode():
            probs.append(classifier(batch.to(classifier.device)).float().softmax(dim=1).cpu())
    return torch.cat(probs)
