"""Confusion matrices, of one model and of several."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fer_lightning.report.figures.style import INK, MAX_LISTED_CLASSES, make_panels, shorten, styled


@styled
def confusion_matrix(
    counts: NDArray[Any], classes: Sequence[str], *, normalise: bool, title: str = ""
) -> Figure:
    """Draw the confusion matrix of one model, without numbers if there are more than 30 classes.

    Args:
        counts: ``(C, C)`` numbers of images or their means, rows true, columns predicted, or ``(C, C + 1)``:
            the last column holds unanswered images, and is left out if it is all 0.
        classes: ``C`` names.
        normalise: Show percentages of each row instead of counts.
        title: What was measured, before the unit.
    """
    num_classes = len(classes)
    if not counts[:, num_classes:].any():
        counts = counts[:, :num_classes]
    sizes = counts.sum(axis=1, keepdims=True)
    shown = 100 * counts / np.maximum(sizes, 1) if normalise else counts
    top = 100 if normalise else max(int(counts.max(initial=0)), 1)
    num_columns = counts.shape[1]
    is_listed = num_classes <= MAX_LISTED_CLASSES
    side = max(3.4, 0.52 * min(num_columns, MAX_LISTED_CLASSES))
    figure = Figure(figsize=(side + 1.4, side + 0.9), layout="constrained")
    axes = figure.add_subplot()
    edges: dict[str, Any] = {"edgecolors": "white", "linewidth": 0.5} if is_listed else {}
    axes.pcolormesh(shown, cmap="Blues", vmin=0, vmax=top, **edges)
    for row, column in np.ndindex(num_classes, num_columns) if is_listed else ():
        value = shown[row, column]
        text = f"{value:.0f}" if normalise else f"{value:,d}"
        if normalise and not sizes[row]:
            text = "—"
        color = "white" if value > 0.55 * top else INK
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=color)
    names = [shorten(name) for name in classes]
    answers = [*names, "no answer"][:num_columns]
    if normalise:
        names = [f"{name} ({size:,.0f})" for name, size in zip(names, sizes[:, 0], strict=True)]
    _label_classes(axes, answers, names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true (images)" if normalise else "true")
    unit = "% of each true class" if normalise else "images"
    axes.set_title(f"{shorten(title, 40)}: {unit}" if title else unit)
    return figure


@styled
def confusion_panels(models: Mapping[str, NDArray[np.int64]], classes: Sequence[str]) -> Figure:
    """Draw the confusion matrices of several models: counts, shaded by their share of the true class.

    Args:
        models: At least one ``(C, C)`` matrix by title, in images, rows true, columns predicted.
        classes: ``C`` names.
    """
    figure, panels = make_panels(len(models), height=1 + 0.4 * len(classes))
    names = [shorten(name, 12) for name in classes]
    for axes, (title, counts) in zip(panels, models.items(), strict=True):
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=0.5)
        for row, column in np.ndindex(counts.shape):
            color = "white" if shares[row, column] > 0.55 else INK
            text = axes.text(column + 0.5, row + 0.5, f"{counts[row, column]:,d}", color=color, fontsize=7.5)
            text.set(ha="center", va="center")
        _label_classes(axes, names, names)
        axes.set(xlabel="predicted", ylabel="true")
        axes.set_title(shorten(title, 40))
    return figure


def _label_classes(axes: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
    """Name the classes; of more than 60, every second, third and so on."""
    step = -(-len(rows) // (2 * MAX_LISTED_CLASSES))
    size: dict[str, Any] = {"fontsize": 5} if len(rows) > MAX_LISTED_CLASSES else {}
    places = np.arange(len(columns))[::step] + 0.5
    axes.set_xticks(places, columns[::step], rotation=35, ha="right", rotation_mode="anchor", **size)
    axes.set_yticks(np.arange(len(rows))[::step] + 0.5, rows[::step], **size)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
