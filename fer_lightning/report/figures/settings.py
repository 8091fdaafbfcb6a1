"""Accuracy against numeric settings: a scatter plot per setting, parallel coordinates of several."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from fer_lightning.report.figures.language import number
from fer_lightning.report.figures.style import (
    BLUE,
    WIDTH,
    font_size,
    legend_below,
    make_panels,
    muted,
    paper,
    series_style,
    set_log_axis,
    shorten,
    spans_decade,
    styled,
)

_MAX_TICKS = 6
_LEAST_GAP = 0.07  # between two labels, as a share of the axis


@styled
def setting_scatter(
    settings: Mapping[str, Sequence[float]],
    accuracy: Sequence[float],
    groups: Sequence[str],
    *,
    ylabel: str,
) -> Figure:
    """Draw one panel per setting and one dot per run; an axis whose values span a decade is logarithmic.

    Args:
        settings: For each setting its value in each run, NaN where a run has none; at least one.
        accuracy: ``(N,)`` in [0, 1].
        groups: ``(N,)`` names; each has a colour, with a legend if there are several.
        ylabel: What was measured, on which split.
    """
    if len(settings) == 1:
        figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
        panels = [figure.add_subplot()]
    else:
        figure, panels, spare = make_panels(len(settings), height=2.9)
        if spare is not None:  # the last panel is as wide as two
            spare.remove()
            grid = panels[-1].get_gridspec()
            assert grid is not None
            panels[-1].set_subplotspec(grid[-1, :])
    scores, names = 100 * np.asarray(accuracy), np.asarray(groups)
    for axes, (setting, given) in zip(panels, settings.items(), strict=True):
        values = np.asarray(given, np.float64)
        for index, name in enumerate(dict.fromkeys(groups)):
            chosen = (names == name) & np.isfinite(values)
            style = series_style(index, marked=True) | {"linestyle": "", "markersize": 6, "alpha": 0.8}
            axes.plot(values[chosen], scores[chosen], label=shorten(name, 60), **style)
        _scale_axis(axes, values[np.isfinite(values)])
        axes.set(xlabel=shorten(setting, 50), ylabel=ylabel)
        axes.grid()
    if len(set(groups)) > 1:
        legend_below(figure)
    return figure


def _scale_axis(axes: Axes, values: NDArray[np.float64]) -> None:
    """Make the x axis logarithmic where that helps, with ticks at the values themselves if they are few."""
    if spans_decade(values):
        set_log_axis(axes, "x")
    distinct = np.unique(values)
    if len(distinct) <= _MAX_TICKS:
        places = _place(distinct, log=True)
        shown = [distinct[i] for i in _spaced(places.tolist())]
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(shown, [number(value, "g") for value in shown])


@styled
def parallel_coordinates(
    settings: Mapping[str, Sequence[float]], accuracy: Sequence[float], *, ylabel: str
) -> Figure:
    """Draw each run as a line through its settings to its accuracy; strong colours are accurate runs.

    Args:
        settings: For each setting its value in each run, NaN where a run has none (its line has a gap).
        accuracy: ``(N,)`` in [0, 1].
        ylabel: What was measured, on which split.
    """
    scores = 100 * np.asarray(accuracy)
    columns = {name: np.asarray(values, np.float64) for name, values in settings.items()} | {ylabel: scores}
    places = np.array([_place(values, log=name != ylabel) for name, values in columns.items()])
    figure = Figure(figsize=(WIDTH + 1.5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    shares = places[-1]
    for run in np.argsort(scores, kind="stable"):
        color = to_rgba(BLUE, 0.5 + 0.5 * shares[run])
        width = 0.9 + 1.3 * shares[run]
        axes.plot(places[:, run], color=color, linewidth=width, marker="o", markersize=3)
    for position, (name, values) in enumerate(columns.items()):
        axes.axvline(position, color=muted(), linewidth=0.8, zorder=0)
        for text, place in _ticks(values, log=name != ylabel, is_score=name == ylabel):
            ground = {"facecolor": paper(), "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
            is_last = position == len(columns) - 1
            look: dict[str, Any] = {"fontsize": font_size(7.5), "va": "center", "zorder": 4, "bbox": ground}
            x, side = (position + 0.04, "left") if is_last else (position - 0.04, "right")
            axes.text(x, place, text, ha=side, **look)
    axes.set_xticks(range(len(columns)), [shorten(name, 24) for name in columns])
    axes.set_xlim(-0.3, len(columns) - 0.75)
    axes.set_ylim(-0.08, 1.08)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0)
    axes.spines[:].set_visible(False)
    return figure


def _scaled(values: NDArray[np.float64], *, log: bool) -> NDArray[np.float64]:
    finite = values[np.isfinite(values)]
    return np.log10(values) if log and spans_decade(finite) else values


def _place(values: NDArray[np.float64], *, log: bool) -> NDArray[np.float64]:
    """Place values in [0, 1], the smallest at 0; equal ones in the middle."""
    scaled = _scaled(values, log=log)
    low, high = np.nanmin(scaled), np.nanmax(scaled)
    return (scaled - low) / (high - low) if high > low else np.where(np.isfinite(scaled), 0.5, np.nan)


def _spaced(places: Sequence[float]) -> list[int]:
    """Return the positions of ascending places whose labels do not overlap that of the one before."""
    chosen: list[int] = []
    for index, place in enumerate(places):
        if not chosen or place - places[chosen[-1]] >= _LEAST_GAP:
            chosen.append(index)
    return chosen


def _ticks(values: NDArray[np.float64], *, log: bool, is_score: bool) -> list[tuple[str, float]]:
    """Return text and place of an axis's ticks: every value if they are few, else both ends."""
    places = _place(values, log=log)
    distinct = {
        float(value): float(place) for value, place in zip(values, places, strict=True) if np.isfinite(value)
    }
    ends = [min(distinct), max(distinct)]
    ordered = sorted(distinct)
    spaced = [ordered[i] for i in _spaced([distinct[value] for value in ordered])]
    chosen = ends if is_score or len(distinct) > _MAX_TICKS else spaced
    return [(number(value, ".1f" if is_score else "g"), distinct[value]) for value in chosen]
