"""ROC and precision-recall curves, each class against the rest."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fer_lightning.evaluation.ranking import ranking_curves as compute_curves
from fer_lightning.report.figures.language import class_text, number, text
from fer_lightning.report.figures.style import font_size, ink, muted, shorten, styled

_MAX_CURVES = 10  # of more classes only the mean is drawn
_GRID = np.linspace(0, 1, 101)


@styled
def ranking_curves(probs: NDArray[np.floating], labels: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Draw ROC and precision-recall curves of each class against the rest, and their mean.

    Args:
        probs: ``(N, C)`` probabilities, without NaN.
        labels: ``(N,)`` indices into ``classes``. A class without images has no curves.
        classes: ``C`` names.
    """
    found = {
        name: curves
        for index, name in enumerate(classes)
        if (curves := compute_curves(probs[:, index], labels == index))
    }
    figure = Figure(figsize=(6.4, 4.1), layout="constrained")
    roc, pr = figure.subplots(1, 2)
    listed = found if len(found) <= _MAX_CURVES else {}
    for index, (name, curves) in enumerate(listed.items()):
        look = {"color": f"C{index}", "linestyle": ("-", "--")[index // 6 % 2], "linewidth": 1}
        label = shorten(class_text(name), 14)
        rates = curves.false_positive_rate, curves.true_positive_rate
        roc.plot(*rates, label=f"{label} ({number(curves.auroc, '.3f')})", **look)
        label += f" ({number(curves.average_precision, '.3f')})"
        pr.plot(curves.true_positive_rate, curves.precision, label=label, **look)
    if found:
        every = found.values()
        mean = [np.interp(_GRID, each.false_positive_rate, each.true_positive_rate) for each in every]
        _draw_mean(roc, np.mean(mean, axis=0), float(np.mean([each.auroc for each in every])))
        mean = [np.interp(_GRID, each.true_positive_rate, each.precision) for each in every]
        _draw_mean(pr, np.mean(mean, axis=0), float(np.mean([each.average_precision for each in every])))
    chance = text("chance", area=number(0.5, ".3f"))
    roc.plot((0, 1), (0, 1), color=muted(), linewidth=0.8, linestyle=":", label=chance)
    roc.set(xlabel=text("false_positive_rate"), ylabel=text("true_positive_rate"), title=text("roc"))
    pr.set(xlabel=text("recall"), ylabel=text("precision"), title=text("precision_recall"))
    for axes in (roc, pr):
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.grid()
        axes.legend(
            loc="upper left", bbox_to_anchor=(0, -0.25), ncols=2, fontsize=font_size(7), borderaxespad=0
        )
    return figure


def _draw_mean(axes: Axes, values: NDArray[np.float64], area: float) -> None:
    label = text("macro", area=number(area, ".3f"))
    axes.plot(_GRID, values, color=ink(), linewidth=1.8, label=label)
