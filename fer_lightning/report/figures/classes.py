"""Bars per class: precision, recall and F1, and the number of images."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_lightning.report.figures.language import class_text, number, split_text, text
from fer_lightning.report.figures.style import (
    BLUE,
    GREEN,
    ORANGE,
    WIDTH,
    font_size,
    make_panels,
    muted,
    shorten,
    styled,
)


@styled
def per_class_bars(per_class: Mapping[str, Mapping[str, float | None]]) -> Figure:
    """Draw precision, recall and F1 of each class.

    Args:
        per_class: For each class its ``precision``, ``recall`` and ``f1`` in [0, 1], None where undefined
            (no bar), and its number of images ``n``.
    """
    rows = [f"{shorten(class_text(name))} ({number(entry['n'])})" for name, entry in per_class.items()]
    figure = _bar_figure(rows, _scores(per_class), text("score_and_images"))
    figure.axes[0].set_xlim(0, 100)
    return figure


@styled
def per_class_panels(models: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> Figure:
    """Draw precision, recall and F1 of each class, one panel per model.

    Args:
        models: At least one argument of ``per_class_bars`` by title; all have the same classes.
    """
    figure, panels, spare = make_panels(len(models), height=0.7 + 0.42 * len(next(iter(models.values()))))
    for axes, (title, per_class) in zip(panels, models.items(), strict=True):
        _draw_bars(axes, list(map(class_text, per_class)), _scores(per_class))
        axes.set(xlim=(0, 100), xlabel=text("percent"))
        axes.set_title(shorten(title, 40))
    legend = panels[0].get_legend_handles_labels()
    if spare is None:
        figure.legend(*legend, loc="outside upper center", ncols=3)
    else:
        spare.legend(*legend, loc="center")
    return figure


@styled
def class_distribution(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Draw the class distribution of each split, in percent, so that splits of any size compare.

    Args:
        counts: For each split the number of images of each class.
    """
    classes = list(dict.fromkeys(name for split in counts.values() for name in split))
    totals = {split: sum(by_class.values()) for split, by_class in counts.items()}
    series = {
        f"{split_text(split)} ({number(totals[split])})": [
            100 * by_class.get(name, 0) / max(totals[split], 1) for name in classes
        ]
        for split, by_class in counts.items()
    }
    figure = _bar_figure(list(map(class_text, classes)), series, text("class_shares"))
    figure.axes[0].margins(x=0.08)  # room for the labels
    for container, by_class in zip(figure.axes[0].containers, counts.values(), strict=True):
        labels = [number(by_class.get(name, 0)) for name in classes]
        figure.axes[0].bar_label(container, labels, padding=2, fontsize=font_size(6.5))  # type: ignore[arg-type]
    return figure


def _bar_figure(rows: Sequence[str], series: Mapping[str, Sequence[float]], xlabel: str) -> Figure:
    figure = Figure(figsize=(WIDTH, 0.9 + (0.12 + 0.12 * len(series)) * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    _draw_bars(axes, rows, series)
    axes.set_xlabel(xlabel)
    figure.legend(loc="outside upper center", ncols=4)
    return figure


def _draw_bars(axes: Axes, rows: Sequence[str], series: Mapping[str, Sequence[float]]) -> None:
    """Draw one group of bars per row; they are horizontal, so that names of any length stay readable."""
    height = 0.8 / max(len(series), 1)
    positions = np.arange(len(rows))
    for index, (name, values) in enumerate(series.items()):
        offset = (index - (len(series) - 1) / 2) * height
        color = (BLUE, ORANGE, GREEN, muted())[index % 4]
        axes.barh(positions + offset, values, height=0.88 * height, color=color, label=name)
    axes.set_yticks(positions, [shorten(row) for row in rows])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _scores(per_class: Mapping[str, Mapping[str, float | None]]) -> dict[str, list[float]]:
    keys = {text("precision"): "precision", text("recall"): "recall", text("f1"): "f1"}
    return {
        name: [np.nan if (value := entry[key]) is None else 100 * value for entry in per_class.values()]
        for name, key in keys.items()
    }
