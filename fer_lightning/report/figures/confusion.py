"""Confusion matrices, of one model and of several."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fer_lightning.report.figures.language import class_text, number, text
from fer_lightning.report.figures.style import (
    BLUE,
    MAX_LISTED_CLASSES,
    font_size,
    ink,
    make_panels,
    shorten,
    styled,
)

_WHITE_TEXT = 0.8  # share from which white text has more contrast than dark text on a white page


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
    figure = Figure(figsize=(side + 1.9, side + 0.9), layout="constrained")
    axes = figure.add_subplot()
    _shade(axes, shown, top, edges=is_listed)
    for row, column in np.ndindex(num_classes, num_columns) if is_listed else ():
        value = shown[row, column]
        written = f"{value:.0f}" if normalise else number(value)
        if normalise and not sizes[row]:
            written = "—"
        _write(axes, row, column, written, float(value / top))
    names = [shorten(class_text(name)) for name in classes]
    answers = [*names, text("no_answer")][:num_columns]
    if normalise:
        names = [f"{name} ({number(size, ',.0f')})" for name, size in zip(names, sizes[:, 0], strict=True)]
    _label_classes(axes, answers, names)
    axes.set_xlabel(text("predicted"))
    axes.set_ylabel(text("true_images" if normalise else "true_class"))
    unit = text("percent_of_class" if normalise else "images")
    axes.set_title(text("titled", title=shorten(title, 40), unit=unit) if title else unit)
    _add_colour_bar(figure, axes, top)
    return figure


@styled
def confusion_panels(models: Mapping[str, NDArray[np.int64]], classes: Sequence[str]) -> Figure:
    """Draw the confusion matrices of several models: counts, shaded by their share of the true class.

    Args:
        models: At least one ``(C, C)`` matrix by title, in images, rows true, columns predicted.
        classes: ``C`` names.
    """
    figure, panels, spare = make_panels(len(models), height=1 + 0.4 * len(classes))
    names = [shorten(class_text(name), 12) for name in classes]
    for axes, (title, counts) in zip(panels, models.items(), strict=True):
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        _shade(axes, shares, 1, edges=True)
        for row, column in np.ndindex(counts.shape):
            _write(
                axes, row, column, number(counts[row, column]), shares[row, column], fontsize=font_size(7.5)
            )
        _label_classes(axes, names, names)
        axes.set(xlabel=text("predicted"), ylabel=text("true_class"))
        axes.set_title(shorten(title, 40))
    if spare is not None:
        bar = spare.inset_axes((0.1, 0.5, 0.7, 0.06))
        bar.imshow(np.linspace(0, 100, 256)[None], cmap=_shades(), aspect="auto", extent=(0, 100, 0, 1))
        bar.set(yticks=[], title=text("percent_of_class"))
        bar.spines[:].set_visible(False)
    return figure


def _shades() -> LinearSegmentedColormap:
    """Return shades from transparent to the style's first colour, which suit dark pages, too."""
    return LinearSegmentedColormap.from_list("shades", [to_rgba(BLUE, 0), to_rgba(BLUE, 1)])


def _shade(axes: Axes, values: NDArray[Any], top: float, *, edges: bool) -> None:
    lines: dict[str, Any] = {"edgecolors": mpl.rcParams["grid.color"], "linewidth": 0.5} if edges else {}
    axes.pcolormesh(values, cmap=_shades(), vmin=0, vmax=top, **lines)


def _write(axes: Axes, row: int, column: int, written: str, share: float, **look: Any) -> None:
    """Write into a cell. The layout need not measure what lies inside the axes."""
    color = "white" if share > _WHITE_TEXT else ink()
    place: dict[str, Any] = {"ha": "center", "va": "center", "in_layout": False}
    axes.text(column + 0.5, row + 0.5, written, color=color, **place, **look)


def _add_colour_bar(figure: Figure, axes: Axes, top: float) -> None:
    """Draw the bar as one image: a thousand transparent quadrilaterals would show their seams."""
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, top), _shades()), ax=axes, shrink=0.6, aspect=14, pad=0.03
    )
    if bar.solids is not None:
        bar.solids.remove()
    gradient = np.linspace(0, top, 256)[:, None]
    bar.ax.imshow(gradient, cmap=_shades(), aspect="auto", origin="lower", extent=(0, 1, 0, top))
    bar.ax.set(xlim=(0, 1), ylim=(0, top), xticks=[])
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    bar.ax.tick_params(labelsize=font_size(7), length=2)


def _label_classes(axes: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
    """Name the classes; of more than 60, every second, third and so on."""
    step = -(-len(rows) // (2 * MAX_LISTED_CLASSES))
    size: dict[str, Any] = {"fontsize": font_size(5)} if len(rows) > MAX_LISTED_CLASSES else {}
    places = np.arange(len(columns))[::step] + 0.5
    axes.set_xticks(places, columns[::step], rotation=35, ha="right", rotation_mode="anchor", **size)
    axes.set_yticks(np.arange(len(rows))[::step] + 0.5, rows[::step], **size)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
