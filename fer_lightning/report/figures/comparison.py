"""Accuracy of many runs in one figure."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from fer_lightning.report.figures.style import BLUE, WIDTH, ink, shorten, styled


@styled
def accuracy_dots(
    groups: Mapping[str, Sequence[tuple[float, float, float]]], *, xlabel: str = "accuracy, %"
) -> Figure:
    """Draw one row per configuration and one dot per run, the best configuration at the top.

    Args:
        groups: For each configuration its runs, at least one, as (accuracy, low, high) in [0, 1]; a line from
            low to high goes through the dot.
        xlabel: What was measured, on which split.
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
    axes.set_xlabel(xlabel)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid()
    return figure
