"""What W&B shows of a run: config columns, tables, a confusion matrix, images."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import wandb
from numpy.typing import NDArray

NUM_MISTAKES = 24


class SplitPredictions(Protocol):
    """What is read of the predictions of a split, see ``evaluation.predictions.Predictions``."""

    @property
    def ids(self) -> NDArray[np.str_]:
        """``(N,)`` str."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """``(N,)`` int64."""

    @property
    def probs(self) -> NDArray[np.float32]:
        """``(N, C)`` float32."""

    @property
    def classes(self) -> tuple[str, ...]:
        """``(C,)`` names."""

    @property
    def predicted(self) -> NDArray[np.int64]:
        """``(N,)`` int64, -1 where there is no answer."""

    def __len__(self) -> int: ...


def flatten_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a config to the columns of a dashboard.

    ``{"model": {"_target_": "a.b.CNN", "width": 32}}`` becomes ``{"model": "CNN", "model/width": 32}``. The
    parts are joined by slashes, as in the names of metrics, because W&B takes a dot in a name for nesting.
    Left out are the logger itself, Hydra's directives, and the folders of this machine: absolute paths,
    ``root`` and ``*_dir``.

    Args:
        config: The resolved config as plain containers.

    Returns:
        Numbers, strings, lists and nulls by name.
    """
    columns = {}
    for key, value in flatten({group: value for group, value in config.items() if group != "logger"}):
        parent, _, name = key.rpartition("/")
        if name == "_target_":
            columns[parent] = value.rpartition(".")[2]
        elif not (name.startswith("_") or _is_folder(name, value)):
            columns[key] = value
    return columns


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested dicts with their keys joined by slashes."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _is_folder(name: str, value: object) -> bool:
    if name == "root" or name.endswith("_dir"):
        return True
    return isinstance(value, str | Path) and (Path(value).is_absolute() or str(value).startswith("~/"))


def mistakes(predictions: SplitPredictions, images: NDArray[np.uint8]) -> list[wandb.Image]:
    """Show the most confident errors, highest probability first."""
    predicted = predictions.predicted
    wrong = np.flatnonzero((predicted >= 0) & (predicted != predictions.labels))
    confidence = predictions.probs[wrong, predicted[wrong]]
    worst = wrong[np.argsort(-confidence, kind="stable")[:NUM_MISTAKES]]
    classes = predictions.classes
    return [
        wandb.Image(
            np.asarray(images[row]),
            caption=f"{classes[predictions.labels[row]]}, predicted {classes[predicted[row]]} "
            f"({predictions.probs[row, predicted[row]]:.0%}): {predictions.ids[row]}",
        )
        for row in worst
    ]


def confusion_matrix(split: str, predictions: SplitPredictions) -> Any:
    """Make W&B's confusion matrix; images without an answer are one more class."""
    classes = [*predictions.classes]
    predicted = predictions.predicted
    if (predicted < 0).any():
        predicted = np.where(predicted < 0, len(classes), predicted)
        classes.append("no answer")
    return wandb.plot.confusion_matrix(
        y_true=predictions.labels.tolist(),
        preds=predicted.tolist(),
        class_names=classes,
        title=f"{split}: {len(predictions)} images",
    )


def per_class_table(per_class: Mapping[str, Mapping[str, float]]) -> wandb.Table:
    """Make a table with one row per class."""
    measures = [*next(iter(per_class.values()))]
    rows = [[name, *(values[measure] for measure in measures)] for name, values in per_class.items()]
    return wandb.Table(columns=["class", *measures], data=rows)


def read_table(path: Path) -> wandb.Table:
    """Make a table of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        headers, *rows = csv.reader(file)
    columns = [_numbers(column) for column in zip(*rows, strict=True)]
    return wandb.Table(columns=[*headers], data=[list(row) for row in zip(*columns, strict=True)])


def _numbers(cells: Sequence[str]) -> list[float | None] | list[str | None]:
    """Read a column of a CSV file as numbers if all are, since W&B refuses to mix them with texts."""
    try:
        return [float(cell) if cell else None for cell in cells]
    except ValueError:
        return [cell or None for cell in cells]
