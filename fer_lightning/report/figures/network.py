"""The architecture of a network as boxes."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from fer_lightning.report.figures.language import text
from fer_lightning.report.figures.style import BLUE, WIDTH, font_size, muted, shorten, styled

_HEIGHT = 0.46  # inches of a box and the arrow to it


@styled
def architecture(layers: Sequence[tuple[str, str, str, str, str]]) -> Figure:
    """Draw a network from its input at the top to its logits at the bottom.

    Args:
        layers: For each box a name, what follows it in the same box, such as ``batch norm, ReLU``, the output
            shape, the parameters and the multiply-adds; the last four may be empty.
    """
    figure = Figure(figsize=(WIDTH, 0.4 + _HEIGHT * len(layers)), layout="constrained")
    axes = figure.add_subplot(xlim=(0, 10), ylim=(len(layers), -0.6))
    axes.set_axis_off()
    columns = (4.6, "left"), (7.6, "right"), (10, "right")
    headers = text("output"), text("parameters"), text("multiply_adds")
    for (x, side), header in zip(columns, headers, strict=True):
        axes.text(x, -0.25, header, ha=side, va="center", color=muted(), fontsize=font_size(8))
    for row, (name, followers, *numbers) in enumerate(layers):
        outline: dict[str, Any] = {
            "boxstyle": "round,pad=0,rounding_size=0.1",
            "fc": (BLUE, 0.08),
            "ec": BLUE,
        }
        axes.add_patch(FancyBboxPatch((0.1, row + 0.06), 4.2, 0.68, **outline))
        middle = row + 0.4
        lines = ((-0.12, name, 9), (0.18, followers, 7.5)) if followers else ((0.0, name, 9),)
        for offset, line, points in lines:
            axes.text(0.25, middle + offset, shorten(line, 36), va="center", fontsize=font_size(points))
        for (x, side), number in zip(columns, numbers, strict=True):
            axes.text(x, middle, number, ha=side, va="center", fontsize=font_size(9))
        if row:
            arrow: dict[str, Any] = {
                "arrowstyle": "-|>",
                "color": BLUE,
                "mutation_scale": 9,
                "shrinkA": 0,
                "shrinkB": 0,
            }
            axes.annotate("", (2.2, row + 0.07), (2.2, row - 0.26), arrowprops=arrow)
    return figure
