"""A search: its trials in order with the best so far, and which settings mattered."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fer_lightning.report.figures.language import text
from fer_lightning.report.figures.style import BLUE, ORANGE, WIDTH, muted, shorten, styled


@styled
def search_history(
    values: Sequence[float | None],
    pruned: Sequence[bool],
    importance: Mapping[str, float],
    *,
    ylabel: str,
    maximize: bool = True,
) -> Figure:
    """Draw each trial's value with the best so far, and next to it the importance of each setting.

    Args:
        values: ``(N,)`` by trial number; None for a trial without one.
        pruned: ``(N,)`` whether the trial was ended early.
        importance: For each setting its share, in [0, 1]; empty if unknown.
        ylabel: What the search chose by.
        maximize: Whether more is better.
    """
    figure = Figure(figsize=(WIDTH + (2.7 if importance else 0), 3.1), layout="constrained")
    grid = figure.add_gridspec(1, 2 if importance else 1, width_ratios=[5, 3] if importance else [1])
    axes = figure.add_subplot(grid[0, 0])
    numbers = np.arange(len(values))
    scores = np.array([np.nan if value is None else value for value in values], np.float64)
    is_pruned = np.asarray(pruned, bool)
    look: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 5}
    axes.plot(numbers[~is_pruned], scores[~is_pruned], color=BLUE, label=text("trial"), **look)
    if is_pruned.any():
        axes.plot(
            numbers[is_pruned],
            scores[is_pruned],
            color=muted(),
            markerfacecolor="none",
            label=text("pruned_trial"),
            **look,
        )
    whole = np.where(is_pruned | np.isnan(scores), -np.inf if maximize else np.inf, scores)
    best = np.maximum.accumulate(whole) if maximize else np.minimum.accumulate(whole)
    axes.step(
        numbers,
        np.where(np.isfinite(best), best, np.nan),
        where="post",
        color=ORANGE,
        label=text("best_so_far"),
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=text("trial_number"), ylabel=ylabel)
    axes.grid()
    axes.legend(loc="best")
    if importance:
        bars = figure.add_subplot(grid[0, 1])
        ordered = sorted(importance, key=importance.__getitem__)
        bars.barh(range(len(ordered)), [100 * importance[name] for name in ordered], color=BLUE)
        bars.set_yticks(range(len(ordered)), [shorten(name, 24) for name in ordered])
        bars.set_xlabel(text("importance"))
    return figure
