"""Images of the data set: misclassified ones, samples of each class, examples of an audit."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fer_lightning.report.figures.language import class_text, text
from fer_lightning.report.figures.style import MAX_LISTED_CLASSES, WIDTH, font_size, muted, shorten, styled

# Positions on a canvas are in units of one image. A row is one image and two lines of text.
_ROW_HEIGHT = 1.36


@styled
def misclassified_images(
    images: NDArray[np.uint8],
    true: Sequence[str],
    predicted: Sequence[str],
    confidence: Sequence[float] | None,
) -> Figure:
    """Show misclassified images in the order given.

    Args:
        images: ``(K, S, S)`` uint8 grey levels or ``(K, S, S, 3)`` uint8 colours, K at least 1.
        true: ``K`` names of the true classes.
        predicted: ``K`` names of the predicted classes.
        confidence: ``K`` probabilities of the predictions, in [0, 1]; None if they have none.
    """
    columns = 5
    rows = -(-len(images) // columns)
    figure, axes = image_canvas(columns, _ROW_HEIGHT * rows, size=WIDTH / columns)
    title = text("true_and_probability" if confidence else "true_and_predicted")
    axes.set_title(title, fontsize=font_size(8), color=muted(), pad=2)
    if confidence:  # rounded down, so that 100 % means certainty
        endings = [f" {int(100 * probability)} %" for probability in confidence]
    else:
        endings = [""] * len(images)
    for index, (image, truth, answer, ending) in enumerate(
        zip(images, true, predicted, endings, strict=True)
    ):
        left, top = index % columns, _ROW_HEIGHT * (index // columns) + _ROW_HEIGHT - 1
        draw_image(axes, image, left, top)
        label = f"{shorten(class_text(truth), 16)}\n→ {shorten(class_text(answer), 10)}{ending}"
        axes.text(left + 0.03, top - 0.02, label, va="bottom", fontsize=font_size(7))
    return figure


@styled
def samples_per_class(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    *,
    num_each: int = 8,
    seed: int | None = None,
) -> Figure:
    """Show images of each class, one row per class, of the first 30 classes.

    Args:
        images: ``(N, S, S)`` uint8 grey levels or ``(N, S, S, 3)`` uint8 colours, possibly memory-mapped:
            only those shown are read.
        labels: ``(N,)`` indices into ``classes``.
        classes: ``C`` names.
        num_each: Number of columns; the row of a class with fewer images is shorter.
        seed: Draw the images at random; None shows the first ones.
    """
    shown = classes[:MAX_LISTED_CLASSES]
    figure, axes = image_canvas(num_each, len(shown), size=(WIDTH - 0.7) / num_each)
    if len(shown) < len(classes):
        title = text("first_classes", shown=len(shown), all=len(classes))
        axes.set_title(title, fontsize=font_size(8), color=muted(), pad=2)
    for label, name in enumerate(shown):
        axes.text(-0.1, label + 0.5, shorten(class_text(name)), ha="right", va="center")
        rows = np.flatnonzero(labels == label)
        if seed is not None:
            rows = np.random.default_rng((seed, label)).permutation(rows)
        for column, index in enumerate(rows[:num_each]):
            draw_image(axes, images[index], column, label)
    return figure


@styled
def audit_examples(groups: Mapping[str, Sequence[tuple[NDArray[np.uint8], Sequence[str]]]]) -> Figure:
    """Show examples of problems in a data set: groups of pairs and single images, each with a heading.

    Args:
        groups: At least one list of examples by heading. An example is ``(K, S, S)`` uint8 grey levels or
            ``(K, S, S, 3)`` uint8 colours that belong together, K 1 or 2, and ``K`` captions of one or two
            lines.
    """
    width, gap, heading_height = 6.5, 0.25, 0.36  # three pairs per row
    headings: list[tuple[str, float]] = []
    placed: list[tuple[NDArray[np.uint8], str, float, float]] = []
    top = -_ROW_HEIGHT
    for heading, examples in groups.items():
        top += _ROW_HEIGHT + heading_height
        headings.append((heading, top))
        left = 0.0
        for images, captions in examples:
            if left + len(images) > width:
                left, top = 0.0, top + _ROW_HEIGHT
            for image, caption in zip(images, captions, strict=True):
                placed.append((image, caption, left, top))
                left += 1
            left += gap
    figure, axes = image_canvas(width, top + _ROW_HEIGHT, size=(WIDTH + 1) / width)
    for heading, top in headings:
        axes.text(0.03, top - 0.06, heading, va="bottom", fontsize=font_size(8), fontweight="bold")
    for image, caption, left, top in placed:
        draw_image(axes, image, left, top)
        axes.text(left + 0.03, top + 1, caption, va="top", fontsize=font_size(5))
    return figure


def image_canvas(columns: float, rows: float, *, size: float) -> tuple[Figure, Axes]:
    """Make one empty canvas in units of images: a hundred small axes would take seconds to lay out."""
    figure = Figure(figsize=(WIDTH, size * rows + 0.1), layout="constrained")
    axes = figure.add_subplot(xlim=(0, columns), ylim=(rows, 0), aspect="equal", xticks=[])
    axes.yaxis.set_visible(False)
    axes.spines[:].set_visible(False)
    return figure, axes


def draw_image(axes: Axes, image: NDArray[np.uint8], left: float, top: float) -> None:
    """Draw ``(S, S)`` grey levels, or ``(S, S, 3)`` colours, for which imshow ignores the colour map."""
    limits = axes.get_xlim(), axes.get_ylim()  # imshow changes them
    extent = (left + 0.03, left + 0.97, top + 0.97, top + 0.03)
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=extent, interpolation="none")
    axes.set(xlim=limits[0], ylim=limits[1])
