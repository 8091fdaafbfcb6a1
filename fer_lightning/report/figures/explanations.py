"""What a network looks at: heat maps over faces, one row per class."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fer_lightning.evaluation.explanations import Explanations
from fer_lightning.report.figures.images import draw_image, image_canvas
from fer_lightning.report.figures.language import class_text, text
from fer_lightning.report.figures.style import WIDTH, font_size, muted, shorten, styled

_HEAT = LinearSegmentedColormap.from_list(
    "heat", ["#FFDC50", "#FF8200", "#C80028"]
)  # as of predict --explain
_MOST = 0.75  # opacity of the highest value
_ROW_HEIGHT = 1.28  # in units of one image: an image and a line of text
_MEAN, _RIGHT, _WRONG, _COLUMNS = 0.0, 1.35, 3.7, 5.7  # left edges of the groups of images


@styled
def class_explanations(found: Explanations) -> Figure:
    """Show for each class the mean map, and the most certain right and wrong answers with their maps."""
    figure, axes = image_canvas(_COLUMNS, _ROW_HEIGHT * len(found.classes), size=(WIDTH - 0.7) / _COLUMNS)
    titles = (
        (_MEAN, text("mean")),
        (_RIGHT, text("most_certain_right")),
        (_WRONG, text("most_certain_wrong")),
    )
    for left, title in titles:
        axes.text(left + 0.03, -0.05, title, va="bottom", fontsize=font_size(7), color=muted())
    for row, name in enumerate(found.classes):
        top = _ROW_HEIGHT * row
        axes.text(-0.1, top + 0.5, shorten(class_text(name)), ha="right", va="center")
        if found.counts[row]:
            _draw_heat(axes, found.mean_faces[row], found.mean_maps[row], _MEAN, top)
            _caption(axes, f"n = {found.counts[row]}", _MEAN, top)
        for index in np.flatnonzero(found.labels == row):
            left = _RIGHT if found.right[index] else _WRONG
            draw_image(axes, found.faces[index], left, top)
            _draw_heat(axes, found.faces[index], found.maps[index], left + 1, top)
            answer = f"{shorten(class_text(found.answers[index]), 14)} {int(100 * found.probs[index])} %"
            _caption(axes, answer if found.right[index] else f"\u2192 {answer}", left, top)
    return figure


def _draw_heat(axes: Axes, face: NDArray[np.uint8], heat: NDArray[np.uint8], left: float, top: float) -> None:
    """Draw a grey face with its heat map over it, from transparent to dark red."""
    values = heat[..., None] / 255
    opacity = _MOST * values
    grey = (face if face.ndim == 2 else face.mean(axis=-1))[..., None]
    mixed = grey * (1 - opacity) + 255 * _HEAT(values[..., 0])[..., :3] * opacity
    draw_image(axes, mixed.round().astype(np.uint8), left, top)


def _caption(axes: Axes, caption: str, left: float, top: float) -> None:
    axes.text(left + 0.03, top + 1.0, caption, va="top", fontsize=font_size(7))
