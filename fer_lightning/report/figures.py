"""Figures for a paper and a page: pure functions from arrays to a matplotlib ``Figure``.

Nothing here reads, saves or touches pyplot. Colours are Okabe and Ito's (https://jfly.uni-koeln.de/color/),
which stay apart for colour-blind readers; where two meet, a marker, a line style or a position tells them
apart in grey too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

BLUE, ORANGE, GREEN, INK, MUTED = "#0072B2", "#E69F00", "#009E73", "#222222", "#8A8A8A"
WIDTH = 5.5  # inches: the text width of a one-column paper

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
    "pdf.fonttype": 42,  # text stays text: journals refuse Type 3 fonts
    "svg.fonttype": "none",
    "savefig.bbox": "tight",  # no name is so long that it is cut
    "savefig.pad_inches": 0.04,
}

_styled = mpl.rc_context(STYLE)


def _short(name: str, length: int = 22) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


@_styled
def confusion_matrix(counts: NDArray[np.int64], classes: Sequence[str], *, normalise: bool) -> Figure:
    """Draw who was taken for whom.

    Args:
        counts: ``(C, C)`` images, rows true, columns predicted, or ``(C, C + 1)``: the last column holds
            those without an answer, and is left out where it is empty.
        classes: ``C`` names.
        normalise: Show each row as percentages of its true class instead of counts.
    """
    num_classes = len(classes)
    if not counts[:, num_classes:].any():
        counts = counts[:, :num_classes]
    sizes = counts.sum(axis=1, keepdims=True)
    shares = 100 * counts / np.maximum(sizes, 1)
    shown = shares if normalise else counts
    top = 100 if normalise else max(int(counts.max(initial=0)), 1)
    num_columns = counts.shape[1]
    side = max(3.4, 0.52 * num_columns)
    figure = Figure(figsize=(side + 1.4, side + 0.9), layout="constrained")
    axes = figure.add_subplot()
    axes.pcolormesh(shown, cmap="Blues", vmin=0, vmax=top, edgecolors="white", linewidth=0.5)
    for row, column in np.ndindex(num_classes, num_columns):
        value = shown[row, column]
        axes.text(
            column + 0.5,
            row + 0.5,
            "—" if normalise and not sizes[row] else f"{value:.0f}" if normalise else f"{value:,d}",
            ha="center",
            va="center",
            color="white" if value > 0.55 * top else INK,
        )
    centres = np.arange(num_columns) + 0.5
    names = [_short(name) for name in classes]
    answers = [*names, "no answer"][:num_columns]
    axes.set_xticks(centres, answers, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(
        centres[:num_classes],
        [f"{name} ({size:,d})" for name, size in zip(names, sizes[:, 0], strict=True)]
        if normalise
        else names,
    )
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true (images)" if normalise else "true")
    axes.set_title("% of each true class" if normalise else "images")
    return figure


def _bars_by_row(rows: Sequence[str], series: Mapping[str, Sequence[float]], xlabel: str) -> Figure:
    """Draw horizontal bars, one group a row, so that names of any length stay readable."""
    figure = Figure(figsize=(WIDTH, 0.9 + (0.12 + 0.12 * len(series)) * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    _put_bars(axes, rows, series)
    axes.set_xlabel(xlabel)
    figure.legend(loc="outside upper center", ncols=4)
    return figure


def _put_bars(axes: Axes, rows: Sequence[str], series: Mapping[str, Sequence[float]]) -> None:
    height = 0.8 / max(len(series), 1)
    positions = np.arange(len(rows))
    for index, (name, values) in enumerate(series.items()):
        offset = (index - (len(series) - 1) / 2) * height
        color = (BLUE, ORANGE, GREEN, MUTED)[index % 4]
        axes.barh(positions + offset, values, height=0.88 * height, color=color, label=name)
    axes.set_yticks(positions, [_short(row) for row in rows])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


@_styled
def per_class_bars(per_class: Mapping[str, Mapping[str, float | None]]) -> Figure:
    """Draw precision, recall and F1 of each class.

    Args:
        per_class: For each class its ``precision``, ``recall`` and ``f1`` in [0, 1], None where undefined
            (no bar), and its number of images ``n``.
    """
    rows = [f"{_short(name)} ({entry['n']:,})" for name, entry in per_class.items()]
    figure = _bars_by_row(rows, _scores(per_class), "% (images of the class in brackets)")
    figure.axes[0].set_xlim(0, 100)
    return figure


def _scores(per_class: Mapping[str, Mapping[str, float | None]]) -> dict[str, list[float]]:
    keys = {"precision": "precision", "recall": "recall", "F1": "f1"}
    return {
        name: [np.nan if (value := entry[key]) is None else 100 * value for entry in per_class.values()]
        for name, key in keys.items()
    }


@_styled
def per_class_panels(models: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> Figure:
    """Draw precision, recall and F1 of each class, a panel a model.

    Args:
        models: By title, at least one, what ``per_class_bars`` takes; all have the same classes.
    """
    figure, panels = _panels(len(models), height=0.7 + 0.42 * len(next(iter(models.values()))))
    for axes, (title, per_class) in zip(panels, models.items(), strict=True):
        _put_bars(axes, list(per_class), _scores(per_class))
        axes.set(xlim=(0, 100), xlabel="%")
        axes.set_title(_short(title, 40))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


@_styled
def confusion_panels(models: Mapping[str, NDArray[np.int64]], classes: Sequence[str]) -> Figure:
    """Draw who was taken for whom, a panel a model: images, shaded by their share of the true class.

    Args:
        models: By title, at least one, ``(C, C)`` images, rows true, columns predicted.
        classes: ``C`` names.
    """
    figure, panels = _panels(len(models), height=1 + 0.4 * len(classes))
    centres = np.arange(len(classes)) + 0.5
    names = [_short(name, 12) for name in classes]
    for axes, (title, counts) in zip(panels, models.items(), strict=True):
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=0.5)
        for row, column in np.ndindex(counts.shape):
            color = "white" if shares[row, column] > 0.55 else INK
            number = axes.text(
                column + 0.5, row + 0.5, f"{counts[row, column]:,d}", color=color, fontsize=7.5
            )
            number.set(ha="center", va="center")
        axes.set_xticks(centres, names, rotation=35, ha="right", rotation_mode="anchor")
        axes.set_yticks(centres, names)
        axes.set(aspect="equal", xlabel="predicted", ylabel="true")
        axes.set_title(_short(title, 40))
        axes.invert_yaxis()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


def _panels(count: int, *, height: float) -> tuple[Figure, list[Axes]]:
    """Make panels of that height in inches, two a row, wider than one column of text."""
    columns = min(count, 2)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.2 * columns, height * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, place + 1) for place in range(count)]


@_styled
def architecture(layers: Sequence[tuple[str, str, str, str]]) -> Figure:
    """Draw a network from the image down to its logits.

    Args:
        layers: For each box its name, the shape of its output, its parameters and its multiply-adds.
    """
    figure = Figure(figsize=(4.8, 0.4 + 0.3 * len(layers)), layout="constrained")
    axes = figure.add_subplot(xlim=(0, 10), ylim=(len(layers), -0.9))
    axes.set_axis_off()
    columns = (4.8, "left"), (7.8, "right"), (10, "right")
    for (x, side), header in zip(columns, ("output", "parameters", "multiply-adds"), strict=True):
        axes.text(x, -0.5, header, ha=side, va="center", color=MUTED, fontsize=8)
    for row, (name, *numbers) in enumerate(layers):
        box = FancyBboxPatch(
            (0.1, row + 0.16), 4.4, 0.68, boxstyle="round,pad=0,rounding_size=0.12", fc="#EAF3F9", ec=BLUE
        )
        axes.add_patch(box)
        axes.text(0.25, row + 0.5, _short(name, 36), va="center", fontsize=7.5)
        for (x, side), number in zip(columns, numbers, strict=True):
            axes.text(x, row + 0.5, number, ha=side, va="center", fontsize=8)
        if row:
            axes.annotate(
                "", (2.3, row + 0.17), (2.3, row - 0.17), arrowprops={"arrowstyle": "-", "color": BLUE}
            )
    return figure


@_styled
def class_distribution(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Draw how each split divides among the classes, as shares, so that splits of any size compare.

    Args:
        counts: For each split the number of images of each class.
    """
    classes = list(dict.fromkeys(name for split in counts.values() for name in split))
    totals = {split: sum(by_class.values()) for split, by_class in counts.items()}
    series = {
        f"{split} ({totals[split]:,})": [
            100 * by_class.get(name, 0) / max(totals[split], 1) for name in classes
        ]
        for split, by_class in counts.items()
    }
    figure = _bars_by_row(classes, series, "% of the split's images (number of images beside the bar)")
    figure.axes[0].margins(x=0.08)  # room for the labels
    for container, by_class in zip(figure.axes[0].containers, counts.values(), strict=True):
        labels = [f"{by_class.get(name, 0):,}" for name in classes]
        figure.axes[0].bar_label(container, labels, padding=2, fontsize=6.5)  # type: ignore[arg-type]
    return figure


