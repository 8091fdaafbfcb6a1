"""Learning curves and the reliability diagram of one run."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fer_lightning.report.figures.language import number, text
from fer_lightning.report.figures.style import BLUE, ORANGE, WIDTH, ink, muted, styled


@styled
def learning_curves(history: Mapping[str, Sequence[float]], *, best_epoch: int | None) -> Figure:
    """Draw loss and accuracy over epochs, of training and of validation; its axis counts them from 1.

    Args:
        history: Columns of ``metrics.csv`` by name, NaN where a cell was empty; needs ``epoch``.
        best_epoch: The epoch of the tested checkpoint, counted from 0, or None.
    """
    figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
    for position, (key, label, scale) in enumerate(
        (("loss", text("loss"), 1), ("acc", text("accuracy"), 100)), 1
    ):
        axes = figure.add_subplot(1, 2, position)
        _draw_curves(axes, history, key, scale)
        if best_epoch is not None:
            name = text("best_epoch", epoch=best_epoch + 1)
            axes.axvline(best_epoch + 1, color=ink(), linewidth=0.9, linestyle=":", label=name)
        axes.set_xlabel(text("epoch"))
        axes.set_xlim(min(history["epoch"]) + 0.5, max(history["epoch"]) + 1.5)
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid()
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _draw_curves(axes: Axes, history: Mapping[str, Sequence[float]], key: str, scale: float) -> None:
    epochs = np.asarray(history["epoch"]) + 1
    marker = "o" if len(epochs) < 12 else ""  # a single epoch makes no line
    for split, name, color, line in (
        ("train", text("training"), BLUE, "--"),
        ("val", text("validation"), ORANGE, "-"),
    ):
        values = scale * np.asarray(history.get(f"{split}/{key}", np.full(len(epochs), np.nan)))
        measured = np.isfinite(values)
        if measured.any():
            axes.plot(
                epochs[measured], values[measured], line + marker, color=color, label=name, markersize=4
            )


@styled
def reliability_diagram(
    confidence: NDArray[np.float32], correct: NDArray[np.bool_], *, ece: float | None, num_bins: int = 15
) -> Figure:
    """Draw accuracy against confidence (Guo et al. 2017), and the number of images at each confidence.

    Args:
        confidence: ``(N,)`` highest probability of each answered image, in [0, 1].
        correct: ``(N,)`` whether the answer was correct.
        ece: Expected calibration error in [0, 1] to print, or None.
        num_bins: Number of bins of equal width; 15 as in torchmetrics' calibration error.
    """
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    accuracy = np.bincount(bins, weights=correct, minlength=num_bins) / np.maximum(counts, 1)
    centres = 100 * (np.arange(num_bins) + 0.5) / num_bins
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bars = {"width": 92 / num_bins}
    upper.bar(centres[counts > 0], 100 * accuracy[counts > 0], color=BLUE, label=text("measured"), **bars)
    diagonal = {"linestyle": "--", "linewidth": 1, "label": text("perfectly_calibrated")}
    upper.plot((0, 100), (0, 100), color=ink(), **diagonal)
    lower.bar(centres, counts, color=muted(), **bars)
    upper.set(ylabel=text("accuracy"), xlim=(0, 100), ylim=(0, 100))
    lower.set(ylabel=text("images"), xlabel=text("confidence"))
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    images = number(len(confidence))
    if ece is None:
        upper.set_title(text("num_images", images=images))
    else:
        upper.set_title(text("calibration_error", error=number(100 * ece, ".1f"), images=images))
    figure.align_ylabels()
    for axes in (upper, lower):
        axes.grid(axis="y")
    figure.legend(*upper.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure
