"""Draw the figures of a run folder into its ``figures/``."""

import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import replacing
from fer_lightning.core.names import slug
from fer_lightning.evaluation.explanations import Explanations
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.report import figures
from fer_lightning.report.marks import figure_mark, file_mark, title_mark
from fer_lightning.report.provenance import run_name, run_title, seed_of
from fer_lightning.report.run_results import RunResults, path_inside, read_audit, read_run
from fer_lightning.report.tables import confusion_counts

FORMATS = ("png", "pdf", "svg")  # for documents, papers and pages
_OF_IMAGES = ("png", "svg")  # images in a PDF take as much time as the rest of a figure
MAX_ERRORS = 20
MARK_COLOR = "#A8201A"  # which dark pages replace
_NO_DATE = {"pdf": "CreationDate", "svg": "Date"}  # the same figure is the same file


def save_figure(
    figure: Figure,
    *paths: Path,
    title: str = "",
    mark: str = "",
    dpi: int | None = None,
    whole: bool = False,
) -> None:
    """Save a figure; the suffix of each path (``.png``, ``.svg``, ``.pdf``) gives the format.

    Args:
        figure: Laid out once, for all paths.
        paths: One or more files. An SVG has no background.
        title: Title in the metadata of the files: they are known without their folder.
        mark: A line above the figure, which says that it shows no results.
        dpi: Dots per inch of PNG files; by default those of the style.
        whole: Save the whole width of the figure; by default only what is drawn, with a small margin.
    """
    with figures.style_context():
        figure.draw_without_rendering()
        figure.set_layout_engine(None)
        tight, pad = figure.get_tightbbox(), mpl.rcParams["savefig.pad_inches"]
        if mark:
            _write_above(figure, tight, mark)
            tight = figure.get_tightbbox()
        box: Any = None
        if whole:
            box = Bbox([[0, tight.y0 - pad], [figure.get_figwidth(), tight.y1 + pad]])
        elif mark or mpl.rcParams["savefig.bbox"] == "tight":
            box = tight.padded(pad)
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            suffix = path.suffix[1:]
            facts: dict[str, Any] = {"Title": title} if title else {}
            if suffix in _NO_DATE:
                facts[_NO_DATE[suffix]] = None
            look: dict[str, Any] = {"facecolor": "none"} if suffix == "svg" else {}
            if suffix == "png":
                look["dpi"] = dpi or mpl.rcParams["savefig.dpi"]
                look["pil_kwargs"] = {"compress_level": 3}  # a sixth larger than 6, in half the time
            with replacing(path) as file:
                figure.savefig(file, format=suffix, bbox_inches=box, metadata=facts, **look)


def _write_above(figure: Figure, drawn: Bbox, mark: str) -> None:
    """Write a mark above what is drawn; ``drawn`` is its box in inches."""
    columns = int(13 * figure.get_figwidth())
    lines = "\n".join(textwrap.wrap(mark, columns, break_long_words=False, break_on_hyphens=False))
    for legend in figure.legends:  # one outside of the panels moves to the top of what is saved otherwise
        legend.set_bbox_to_anchor((0, 0, 1, 1), transform=figure.transFigure)
    look: dict[str, Any] = {"color": MARK_COLOR, "fontweight": "bold", "va": "bottom"}
    width, height = figure.get_size_inches()
    figure.text(drawn.x0 / width, (drawn.y1 + 0.05) / height, lines, **look)


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
    title, mark = run_title(run), figure_mark([run])
    for name, (source, draw) in run_figures(run).items():
        paths = [path_inside(run_dir, f"figures/{name}.{suffix}") for suffix in FORMATS]
        changed = source.stat().st_mtime_ns
        if not all(path.exists() and path.stat().st_mtime_ns > changed for path in paths):
            save_figure(draw(), *paths, title=_title(title, name, run), mark=mark)


def run_figures(run: RunResults) -> dict[str, tuple[Path, Callable[[], Figure]]]:
    """Return the figures of a run that need no images, by name: the file that each shows, and a function."""
    found: dict[str, tuple[Path, Callable[[], Figure]]] = {}
    metrics_file = run.folder / "metrics.json"
    if run.history.get("epoch"):
        curves = partial(figures.learning_curves, run.history, best_epoch=run.best_epoch)
        found["learning_curves"] = run.folder / "metrics.csv", curves
    counts = (run.info.get("data") or {}).get("counts")
    if counts:
        # run.json is written again when the run ends, with the same counts.
        source = metrics_file if metrics_file.exists() else run.folder / "run.json"
        found["class_distribution"] = source, partial(figures.class_distribution, counts)
    if not run.split_metrics.get("n"):
        return found
    split, metrics = run.split, run.split_metrics
    matrix = partial(figures.confusion_matrix, confusion_counts(metrics), list(metrics["per_class"]))
    found[f"confusion_{split}"] = metrics_file, partial(matrix, normalise=True)
    found[f"confusion_counts_{split}"] = metrics_file, partial(matrix, normalise=False)
    found[f"per_class_{split}"] = metrics_file, partial(figures.per_class_bars, metrics["per_class"])
    return found | _explanations(run) | _probabilities(run)


