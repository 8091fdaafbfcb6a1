"""From a run folder to the pictures in its ``figures/``."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fer_lightning.core.files import replacing
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.report import figures
from fer_lightning.report.audit import read_audit
from fer_lightning.report.runs import read_run, within
from fer_lightning.report.tables import confusion_counts

DPI = 150
NUM_MISTAKES = 20


def save(figure: Figure, path: Path) -> None:
    """Write a figure of ``figures``; the name's ending (png, svg, pdf) chooses the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(figures.STYLE), replacing(path) as file:
        figure.savefig(file, dpi=DPI, format=path.suffix[1:])


def confident_mistakes(predictions: Predictions) -> NDArray[np.int64]:
    """Find the wrong answers given with the highest probability, highest first, at most 20.

    Where no answer carries a confidence, they are the first ones.
    """
    wrong = np.flatnonzero((predictions.predicted >= 0) & (predictions.predicted != predictions.labels))
    confidence = predictions.probs[wrong].max(axis=1, initial=0)
    return wrong[np.argsort(-confidence, kind="stable")[:NUM_MISTAKES]]


def draw_run(run_dir: Path) -> None:
    """Draw what the files of a run folder allow, where the picture is missing or older than what it shows.

    Raises:
        FERError: If the folder is no run folder, or a file in it is damaged.
    """
    run = read_run(run_dir)
    metrics_file, history_file = run_dir / "metrics.json", run_dir / "metrics.csv"

    def draw(name: str, source: Path, figure: Callable[[], Figure]) -> None:
        path = within(run_dir, f"figures/{name}.png")
        if not path.exists() or path.stat().st_mtime_ns <= source.stat().st_mtime_ns:
            save(figure(), path)

    if run.history.get("epoch"):
        curves = partial(figures.learning_curves, run.history, best_epoch=run.best_epoch)
        draw("learning_curves", history_file, curves)
    counts = (run.info.get("data") or {}).get("counts")
    if counts:
        draw("class_distribution", run_dir / "run.json", partial(figures.class_distribution, counts))
    if not run.measured.get("n"):
        return
    split, measured = run.split, run.measured
    matrix = partial(figures.confusion_matrix, confusion_counts(measured), list(measured["per_class"]))
    draw(f"confusion_{split}", metrics_file, partial(matrix, normalise=True))
    draw(f"confusion_counts_{split}", metrics_file, partial(matrix, normalise=False))
    draw(f"per_class_{split}", metrics_file, partial(figures.per_class_bars, measured["per_class"]))
    predictions_file = within(run_dir, f"predictions_{split}.npz")
    if predictions_file.exists():
        predictions = Predictions.load(predictions_file)
        answered = predictions.answered
        if predictions.graded:
            diagram = partial(
                figures.reliability_diagram,
                predictions.probs[answered].max(axis=1),
                (predictions.predicted == predictions.labels)[answered],
                ece=measured.get("ece"),
            )
            draw(f"reliability_{split}", predictions_file, diagram)


def draw_all(
    run_dir: Path,
    *,
    split: str,
    images: NDArray[np.uint8],
    train_samples: tuple[NDArray[np.uint8], NDArray[np.int64]],
) -> None:
    """Draw every figure of a run, while its images are at hand.

    Args:
        run_dir: The run folder, with its metrics and predictions written.
        split: The split whose mistakes are shown.
        images: ``(N, S, S)`` uint8 grey levels, row for row those of ``predictions_<split>.npz``.
        train_samples: ``(M, S, S)`` uint8 images and their ``(M,)`` labels, of which the first
            of each class are shown.

    Raises:
        FERError: If the folder is no run folder, or a file in it is damaged.
    """
    predictions = Predictions.load(run_dir / f"predictions_{split}.npz")
    assert len(images) == len(predictions), (len(images), len(predictions))
    shown = confident_mistakes(predictions)
    if len(shown):
        figure = figures.mistakes(
            images[shown],
            _names(predictions.labels[shown], predictions.classes),
            _names(predictions.predicted[shown], predictions.classes),
            predictions.probs[shown].max(axis=1).tolist() if predictions.graded else None,
        )
        save(figure, run_dir / "figures" / f"mistakes_{split}.png")
    save(
        figures.samples_per_class(*train_samples, predictions.classes),
        run_dir / "figures" / "samples.png",
    )
    draw_run(run_dir)


_KINDS = {
    "conflict": "pixel-identical, labelled differently",
    "near": "near-duplicates in different splits",
    "constant": "constant images",
}


def draw_audit(
    run_dir: Path, *, images: NDArray[np.uint8], labels: NDArray[np.int64], classes: Sequence[str]
) -> None:
    """Draw the examples that a run's ``audit.json`` names, while the images are at hand; nothing if none.

    Args:
        run_dir: The run folder, its ``audit.json`` written.
        images: ``(N, S, S)`` uint8 grey levels of the whole data set, possibly memory-mapped.
        labels: ``(N,)`` positions in ``classes``.
        classes: Names.
    """
    groups: dict[str, list[tuple[NDArray[np.uint8], list[str]]]] = {}
    for example in read_audit(run_dir)["examples"]:
        captions = [
            f"{face_id.split('/')[0]}: {classes[label]}\n{Path(face_id).stem[:20]}"
            for face_id, label in zip(example["ids"], labels[example["rows"]], strict=True)
        ]
        groups.setdefault(_KINDS[example["kind"]], []).append((images[example["rows"]], captions))
    if groups:
        save(figures.audit_examples(groups), run_dir / "figures" / "audit.png")


def _names(labels: NDArray[np.int64], classes: Sequence[str]) -> list[str]:
    return [classes[label] for label in labels]
