"""Style shared by all figures: colours, fonts, sizes."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, ScalarFormatter
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.report.figures.language import language, localise

P = ParamSpec("P")
T = TypeVar("T")

BLUE, ORANGE, GREEN = "C0", "C1", "C2"  # of the style's colour cycle
MAX_LISTED_CLASSES = 30  # more are not numbered cell by cell, and only the first show samples
WIDTH = 5.5  # inches, the text width of a one-column paper

STYLE_FILE = Path(__file__).with_name("figures.mplstyle")
STYLE_VARIABLE = "FER_FIGURE_STYLE"  # environment variable: a matplotlib style file for all figures


@lru_cache(maxsize=8)
def read_style(path: Path) -> dict[Any, Any]:
    """Read a matplotlib style file.

    Raises:
        FERError: If it cannot be read.
    """
    try:
        return dict(mpl.rc_params_from_file(path, use_default_template=False))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise FERError(
            f"{path}: {reason}; expected a matplotlib style file (--style, {STYLE_VARIABLE})"
        ) from error


STYLE = read_style(STYLE_FILE)


def style_context() -> AbstractContextManager[None]:
    """Return a context with the style of the figures, and over it that of the user's file if there is one."""
    own, scale = _changes.get()
    own = own or os.environ.get(STYLE_VARIABLE)
    style = STYLE | read_style(Path(own)) if own else STYLE
    return mpl.rc_context(style | {"font.size": scale * style["font.size"]})


@contextmanager
def change_style(file: Path | str | None = None, *, scale: float = 1) -> Iterator[None]:
    """Draw with a matplotlib style file over the style of the figures, and with text of another size.

    Raises:
        FERError: If the file cannot be read.
    """
    if file is not None:
        read_style(Path(file))
    token = _changes.set((file or _changes.get()[0], scale))
    try:
        yield
    finally:
        _changes.reset(token)


_changes: ContextVar[tuple[Path | str | None, float]] = ContextVar("changes", default=(None, 1))


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that draws, to draw in the style of the figures."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        with style_context():
            drawn = draw(*args, **kwargs)
            if isinstance(drawn, Figure) and language().decimal != ".":
                _localise_ticks(drawn)
            return drawn

    return wrapper


class _LocalFormatter(ScalarFormatter):
    """Numbers at ticks with the decimal mark of the language."""

    def __init__(self, decimal: str) -> None:
        super().__init__()
        self._decimal = decimal

    def __call__(self, x: float, pos: int | None = None) -> str:
        return super().__call__(x, pos).replace(".", self._decimal)


def _localise_ticks(figure: Figure) -> None:
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if type(axis.get_major_formatter()) is ScalarFormatter:
                axis.set_major_formatter(_LocalFormatter(language().decimal))


def ink() -> str:
    """Return the colour of text, for lines."""
    return str(mpl.rcParams["text.color"])


def muted() -> str:
    """Return the colour of what is less important."""
    return str(mpl.rcParams["axes.edgecolor"])


def paper() -> str:
    """Return the colour of the ground, which a page replaces by its own."""
    return "#fefefe"


def font_size(points: float) -> float:
    """Return a font size that is ``points`` if the style's is 9, and follows it."""
    return points / 9 * float(mpl.rcParams["font.size"])


_SERIES_LINES = ("-", "--", ":", "-.")
_SERIES_MARKERS = "osD^vPX<>"
MAX_SERIES = 16  # more are hard to distinguish


def shorten(name: str, length: int = 22) -> str:
    """Cut a name to at most ``length`` characters, the last one an ellipsis."""
    return name if len(name) <= length else name[: length - 1] + "…"


def make_panels(count: int, *, height: float) -> tuple[Figure, list[Axes], Axes | None]:
    """Make panels of ``height`` inches, two per row, wider than one column of text.

    Returns:
        The figure, its panels, and the empty place after the last of an odd number of panels, for a legend;
        None if there is no such place.
    """
    columns = min(count, 2)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.2 * columns, height * rows), layout="constrained")
    axes = [figure.add_subplot(rows, columns, position + 1) for position in range(rows * columns)]
    spare = axes[count] if len(axes) > count else None
    if spare is not None:
        spare.set_axis_off()
    return figure, axes[:count], spare


def series_style(index: int, *, marked: bool = False) -> dict[str, Any]:
    """Return colour and line of a series among up to ``MAX_SERIES``, with a marker on request.

    The colours are those of the style's cycle, ink and muted ink; then come the same with other lines.
    """
    cycle = mpl.rcParams["axes.prop_cycle"].by_key().get("color", [BLUE])
    colors = [*dict.fromkeys(cycle), ink(), muted()]
    style: dict[str, Any] = {
        "color": colors[index % len(colors)],
        "linestyle": _SERIES_LINES[index // len(colors) % len(_SERIES_LINES)],
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
    axis.set_major_formatter(FuncFormatter(lambda value, _: localise(f"{value:g}")))
    axis.set_minor_formatter(NullFormatter())


def legend_below(figure: Figure) -> None:
    """Put one legend of the first panel below the panels, in as many columns as its names have room for."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    longest = max(map(len, labels), default=0)
    columns = 1 if longest > 44 else 2 if longest > 26 else 3 if longest > 14 else 4
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
