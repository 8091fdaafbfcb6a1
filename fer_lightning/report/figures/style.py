"""Style shared by all figures: colours, fonts, sizes."""

from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray

# Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), which colour-blind readers can distinguish.
BLUE, ORANGE, GREEN, INK, MUTED = "#0072B2", "#E69F00", "#009E73", "#222222", "#8A8A8A"
MAX_LISTED_CLASSES = 30  # more are not numbered cell by cell, and only the first show samples
WIDTH = 5.5  # inches, the text width of a one-column paper

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same figure on every machine
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$x"
    "xtick.color": INK,
    "ytick.color": INK,
    "pdf.fonttype": 42,  # embed TrueType fonts: journals refuse Type 3
    "svg.fonttype": "none",
    "savefig.bbox": "tight",  # long names are not cut off
    "savefig.pad_inches": 0.04,
}

# What distinguishes series: eight colours, then the same with other lines and markers.
_SERIES_COLORS = (BLUE, ORANGE, GREEN, "#D55E00", "#CC79A7", "#56B4E9", INK, MUTED)
_SERIES_LINES = ("-", "--", ":")
_SERIES_MARKERS = "osD^vPX<>"
MAX_SERIES = len(_SERIES_COLORS) * 2  # more are hard to distinguish

styled = mpl.rc_context(STYLE)  # decorates every function that draws


def shorten(name: str, length: int = 22) -> str:
    """Cut a name to at most ``length`` characters, the last one an ellipsis."""
    return name if len(name) <= length else name[: length - 1] + "…"


def make_panels(count: int, *, height: float) -> tuple[Figure, list[Axes]]:
    """Make panels of ``height`` inches, two per row, wider than one column of text."""
    columns = min(count, 2)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.2 * columns, height * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, position + 1) for position in range(count)]


def series_style(index: int, *, marked: bool = False) -> dict[str, Any]:
    """Return colour and line of a series among up to ``MAX_SERIES``, with a marker on request."""
    style: dict[str, Any] = {
        "color": _SERIES_COLORS[index % len(_SERIES_COLORS)],
        "linestyle": _SERIES_LINES[index // len(_SERIES_COLORS) % len(_SERIES_LINES)],
        "linewidth": 1.4,
    }
    if marked:
        style |= {"marker": _SERIES_MARKERS[index % len(_SERIES_MARKERS)], "markersize": 4}
    return style


def spans_decade(values: NDArray[np.float64]) -> bool:
    """Return whether all values are positive and the largest is ten times the smallest or more."""
    return bool(len(values) and values.min() > 0 and values.max() / values.min() >= 10)


def set_log_axis(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with plain numbers at its ticks: powers would need mathematical text."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_below(figure: Figure) -> None:
    """Put one legend of the first panel below the panels, in as many columns as its names have room for."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    longest = max(map(len, labels), default=0)
    columns = 1 if longest > 44 else 2 if longest > 26 else 3 if longest > 14 else 4
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
