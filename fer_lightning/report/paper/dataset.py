"""The images of the data set, which the report shows if they can be loaded again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_lightning.config.stored import read_yaml
from fer_lightning.core.errors import FERError
from fer_lightning.report.paper.runs import PaperRuns


@dataclass(frozen=True)
class DatasetImages:
    """All images of a data set.

    Attributes:
        images: ``(N, S, S)`` uint8 grey levels or ``(N, S, S, 3)`` uint8 colours, possibly memory-mapped.
        labels: ``(N,)`` indices into ``classes``.
        ids: ``(N,)`` image ids, as in predictions.
        train_rows: ``(M,)`` rows of the training images.
        classes: ``C`` names.
        fingerprint: Fingerprint of the data set.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: NDArray[np.str_]
    train_rows: NDArray[np.int64]
    classes: tuple[str, ...]
    fingerprint: str


# Loads the data set of a run from the ``data`` node of its config; raises FERError if it is not found.
LoadImages = Callable[[dict[str, Any]], DatasetImages]


def load_dataset(runs: PaperRuns, load_images: LoadImages) -> DatasetImages | str:
    """Load the data set of some runs, or return the reason why it cannot be shown."""
    for run in runs.runs:
        config = (read_yaml(run.folder / "config.yaml") or {}).get("data")
        if config:
            break
    if not config or "_target_" not in config:
        return "the configs of the runs do not name the data."
    try:
        dataset = load_images(config)
    except FERError as error:
        return f"the data were not found ({error})."
    expected = (run.info.get("data") or {}).get("fingerprint")
    if expected and dataset.fingerprint != expected:
        return (
            f"the data found are not those of the runs (fingerprint {dataset.fingerprint}, not {expected})."
        )
    return dataset
