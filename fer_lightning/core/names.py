"""Names of models and data sets as people write them, and in ids and file names."""

import re
from collections.abc import Mapping
from typing import Any

_MODELS = {"mlp": "MLP", "cnn": "CNN", "rnn": "RNN", "resnet": "ResNet"}
_DATASETS = {
    "affectnet": "AffectNet (official validation set)",  # whose test set is not public
    "ckplus": "CK+",
    "fer2013": "FER-2013",
    "ferplus": "FER+",
    "rafdb": "RAF-DB",
    "synthetic": "synthetic faces",
}


def model_title(name: str, settings: Mapping[str, Any]) -> str:
    """Return a model's name, with its depth if it has one: ``resnet`` with 15 layers is ``ResNet-15``.

    Args:
        name: Its name in ``run.json``; one that is not known is returned as it is.
        settings: The ``model`` node of the run's config, possibly empty. A timm model is named by it.
    """
    if name == "timm":
        return str(settings.get("name") or name)
    title = _MODELS.get(name.lower(), name)
    depth = settings.get("depth")
    return f"{title}-{depth}" if title == "ResNet" and isinstance(depth, int) else title


def dataset_title(name: str) -> str:
    """Return a data set's name: ``fer2013`` is ``FER-2013``; one that is not known is returned as it is."""
    return _DATASETS.get(name, name)


def slug(heading: str) -> str:
    """Convert a text to an id or a part of a file name: lower-case words with hyphens between them."""
    return re.sub("[^a-z0-9]+", "-", heading.lower()).strip("-")
