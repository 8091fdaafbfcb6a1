"""Many runs in one figure: their accuracy, their scores per class, their learning curves."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fer_lightning.report.figures.language import class_text, text
from fer_lightning.report.figures.style import (
    BLUE,
    MAX_LISTED_CLASSES,
    WIDTH,
    ink,
    legend_below,
    series_style,
    set_log_axis,
    shorten,
    spans_decade,
    styled,
)


@styled
def accuracy_dots(groups: Mapping[str, Sequence[tuple[float, float, float]]], *, xlabel: str = "") -> Figure:
    """Draw one row per configuration and one dot per run, the best configuration at the top.

    Args:
        groups: For each configuration its runs, at least one, as (accuracy, low, high) in [0, 1]; a line from
            low to high goes through the dot.
        xlabel: What was measured, on which split; by default the accuracy.
    """
    rows = sorted(groups, key=lambda name: np.mean([run[0] for run in groups[name]]), reverse=True)
    figure = Figure(figsize=(WIDTH, 0.75 + 0.36 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for position, name in enumerate(rows):
        runs = 100 * np.array(groups[name])
        spread = position + (np.arange(len(runs)) - (len(runs) - 1) / 2) * min(0.14, 0.7 / len(runs))
        if len(runs) > 1:
            axes.plot(runs[:, 0].mean(), position, "|", color=ink(), markersize=20, markeredgewidth=1.4)
        axes.hlines(spread, runs[:, 1], runs[:, 2], color=BLUE, linewidth=1, alpha=0.55)
        axes.plot(runs[:, 0], spread, "o", color=BLUE, markersize=5)
    axes.set_yticks(range(len(rows)), [shorten(name, 40) for name in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(xlabel or text("accuracy"))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid()
    return figure


@styled
def overlaid_curves(
    groups: Mapping[str, Sequence[Mapping[str, Sequence[float]]]], *, split: str, split_name: str
) -> Figure:
    """Draw accuracy and loss over epochs of several configurations, one colour each.

    The seeds of a configuration are thin lines, and their mean over the epochs that all have is a thick one.

    Args:
        groups: For each configuration the columns of ``metrics.csv`` of its runs, NaN where a cell was empty;
            each needs ``epoch``, counted from 0; the axis counts from 1.
        split: ``val`` or ``train``, as in the names of the columns.
        split_name: The split for people, such as ``validation``.
    """
    figure = Figure(figsize=(WIDTH + 1.5, 3.0 + 0.17 * len(groups) / 2), layout="constrained")
    labels = text("split_accuracy", split=split_name), text("split_loss", split=split_name)
    panels = (("acc", labels[0], 100), ("loss", labels[1], 1))
    for position, (key, label, scale) in enumerate(panels, 1):
        axes = figure.add_subplot(1, 2, position)
        for index, (name, histories) in enumerate(groups.items()):
            curves = [_curve(history, f"{split}/{key}", scale) for history in histories]
            _draw_group(axes, [curve for curve in curves if len(curve[0])], name, index)
        axes.set(xlabel=text("epoch"), ylabel=label)
        drawn = [np.asarray(line.get_ydata(), np.float64) for line in axes.lines]
        if key == "loss" and drawn and spans_decade(np.concatenate(drawn)):
            set_log_axis(axes, "y")  # one that diverges would flatten the others
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid()
    legend_below(figure)
    return figure


def _curve(
    history: Mapping[str, Sequence[float]], column: str, scale: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    epochs = np.asarray(history["epoch"], np.float64) + 1
    values = scale * np.asarray(history.get(column, np.full(len(epochs), np.nan)), np.float64)
    measured = np.isfinite(values) & np.isfinite(epochs)
    return epochs[measured], values[measured]


def _draw_group(
    axes: Axes,
    curves: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    name: str,
    index: int,
) -> None:
    style, marker = series_style(index), series_style(index, marked=True)
    label = shorten(name, 60)
    if len(curves) == 1:
        epochs, values = curves[0]
        axes.plot(epochs, values, label=label, **(marker if len(epochs) < 12 else style))
    elif curves:
        for epochs, values in curves:
            axes.plot(epochs, values, **style | {"linewidth": 0.8, "alpha": 0.8})
        shared = sorted(set.intersection(*(set(epochs.tolist()) for epochs, _ in curves)))
        means = [np.mean([values[epochs == epoch].mean() for epochs, values in curves]) for epoch in shared]
        axes.plot(shared, means, label=label, **(marker if len(shared) < 12 else style) | {"linewidth": 2})


@styled
def class_dots(groups: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> Figure:
    """Draw recall and F1 of each class, one marker per configuration.

    Args:
        groups: For each configuration and class its ``recall`` and ``f1`` in [0, 1], None where undefined;
            all have the same classes. Of more than 30 classes the first are shown.
    """
    classes = list(next(iter(groups.values())))[:MAX_LISTED_CLASSES]
    height = 1.1 + 0.34 * len(classes) + 0.17 * len(groups) / 2
    figure = Figure(figsize=(WIDTH + 1.5, height), layout="constrained")
    first, second = figure.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.06})
    offsets = (np.arange(len(groups)) - (len(groups) - 1) / 2) * min(0.14, 0.7 / len(groups))
    for axes, key, label in ((first, "recall", text("recall_percent")), (second, "f1", text("f1_percent"))):
        for index, (name, scores) in enumerate(groups.items()):
            values = [np.nan if (value := scores[c].get(key)) is None else 100 * value for c in classes]
            style = series_style(index, marked=True) | {"linestyle": "", "markersize": 5}
            axes.plot(values, np.arange(len(classes)) + offsets[index], label=shorten(name, 60), **style)
        axes.set_xlabel(label)
        axes.set_xlim(-3, 103)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.hlines(
            np.arange(len(classes) - 1) + 0.5, -3, 103, color=mpl.rcParams["grid.color"], linewidth=0.8
        )
        axes.grid(axis="x")
    first.set_yticks(range(len(classes)), [shorten(class_text(name)) for name in classes])
    first.set_ylim(len(classes) - 0.5, -0.5)
    legend_below(figure)
    return figure