@_styled
def learning_curves(history: Mapping[str, Sequence[float]], *, best_epoch: int | None) -> Figure:
    """Draw loss and accuracy over epochs, training beside validation.

    Args:
        history: Columns of ``metrics.csv`` by name, NaN where a cell was empty; needs ``epoch``.
        best_epoch: The epoch that was kept, counted from 0, or None.
    """
    figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
    epochs = np.asarray(history["epoch"])
    for position, (key, label, scale) in enumerate(
        (("loss", "loss", 1), ("acc", "accuracy, %", 100)), start=1
    ):
        axes = figure.add_subplot(1, 2, position)
        for split, name, color, line in (
            ("train", "training", BLUE, "--"),
            ("val", "validation", ORANGE, "-"),
        ):
            values = scale * np.asarray(history.get(f"{split}/{key}", np.full(len(epochs), np.nan)))
            drawn = np.isfinite(values)
            if drawn.any():
                marker = "o" if len(epochs) < 12 else ""  # a single epoch makes no line
                axes.plot(epochs[drawn], values[drawn], line + marker, color=color, label=name, markersize=4)
        if best_epoch is not None:
            axes.axvline(
                best_epoch, color=INK, linewidth=0.9, linestyle=":", label=f"kept: epoch {best_epoch}"
            )
        axes.set_xlabel("epoch, counted from 0")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid()
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


