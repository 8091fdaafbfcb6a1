"""A trained network on image files."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from fer_lightning.core.errors import FERError
from fer_lightning.core.hardware import choose_device
from fer_lightning.data.decode import decode
from fer_lightning.training.checkpoint import SYNTHETIC_WARNING, load_classifier

log = logging.getLogger(__name__)


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
    """
    classifier, metadata = load_classifier(checkpoint, trust=trust)
    if metadata.is_synthetic:
        log.warning("%s: %s", checkpoint, SYNTHETIC_WARNING)
    model = metadata.config["model"]
    size, channels = model["image_size"], model.get("in_channels", 1)
    faces, problems = [], []
    for path in images:
        try:
            faces.append(decode(path.read_bytes(), size=size, channels=channels, exact=False))
        except OSError as error:
            problems.append(f"{path}: {error.strerror or error}")
        except FERError as error:
            problems.append(f"{path}: {error}")
    if problems:
        raise FERError("; ".join(problems))
    device = choose_device("auto")
    pixels = torch.stack([torch.from_numpy(face) for face in faces])
    batch = pixels.unsqueeze(1) if channels == 1 else pixels.permute(0, 3, 1, 2)
    with torch.inference_mode():
        probs = classifier.to(device)(batch.to(device)).softmax(dim=1)
    return [dict(zip(metadata.classes, row, strict=True)) for row in probs.tolist()]