def _explanations(run: RunResults) -> dict[str, tuple[Path, Callable[[], Figure]]]:
    path = path_inside(run.folder, f"explanations_{run.split}.npz")
    if not path.exists():
        return {}
    draw = partial(figures.class_explanations, Explanations.load(path))
    return {f"explanations_{run.split}": (path, draw)}


def _probabilities(run: RunResults) -> dict[str, tuple[Path, Callable[[], Figure]]]:
    """Return the figures of probabilities, which predictions that are only answers do not have."""
    path = path_inside(run.folder, f"predictions_{run.split}.npz")
    if not path.exists() or not (predictions := Predictions.load(path)).graded:
        return {}
    answered = predictions.answered
    probs, labels = predictions.probs[answered], predictions.labels[answered]
    correct = predictions.correct[answered]
    ece = run.split_metrics.get("ece")
    diagram = partial(figures.reliability_diagram, probs.max(axis=1), correct, ece=ece)
    curves = partial(figures.ranking_curves, probs, labels, predictions.classes)
    return {f"reliability_{run.split}": (path, diagram), f"roc_{run.split}": (path, curves)}


def _save(run_dir: Path, name: str, figure: Figure) -> None:
    """Save a figure of a run that shows images."""
    paths = [run_dir / "figures" / f"{name}.{suffix}" for suffix in _OF_IMAGES]
    run = read_run(run_dir)
    save_figure(figure, *paths, title=_title(run_title(run), name, run), mark=figure_mark([run]))


def _title(of_run: str, name: str, run: RunResults) -> str:
    """Return the title in the metadata of a figure, from the title of its run."""
    return f"{of_run}: {name.replace('_', ' ')}{title_mark([run])}"


def export_figures(
    run_dir: Path, folder: Path, suffix: str, *, dpi: int | None = None, width: float | None = None
) -> list[Path]:
    """Draw the figures of a run that need no images, into files whose names say which run they show.

    Args:
        run_dir: The run folder.
        folder: Where they are written.
        suffix: One of ``FORMATS``.
        dpi: See ``save_figure``.
        width: Width of each figure in inches; in a smaller one the text is smaller, too.

    Returns:
        The files, such as ``confusion_test_resnet-15-on-fer-2013-seed-0.pdf``; the names of a limited run end
        with ``_limited``, those of one on synthetic faces with ``_synthetic``.
    """
    run = read_run(run_dir)
    title, mark = run_title(run), figure_mark([run])
    written = []
    for name, (_, draw) in run_figures(run).items():
        path = folder / f"{name}_{slug(', '.join([run_name(run), *seed_of(run)]))}{file_mark([run])}.{suffix}"
        figure = draw()
        scale = 1.0 if width is None else width / figure.get_figwidth()
        with figures.change_style(scale=min(scale, 1.0)):
            if width is not None:
                height = figure.get_figheight()
                figure = draw()
                figure.set_size_inches(width, scale * height)
            look: dict[str, Any] = {"title": _title(title, name, run), "mark": mark}
            save_figure(figure, path, dpi=dpi, whole=width is not None, **look)
        written.append(path)
    if not written:
        raise FERError(
            f"{run_dir}: nothing to draw, expected metrics.csv or metrics.json; train or evaluate first"
        )
    return written


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
        train_samples: ``(M, S, S[, 3])`` uint8 images and their ``(M,)`` labels; some of each class, drawn
            at random, are shown.
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
        _save(run_dir, f"mistakes_{split}", figure)
    samples = figures.samples_per_class(*train_samples, predictions.classes, seed=0)
    _save(run_dir, "samples", samples)
    draw_run(run_dir)


_HEADINGS = {
    "conflict": "pixel-identical, different labels",
    "near": "near-duplicates in different splits",
    "constant": "blank images",
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
        _save(run_dir, "audit", figures.audit_examples(groups))


def _names(labels: NDArray[np.int64], classes: Sequence[str]) -> list[str]:
    return [classes[label] for label in labels]
