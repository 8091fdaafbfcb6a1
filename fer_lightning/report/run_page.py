"""The HTML page of one run."""

import shlex
from pathlib import Path
from typing import Any

from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.report import tables
from fer_lightning.report.audit_section import audit_context
from fer_lightning.report.drawing import confident_errors, draw_run
from fer_lightning.report.ensemble_section import ensemble_context
from fer_lightning.report.explanation_section import embedding_context, explanations_figure
from fer_lightning.report.provenance import provenance, run_title, subtitle
from fer_lightning.report.rendering import (
    Image,
    Table,
    TableCell,
    render_page,
    run_banners,
    run_figure,
    text_cell,
)
from fer_lightning.report.run_results import RunResults, path_inside, read_run

_ROC = (
    "Each class against the rest, as the threshold on its probability moves; macro: mean of the classes. In "
    "brackets the area below the curve (AUROC), and on the right the average precision (AP)."
)
_RELIABILITY = (
    "Accuracy of the answers at each confidence. Bars below the diagonal: the model is overconfident. Lower "
    "panel: number of images at that confidence."
)


def write_page(run_dir: Path) -> Path:
    """Write ``report.html`` into a run folder, from whichever files the run has written; return the page.

    Figures that need no images are drawn here if they are missing or outdated; ``drawing.draw_all`` draws the
    others.
    """
    draw_run(run_dir)
    run = read_run(run_dir)
    predictions = _read_predictions(run)
    data = run.info.get("data") or {}
    return render_page(
        run_dir / "report.html",
        "run.html",
        title=run_title(run),
        subtitle=subtitle(run),
        warnings=run_banners([run]),
        headline=tables.headline(run.metrics),
        split=run.split,
        all_metrics=_all_metrics_table(run),
        per_class=_per_class_table(run),
        figures=_run_figures(run, graded=predictions is None or predictions.graded),
        errors=_errors(run, predictions),
        ensemble=ensemble_context(run),
        explanations=explanations_figure(run),
        embeddings=embedding_context(run),
        data_summary=data.get("summary"),
        data_notes=data.get("notes") or (),
        fingerprint=data.get("fingerprint"),
        audit=audit_context(run),
        provenance=provenance(run),
        wandb_commands=_wandb_commands(run),
        config=run.config,
    )


def _per_class_table(run: RunResults) -> Table:
    rows = [
        [
            text_cell(name),
            *(TableCell(tables.percent(score), score) for score in scores),
            *(TableCell(f"{n:,}", n) for n in counts),
        ]
        for name, scores, counts in tables.per_class_rows(run.split_metrics)
    ]
    return Table(tables.per_class_headers(run.split_metrics), rows, label="results per class")


def _all_metrics_table(run: RunResults) -> Table | None:
    if not run.split_metrics:
        return None
    headers = ["metric", run.split or "", "95 % CI", "leak-free", "leak-free (near)"]
    rows = [[text_cell(text) for text in row] for row in tables.metric_rows(run.split_metrics)]
    return Table(headers, rows, label="all metrics")


def _run_figures(run: RunResults, *, graded: bool) -> dict[str, Image | None]:
    split, confusions = run.split, tables.frequent_confusions(run.split_metrics)
    calibrated = f"{_RELIABILITY} {tables.calibration_sentence(run.metrics, split)}".strip()
    of_probabilities = {
        "roc": run_figure(run, f"roc_{split}", _ROC, "ROC and precision-recall curves"),
        "reliability": run_figure(run, f"reliability_{split}", calibrated),
    }
    if not graded:  # files may be left over from other predictions
        of_probabilities = dict.fromkeys(of_probabilities)
    return of_probabilities | {
        "per_class": run_figure(run, f"per_class_{split}", "Precision, recall and F1 per class."),
        "confusion": run_figure(
            run,
            f"confusion_{split}",
            f"Confusion matrix, row-normalised (%). {confusions}",
            f"Confusion matrix, row-normalised, in percent. {confusions}",
        ),
        "confusion_counts": run_figure(
            run,
            f"confusion_counts_{split}",
            "Confusion matrix in numbers of images.",
            f"Confusion matrix in numbers of images. {confusions}",
        ),
        "learning_curves": run_figure(run, "learning_curves", "Loss and accuracy over epochs."),
        "samples": run_figure(run, "samples", "Training images of each class, drawn at random."),
        "class_distribution": run_figure(run, "class_distribution", "Class distribution per split."),
    }


def _read_predictions(run: RunResults) -> Predictions | None:
    path = path_inside(run.folder, f"predictions_{run.split}.npz")
    return Predictions.load(path) if path.exists() else None


def _errors(run: RunResults, predictions: Predictions | None) -> dict[str, Any]:
    """Prepare the section on wrong answers: the figure, and their file names if there are predictions."""
    graded = predictions is None or predictions.graded
    heading = "Most confident errors" if graded else "Errors"
    caption = "Most confident errors, highest probability first." if graded else "The first wrong answers."
    unanswered = ""
    if predictions is not None and (count := int((predictions.predicted < 0).sum())):
        unanswered = f"{count:,} of {len(predictions):,} images have no answer; they count as wrong."
    return {
        "heading": heading,
        "figure": run_figure(run, f"mistakes_{run.split}", caption),
        "unanswered": unanswered,
        "table": None if predictions is None else _errors_table(predictions, graded, heading),
    }


def _errors_table(predictions: Predictions, graded: bool, label: str) -> Table | None:
    shown = predictions.subset(confident_errors(predictions))
    headers = ["image", "true class", "predicted class"]
    if graded:
        headers.append("probability %")
    rows = []
    for image, truth, answer, confidence in zip(
        shown.ids.tolist(),
        shown.labels.tolist(),
        shown.predicted.tolist(),
        shown.probs.max(axis=1, initial=0).tolist(),
        strict=True,
    ):
        row = [text_cell(image), text_cell(shown.classes[truth]), text_cell(shown.classes[answer])]
        if graded:
            row.append(TableCell(tables.percent(confidence), confidence))
        rows.append(row)
    return Table(headers, rows, text_columns=3, label=label) if rows else None


def _wandb_commands(run: RunResults) -> list[str]:
    folder = run.folder / "wandb"
    if not folder.is_dir():
        return []
    offline = sorted(folder.glob("offline-run-*"))
    return [
        f"wandb leet {shlex.quote(str(folder))}",
        *(f"wandb sync {shlex.quote(str(path))}" for path in offline),
    ]
