"""The architecture of a network as boxes."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from fer_lightning.report.figures.style import BLUE, font_size, muted, shorten, styled


@styled
def architecture(layers: Sequence[tuple[str, str, str, str]]) -> Figure:
    """Draw a network from its input at the top to its logits at the bottom.

    Args:
        layers: For each box a name, the output shape, the parameters and the multiply-adds.
    """
    figure = Figure(figsize=(4.8, 0.4 + 0.3 * len(layers)), layout="constrained")
    axes = figure.add_subplot(xlim=(0, 10), ylim=(len(layers), -0.9))
    axes.set_axis_off()
    columns = (4.8, "left"), (7.8, "right"), (10, "right")
    for (x, side), header in zip(columns, ("output", "parameters", "multiply-adds"), strict=True):
        axes.text(x, -0.5, header, ha=side, va="center", color=muted(), fontsize=font_size(8))
    for row, (name, *numbers) in enumerate(layers):
        box = FancyBboxPatch(
            (0.1, row + 0.16), 4.4, 0.68, boxstyle="round,pad=0,rounding_size=0.12", fc=(BLUE, 0.08), ec=BLUE
        )
        axes.add_patch(box)
        axes.text(0.25, row + 0.5, shorten(name, 36), va="center", fontsize=font_size(7.5))
        for (x, side), number in zip(columns, numbers, strict=True):
            axes.text(x, row + 0.5, number, ha=side, va="center", fontsize=font_size(8))
        if row:
            line = {"arrowstyle": "-", "color": BLUE}
            axes.annotate("", (2.3, row + 0.17), (2.3, row - 0.17), arrowprops=line)
    return figure
