"""Reproducible facial expression recognition with PyTorch Lightning and Hydra.

The names below are the public API. Each is imported when it is first used: torch and Lightning take seconds,
and ``python train.py --help`` answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer_lightning.data.augment import Augment
    from fer_lightning.data.datamodule import FERDataModule
    from fer_lightning.data.readers.image_folder import ImageFolder
    from fer_lightning.evaluation.predictions import Predictions
    from fer_lightning.inference.predictor import FERPredictor
    from fer_lightning.models.cnn import CNN
    from fer_lightning.models.mlp import MLP
    from fer_lightning.models.resnet import ResNet
    from fer_lightning.models.rnn import RNN
    from fer_lightning.training.build import build
    from fer_lightning.training.classifier import FERClassifier
    from fer_lightning.training.trainer import Trainer

__version__ = "0.1.0"

_HOMES = {
    "Augment": "data.augment",
    "CNN": "models.cnn",
    "FERClassifier": "training.classifier",
    "FERDataModule": "data.datamodule",
    "FERPredictor": "inference.predictor",
    "ImageFolder": "data.readers.image_folder",
    "MLP": "models.mlp",
    "Predictions": "evaluation.predictions",
    "ResNet": "models.resnet",
    "RNN": "models.rnn",
    "Trainer": "training.trainer",
    "build": "training.build",
}

__all__ = [  # the same, for readers and tools
    "CNN",
    "MLP",
    "RNN",
    "Augment",
    "FERClassifier",
    "FERDataModule",
    "FERPredictor",
    "ImageFolder",
    "Predictions",
    "ResNet",
    "Trainer",
    "build",
]


def __getattr__(name: str) -> Any:
    """Import a name of the public API."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public API before it is imported."""
    return sorted([*globals(), *__all__])
