"""Draw the figures of a run folder into its ``figures/``."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fer_lightning.core.files import replacing
from fer_lightning.evaluation.explanations import Explanations
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.report import figures
from fer_lightning.report.run_results import path_inside, read_audit, read_run
from fer_lightning.report.tables import confusion_counts

DPI = 150
MAX_ERRORS = 20


def save_figure(figure: Figure, path: Path) -> None:
    """Save a figure; the suffix (``.png``, ``.svg``, ``.pdf``) gives the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(figures.STYLE), replacing(path) as file:
        figure.savefig(file, dpi=DPI, format=path.suffix[1:])


def confident_errors(predictions: Predictions) -> NDArray[np.int64]:
    """Return ``(K,)`` rows of wrong answers, highest probability first, K at most 20.

    Without probabilities they are the first wrong answers.
    """
    wrong = np.flatnonzero((predictions.predicted >= 0) & (predictions.predicted != predictions.labels))
    confidence = predictions.probs[wrong].max(axis=1, initial=0)
    return wrong[np.argsort(-confidence, kind="stable")[:MAX_ERRORS]]


def draw_run(run_dir: Path) -> None:
    """Draw every figure that needs no images, where it is missing or older than the file it shows."""
    run = read_run(run_dir)
    metrics_file = run_dir / "metrics.json"

    def draw(name: str, source: Path, figure: Callable[[], Figure]) -> None:
        path = path_inside(run_dir, f"figures/{name}.png")
        if not path.exists() or path.stat().st_mtime_ns <= source.stat().st_mtime_ns:
            save_figure(figure(), path)

    if run.history.get("epoch"):
        curves = partial(figures.learning_curves, run.history, best_epoch=run.best_epoch)
        draw("learning_curves", run_dir / "metrics.csv", curves)
    counts = (run.info.get("data") or {}).get("counts")
    if counts:
        draw("class_distribution", run_dir / "run.json", partial(figures.class_distribution, counts))
    if not run.split_metrics.get("n"):
        return
    split, metrics = run.split, run.split_metrics
    matrix = partial(figures.confusion_matrix, confusion_counts(metrics), list(metrics["per_class"]))
    draw(f"confusion_{split}", metrics_file, partial(matrix, normalise=True))
    draw(f"confusion_counts_{split}", metrics_file, partial(matrix, normalise=False))
    draw(f"per_class_{split}", metrics_file, partial(figures.per_class_bars, metrics["per_class"]))
    explanations_file = path_inside(run_dir, f"explanations_{split}.npz")
    if explanations_file.exists():
        explained = Explanations.load(explanations_file)
        draw(f"explanations_{split}", explanations_file, partial(figures.class_explanations, explained))
    predictions_file = path_inside(run_dir, f"predictions_{split}.npz")
    if predictions_file.exists():
        predictions = Predictions.load(predictions_file)
        answered = predictions.answered
        if predictions.graded:
            diagram = partial(
                figures.reliability_diagram,
                predictions.probs[answered].max(axis=1),
                (predictions.predicted == predictions.labels)[answered],
                ece=metrics.get("ece"),
            )
            draw(f"reliability_{split}", predictions_file, diagram)


def draw_all(
    run_dir: Path,
    *,
    split: str,
    images: NDArray[np.uint8],
    train_samples: tuple[NDArray[np.uint8], NDArray[np.int64]],
) -> None:
    """Draw every figure of a run, including those that show images.

    Args:
        run_dir: The run folder, with its metrics and predictions.
        split: The split whose misclassified images are shown.
        images: ``(N, S, S)`` uint8 grey levels or ``(N, S, S, 3)`` uint8 colours, in the order of
            ``predictions_<split>.npz``.
        train_samples: ``(M, S, S[, 3])`` uint8 images and their ``(M,)`` labels; the first images of each
            class are shown.
    """
    predictions = Predictions.load(run_dir / f"predictions_{split}.npz")
    assert len(images) == len(predictions), (len(images), len(predictions))
    shown = confident_errors(predictions)
    if len(shown):
        figure = figures.misclassified_images(
            images[shown],
            _names(predictions.labels[shown], predictions.classes),
            _names(predictions.predicted[shown], predictions.classes),
            predictions.probs[shown].max(axis=1).tolist() if predictions.graded else None,
        )
        save_figure(figure, run_dir / "figures" / f"mistakes_{split}.png")
    samples = figures.samples_per_class(*train_samples, predictions.classes)
    save_figure(samples, run_dir / "figures" / "samples.png")
    draw_run(run_dir)


_HEADINGS = {
    "conflict": "pixel-identical, different labels",
    "near": "near-duplicates in different splits",
    "constant": "constant images",
}


def draw_audit(
    run_dir: Path, *, images: NDArray[np.uint8], labels: NDArray[np.int64], classes: Sequence[str]
) -> None:
    """Draw the examples that a run's ``audit.json`` lists, if there are any.

    Args:
        run_dir: The run folder, with its ``audit.json``.
        images: ``(N, S, S)`` uint8 grey levels or ``(N, S, S, 3)`` uint8 colours of the whole data set,
            possibly memory-mapped.
        labels: ``(N,)`` indices into ``classes``.
        classes: ``C`` names.
    """
    groups: dict[str, list[tuple[NDArray[np.uint8], list[str]]]] = {}
    for example in read_audit(run_dir)["examples"]:
        captions = [
            f"{image_id.split('/')[0]}: {classes[label]}\n{Path(image_id).stem[:20]}"
            for image_id, label in zip(example["ids"], labels[example["rows"]], strict=True)
        ]
        groups.setdefault(_HEADINGS[example["kind"]], []).append((images[example["rows"]], captions))
    if groups:
        save_figure(figures.audit_examples(groups), run_dir / "figures" / "audit.png")


def _names(labels: NDArray[np.int64], classes: Sequence[str]) -> list[str]:
    return [classes[label] for label in labels]
