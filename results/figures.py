"""The figures of README and docs that show results, drawn from the records."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from fer_lightning.evaluation.stats import spread, wilson_interval
from fer_lightning.report.figures.confusion import confusion_matrix
from fer_lightning.report.figures.published import AccuracyRow, published_accuracy
from fer_lightning.report.figures.style import style_context
from fer_lightning.report.paper import reference
from fer_lightning.report.run_results import read_run
from results.predictors import NAME, accuracy_and_time
from results.records import HERE
from results.tables import rows

# The network of the package; its run's results, before the weights were rounded to float16.
PACKAGE_NETWORK = "improved_resnet_official_seed0"


def confusion(where: Path = HERE) -> Figure:
    """Draw the confusion matrix of the network of the package on PrivateTest."""
    test = read_run(where / PACKAGE_NETWORK).metrics["test"]
    counts, classes = np.array(test["confusion"]), list(test["per_class"])
    return confusion_matrix(counts, classes, normalise=True, title="ResNet-15 on PrivateTest")


def accuracy(where: Path = HERE) -> Figure:
    """Draw the accuracies of README's first table and those of the paper."""
    shown = {}
    for row in rows("paper", where):
        paper = reference.TABLE_1[row.family]
        interval = wilson_interval(spread(row.acc.values).mean, row.acc.n)
        shown[row.model] = AccuracyRow(
            row.acc.values, interval, paper, wilson_interval(paper, reference.NUM_TEST)
        )
    return published_accuracy(shown)


FIGURES: dict[str, Callable[[Path], Figure]] = {
    "accuracy": accuracy,
    "confusion": confusion,
    NAME: accuracy_and_time,
}


def svg(name: str, where: Path = HERE) -> bytes:
    """Return a figure as SVG on white, the same bytes each time."""
    file = BytesIO()
    with style_context(), mpl.rc_context({"svg.hashsalt": name}):
        FIGURES[name](where).savefig(
            file, format="svg", facecolor="white", metadata={"Date": None, "Creator": None}
        )
    return file.getvalue()