@_styled
def reliability_diagram(
    confidence: NDArray[np.float32], correct: NDArray[np.bool_], *, ece: float | None, num_bins: int = 15
) -> Figure:
    """Draw whether a confidence of 80 % is right 80 % of the time (Guo et al. 2017).

    Args:
        confidence: ``(N,)`` highest probability of each answered image, in [0, 1].
        correct: ``(N,)`` whether that answer was right.
        ece: Expected calibration error in [0, 1] to print, or None.
        num_bins: Equal bins of confidence; 15 as in torchmetrics' calibration error.
    """
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    accuracy = np.bincount(bins, weights=correct, minlength=num_bins) / np.maximum(counts, 1)
    centres = 100 * (np.arange(num_bins) + 0.5) / num_bins
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bars = {"width": 92 / num_bins, "edgecolor": "white", "linewidth": 0.3}
    upper.bar(centres[counts > 0], 100 * accuracy[counts > 0], color=BLUE, label="measured", **bars)
    upper.plot((0, 100), (0, 100), color=INK, linestyle="--", linewidth=1, label="perfectly calibrated")
    lower.bar(centres, counts, color=MUTED, **bars)
    upper.set(ylabel="accuracy, %", xlim=(0, 100), ylim=(0, 100))
    lower.set(ylabel="images", xlabel="confidence, %")
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    error = "" if ece is None else f"calibration error {100 * ece:.1f} points, "
    upper.set_title(f"{error}{len(confidence):,} images")
    figure.align_ylabels()
    for axes in (upper, lower):
        axes.grid(axis="y")
    figure.legend(*upper.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


@_styled
def mistakes(
    images: NDArray[np.uint8],
    true: Sequence[str],
    predicted: Sequence[str],
    confidence: Sequence[float] | None,
) -> Figure:
    """Show faces that were named wrongly, in the order given.

    Args:
        images: ``(K, S, S)`` uint8 grey levels, K at least 1.
        true: ``K`` names of the right classes.
        predicted: ``K`` names of the classes answered.
        confidence: ``K`` probabilities of the answers, in [0, 1]; None where they carry none.
    """
    columns, height = 5, 1.36  # in faces: a row is a face and two lines of text
    rows = -(-len(images) // columns)
    figure, axes = _face_canvas(columns, height * rows, size=WIDTH / columns)
    title = "true class → answer" + (" and its probability" if confidence else "")
    axes.set_title(title, fontsize=8, color=MUTED, pad=2)
    # 100 is certainty
    endings = [f" {int(100 * probability)} %" for probability in confidence or ()] or [""] * len(images)
    for place, (face, truth, answer, ending) in enumerate(zip(images, true, predicted, endings, strict=True)):
        left, top = place % columns, height * (place // columns) + height - 1
        _put_face(axes, face, left, top)
        words = f"{_short(truth, 16)}\n→ {_short(answer, 10)}{ending}"
        axes.text(left + 0.03, top - 0.02, words, va="bottom", fontsize=7)
    return figure


def _face_canvas(columns: float, rows: float, *, size: float) -> tuple[Figure, Axes]:
    """Make one empty canvas measured in faces: a hundred small axes would take seconds to lay out."""
    figure = Figure(figsize=(WIDTH, size * rows + 0.1), layout="constrained")
    axes = figure.add_subplot(xlim=(0, columns), ylim=(rows, 0), aspect="equal", xticks=[])
    axes.yaxis.set_visible(False)
    axes.spines[:].set_visible(False)
    return figure, axes


def _put_face(axes: Axes, face: NDArray[np.uint8], left: float, top: float) -> None:
    limits = axes.get_xlim(), axes.get_ylim()  # imshow moves them
    extent = (left + 0.03, left + 0.97, top + 0.97, top + 0.03)
    axes.imshow(face, cmap="gray", vmin=0, vmax=255, extent=extent, interpolation="nearest")
    axes.set(xlim=limits[0], ylim=limits[1])


@_styled
def samples_per_class(
    images: NDArray[np.uint8], labels: NDArray[np.int64], classes: Sequence[str], *, num_each: int = 8
) -> Figure:
    """Show the first images of each class, a row a class.

    Args:
        images: ``(N, S, S)`` uint8 grey levels, possibly memory-mapped: only those shown are read.
        labels: ``(N,)`` positions in ``classes``.
        classes: Names.
        num_each: Columns; a class with fewer images leaves its row's end empty.
    """
    figure, axes = _face_canvas(num_each, len(classes), size=(WIDTH - 0.7) / num_each)
    for label, name in enumerate(classes):
        axes.text(-0.1, label + 0.5, _short(name), ha="right", va="center")
        for column, index in enumerate(np.flatnonzero(labels == label)[:num_each]):
            _put_face(axes, images[index], column, label)
    return figure


@_styled
def audit_examples(groups: Mapping[str, Sequence[tuple[NDArray[np.uint8], Sequence[str]]]]) -> Figure:
    """Show what is wrong with a data set: headed groups of pairs and single images.

    Args:
        groups: By heading, at least one: ``(K, S, S)`` uint8 grey levels that belong together, K 1 or 2, and
            ``K`` captions of one line or two.
    """
    width, gap, row, heading = 6.5, 0.25, 1.36, 0.36  # in faces: three pairs a row, two lines below a face
    titles: list[tuple[str, float]] = []
    faces: list[tuple[NDArray[np.uint8], str, float, float]] = []
    top = -row
    for title, examples in groups.items():
        top += row + heading
        titles.append((title, top))
        left = 0.0
        for images, captions in examples:
            if left + len(images) > width:
                left, top = 0.0, top + row
            for image, caption in zip(images, captions, strict=True):
                faces.append((image, caption, left, top))
                left += 1
            left += gap
    figure, axes = _face_canvas(width, top + row, size=(WIDTH + 1) / width)
    for title, top in titles:
        axes.text(0.03, top - 0.06, title, va="bottom", fontsize=8, fontweight="bold")
    for image, caption, left, top in faces:
        _put_face(axes, image, left, top)
        axes.text(left + 0.03, top + 1, caption, va="top", fontsize=5)
    return figure


@_styled
def accuracy_dots(
    groups: Mapping[str, Sequence[tuple[float, float, float]]], *, xlabel: str = "accuracy, %"
) -> Figure:
    """Compare runs: a row a configuration, a dot a run, the best row on top.

    Args:
        groups: For each row its runs, at least one, as (accuracy, low, high) in [0, 1]; the line through a
            dot goes from low to high.
        xlabel: What was measured, on which split.
    """
    rows = sorted(groups, key=lambda name: np.mean([run[0] for run in groups[name]]), reverse=True)
    figure = Figure(figsize=(WIDTH, 0.75 + 0.36 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for position, name in enumerate(rows):
        runs = 100 * np.array(groups[name])
        spread = position + (np.arange(len(runs)) - (len(runs) - 1) / 2) * min(0.14, 0.7 / len(runs))
        if len(runs) > 1:
            axes.plot(runs[:, 0].mean(), position, "|", color=INK, markersize=20, markeredgewidth=1.4)
        axes.hlines(spread, runs[:, 1], runs[:, 2], color=BLUE, linewidth=1, alpha=0.55)
        axes.plot(runs[:, 0], spread, "o", color=BLUE, markersize=5)
    axes.set_yticks(range(len(rows)), [_short(name, 40) for name in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(xlabel)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid()
    return figure
