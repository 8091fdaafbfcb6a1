"""What W&B shows of a split: tables, a confusion matrix, images."""

import csv
from collections.abc import Mapping, Sequence
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
    def leaked(self) -> NDArray[np.bool_]:
        """``(N,)`` bool."""

    @property
    def classes(self) -> tuple[str, ...]:
        """``(C,)`` names."""

    @property
    def predicted(self) -> NDArray[np.int64]:
        """``(N,)`` int64, -1 where there is no answer."""

    def __len__(self) -> int: ...


def mistakes(predictions: SplitPredictions, images: NDArray[np.uint8]) -> list[wandb.Image]:
    """Show the most confident errors, highest probability first."""
    predicted = predictions.predicted
    wrong = np.flatnonzero((predicted >= 0) & (predicted != predictions.labels))
    confidence = predictions.probs[wrong, predicted[wrong]]
    worst = wrong[np.argsort(-confidence, kind="stable")[:NUM_MISTAKES]]
    classes = predictions.classes
    return [
        wandb.Image(
            _channels_last(np.asarray(images[row])),
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


def predictions_table(predictions: SplitPredictions, images: NDArray[np.uint8]) -> wandb.Table:
    """Make a table of every image: what it shows, what was predicted, and how confidently.

    Args:
        predictions: Of ``N`` images.
        images: ``(N, S, S)`` or ``(N, C, S, S)`` uint8, in the same order; sent as PNG.
    """
    classes = predictions.classes
    columns: list[str | int] = ["id", "image", "label", "prediction", "correct", "leaked"]
    columns += [f"prob {name}" for name in classes]
    rows: list[list[Any]] = []
    for row, (label, predicted) in enumerate(
        zip(predictions.labels.tolist(), predictions.predicted.tolist(), strict=True)
    ):
        probs = [None if np.isnan(prob) else round(float(prob), 4) for prob in predictions.probs[row]]
        image = wandb.Image(_channels_last(images[row]), file_type="png")
        prediction = classes[predicted] if predicted >= 0 else "no answer"
        known = [str(predictions.ids[row]), image, classes[label], prediction]
        rows.append([*known, label == predicted, bool(predictions.leaked[row]), *probs])
    return wandb.Table(columns=columns, data=rows)


def _channels_last(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image if image.ndim == 2 else image.transpose(1, 2, 0)


def results_table(rows: list[list[Any]]) -> wandb.Table:
    """Make a table of the rows of ``wandb_config.result_rows``."""
    return wandb.Table(columns=["split", "images", "metric", "value", "ci_low", "ci_high", "n"], data=rows)


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
