"""Figures for pages and papers: pure functions from arrays to a matplotlib ``Figure``.

They read no files, save nothing and do not use pyplot. Where two colours meet, a marker, a line style or a
position distinguishes them in grey too.
"""

from fer_lightning.report.figures.classes import class_distribution, per_class_bars, per_class_panels
from fer_lightning.report.figures.comparison import accuracy_dots, class_dots, overlaid_curves
from fer_lightning.report.figures.confusion import confusion_matrix, confusion_panels
from fer_lightning.report.figures.curves import learning_curves, reliability_diagram
from fer_lightning.report.figures.explanations import class_explanations
from fer_lightning.report.figures.images import audit_examples, misclassified_images, samples_per_class
from fer_lightning.report.figures.language import LANGUAGES, change_language
from fer_lightning.report.figures.network import architecture
from fer_lightning.report.figures.published import AccuracyRow, published_accuracy
from fer_lightning.report.figures.ranking import ranking_curves
from fer_lightning.report.figures.search import search_history
from fer_lightning.report.figures.settings import parallel_coordinates, setting_scatter
from fer_lightning.report.figures.style import MAX_SERIES, STYLE, change_style, style_context

__all__ = [
    "LANGUAGES",
    "MAX_SERIES",
    "STYLE",
    "AccuracyRow",
    "accuracy_dots",
    "architecture",
    "audit_examples",
    "change_language",
    "change_style",
    "class_distribution",
    "class_dots",
    "class_explanations",
    "confusion_matrix",
    "confusion_panels",
    "learning_curves",
    "misclassified_images",
    "overlaid_curves",
    "parallel_coordinates",
    "per_class_bars",
    "per_class_panels",
    "published_accuracy",
    "ranking_curves",
    "reliability_diagram",
    "samples_per_class",
    "search_history",
    "setting_scatter",
    "style_context",
]
