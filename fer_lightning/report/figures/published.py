"""The accuracy of networks next to published values."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_lightning.report.figures.language import number, text
from fer_lightning.report.figures.style import BLUE, ORANGE, WIDTH, font_size, shorten, styled

_OFFSET = 0.17  # of ours and the published value from the middle of their row


class AccuracyRow(NamedTuple):
    """One network; all numbers are in [0, 1].

    Attributes:
        seeds: Accuracy of each seed; empty if the network was not run.
        interval: CI of their mean; None if the network was not run.
        published: Published accuracy, or None.
        published_interval: CI of the published accuracy, or None.
    """

    seeds: Sequence[float]
    interval: tuple[float, float] | None
    published: float | None
    published_interval: tuple[float, float] | None


@styled
def published_accuracy(rows: Mapping[str, AccuracyRow]) -> Figure:
    """Draw one row per network: our mean with its CI and the seeds as dots, and the published value below.

    Args:
        rows: At least one network by name, in the order in which they are drawn.
    """
    figure = Figure(figsize=(WIDTH + 1, 1.0 + 0.52 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(rows.values()):
        if row.seeds and row.interval:
            _draw_value(axes, place - _OFFSET, sum(row.seeds) / len(row.seeds), row.interval, "D", BLUE)
            seeds = [100 * seed for seed in row.seeds]
            if len(seeds) > 1:
                look: dict[str, Any] = {"markersize": 4, "markerfacecolor": "none", "color": BLUE}
                axes.plot(seeds, [place] * len(seeds), "o", label=text("single_run"), **look)
        if row.published is not None and row.published_interval:
            below = place + _OFFSET + 0.08
            _draw_value(axes, below, row.published, row.published_interval, "s", ORANGE)
    axes.set_yticks(range(len(rows)), [shorten(name, 40) for name in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(text("accuracy"))
    axes.margins(x=0.1)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    named = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(named.values(), named, loc="outside upper center", ncols=3)
    return figure


def _draw_value(
    axes: Axes, place: float, value: float, interval: tuple[float, float], marker: str, color: str
) -> None:
    label = text("ours") if color == BLUE else text("published")
    low, high = (100 * bound for bound in interval)
    axes.hlines(place, low, high, color=color, linewidth=1.6)
    axes.plot(100 * value, place, marker, color=color, markersize=6, label=label)
    written = number(100 * value, ".1f")
    room: dict[str, Any] = {
        "xytext": (6, 0),
        "textcoords": "offset points",
        "va": "center",
        "fontsize": font_size(8),
    }
    axes.annotate(written, (high, place), **room)
