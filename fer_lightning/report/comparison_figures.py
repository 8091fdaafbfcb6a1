"""The figures of the comparison page: accuracy, learning curves, settings, classes, confusion matrices."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from fer_lightning.report import figures
from fer_lightning.report.configurations import Configuration, Ranking, Row, as_number, short_names
from fer_lightning.report.drawing import FORMATS, save_figure
from fer_lightning.report.rendering import (
    Image,
    Table,
    TableCell,
    drop_missing,
    embed_svg,
    run_figure,
    text_cell,
)
from fer_lightning.report.run_results import RunResults
from fer_lightning.report.tables import confusion_counts, frequent_confusions, percent

_OPEN_MATRICES = 4  # those of further configurations are folded
_MAX_PARALLEL = 6  # settings; more leave no room for their names


class ClassSection(NamedTuple):
    """What compares configurations class by class."""

    figure: Image | None
    recall: Table | None
    f1: Table | None


class Matrices(NamedTuple):
    """Confusion matrices: of the first configurations, of the others, of single runs."""

    shown: list[Image]
    others: list[Image]
    runs: list[Image]


class PageFigures(NamedTuple):
    """Where the figures of a page are saved.

    Attributes:
        folder: The folder.
        mark: The line above each figure, see ``figure_mark``.
    """

    folder: Path
    mark: str

    def save(self, figure: Figure, name: str, alt: str, caption: str) -> Image:
        """Save a figure in all formats, and embed it."""
        paths = {suffix: self.folder / f"{name}.{suffix}" for suffix in FORMATS}
        save_figure(figure, *paths.values(), title=name.replace("_", " "), mark=self.mark)
        return embed_svg(paths["svg"], alt, caption)


def _drawn(configurations: Sequence[Configuration]) -> tuple[Sequence[Configuration], str]:
    """Return the configurations that one figure can distinguish, and a sentence on those left out."""
    shown = configurations[: figures.MAX_SERIES]
    left_out = len(configurations) - len(shown)
    return shown, f" The {left_out} with the lowest accuracy are not drawn." if left_out else ""


def accuracy_figure(ranking: Ranking, split: str, files: PageFigures) -> Image | None:
    """Draw the accuracy of each run with its CI."""
    groups = {
        each.label: [(row["acc"], row["acc_ci_low"], row["acc_ci_high"]) for row in each.rows]
        for each in ranking.configurations
    }
    if not groups:
        return None
    numbers = "; ".join(
        f"{name} {', '.join(percent(run[0]) for run in members)}" for name, members in groups.items()
    )
    several = any(len(members) > 1 for members in groups.values())
    means = " The vertical line is the mean over seeds." if several else ""
    caption = f"Each dot is the {split} accuracy of one run, the line through it its 95 % CI.{means}"
    figure = figures.accuracy_dots(groups, xlabel=f"{split} accuracy, %")
    return files.save(figure, "accuracy", f"Accuracy in percent: {numbers}", caption)


def curves_figure(ranking: Ranking, files: PageFigures) -> Image | None:
    """Overlay the learning curves: of validation if every run has it, else of training."""
    configurations = [
        each
        for each in ranking.configurations
        if all(any(np.isfinite(run.history.get("epoch") or [np.nan])) for run in each.runs)
    ]
    if not configurations:
        return None
    split, name = ("val", "validation") if _all_have(configurations, "val/acc") else ("train", "training")
    if not _all_have(configurations, f"{split}/acc"):
        return None
    drawn, left_out = _drawn(configurations)
    groups = {each.label: [run.history for run in each.runs] for each in drawn}
    several = any(len(each.runs) > 1 for each in drawn)
    seeds = " Thin lines are seeds, the thick one their mean." if several else ""
    caption = f"Accuracy and loss in {name} over epochs, counted from 1.{seeds}{left_out}"
    figure = figures.overlaid_curves(groups, split=split, split_name=name)
    alt = f"Learning curves of {', '.join(groups)}"
    return files.save(figure, "learning_curves", alt, caption)


def _all_have(configurations: Sequence[Configuration], column: str) -> bool:
    return all(
        np.isfinite(run.history.get(column) or [np.nan]).any() for each in configurations for run in each.runs
    )


def settings_figures(rows: Sequence[Row], ranking: Ranking, split: str, files: PageFigures) -> list[Image]:
    """Draw accuracy against each numeric setting that was changed; with several also parallel coordinates."""
    measured = [i for i, row in enumerate(rows) if row[ranking.key] is not None]
    numeric: dict[str, list[float]] = {}
    for name in dict.fromkeys(name for i in measured for name in rows[i]["settings"]):
        texts = [rows[i]["settings"].get(name, "") for i in measured]
        values = [as_number(text) for text in texts]
        if any(text and value is None for text, value in zip(texts, values, strict=True)):
            continue  # not numeric
        if len(set(values) - {None}) > 1:
            numeric[name] = [np.nan if value is None else value for value in values]
    if not numeric:
        return []
    accuracy = [rows[i][ranking.key] for i in measured]
    what = "val" if ranking.key == "val_acc" else split
    models = [str(rows[i]["model"]) for i in measured]
    scatter = figures.setting_scatter(numeric, accuracy, models, ylabel=f"{what} accuracy, %")
    caption = f"One dot per run: {what} accuracy against each numeric setting that was changed."
    alt = f"{what} accuracy against {', '.join(numeric)}"
    images = [files.save(scatter, "settings", alt, caption)]
    if 2 <= len(numeric) <= _MAX_PARALLEL:
        short = short_names(list(numeric))
        named = {short[name]: values for name, values in numeric.items()}
        parallel = figures.parallel_coordinates(named, accuracy, ylabel=f"{what} accuracy, %")
        caption = "One line per run through its settings to its accuracy; strong colours are accurate runs."
        alt = f"Parallel coordinates of {', '.join(numeric)} and {what} accuracy"
        images.append(files.save(parallel, "parallel_coordinates", alt, caption))
    return images


def class_section(ranking: Ranking, split: str, files: PageFigures) -> ClassSection:
    """Compare recall and F1 of each class, means over seeds."""
    configurations = [each for each in ranking.configurations if each.runs[0].split_metrics.get("per_class")]
    classes = list(configurations[0].runs[0].split_metrics["per_class"]) if configurations else []
    configurations = [
        each
        for each in configurations
        if all(list(run.split_metrics.get("per_class") or ()) == classes for run in each.runs)
    ]
    if len(configurations) < 2:
        return ClassSection(None, None, None)
    scores = {each.label: _class_means(each, classes) for each in configurations}
    drawn, left_out = _drawn(configurations)
    figure = figures.class_dots({each.label: scores[each.label] for each in drawn})
    caption = f"Recall and F1 of each class on the {split} split.{_widest(scores, classes)}{left_out}"
    alt = f"Recall and F1 of each class of {', '.join(each.label for each in drawn)}"
    tables = [
        Table(
            ["configuration", *classes],
            [
                [text_cell(label), *(TableCell(percent(by_class[c][key]), by_class[c][key]) for c in classes)]
                for label, by_class in scores.items()
            ],
            label=f"{key} per class",
        )
        for key in ("recall", "f1")
    ]
    return ClassSection(files.save(figure, "classes", alt, caption), *tables)


def _class_means(configuration: Configuration, classes: Sequence[str]) -> dict[str, dict[str, float | None]]:
    def mean(name: str, key: str) -> float | None:
        values = [run.split_metrics["per_class"][name].get(key) for run in configuration.runs]
        return None if None in values else float(np.mean(values))

    return {name: {key: mean(name, key) for key in ("recall", "f1")} for name in classes}


def _widest(scores: Mapping[str, Mapping[str, Mapping[str, float | None]]], classes: Sequence[str]) -> str:
    """Name the class in which the configurations' F1 differs most, in a sentence."""
    ranges = {}
    for name in classes:
        known = {label: f1 for label, by in scores.items() if (f1 := by[name]["f1"]) is not None}
        if len(known) > 1:
            low, high = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
            ranges[name] = (known[high] - known[low], low, known[low], high, known[high])
    if not ranges:
        return ""
    name = max(ranges, key=lambda each: ranges[each][0])
    gap, low, lowest, high, highest = ranges[name]
    if not gap:
        return ""
    return f" F1 differs most for {name}: {percent(lowest)} ({low}) to {percent(highest)} ({high})."


def matrices(ranking: Ranking, files: PageFigures) -> Matrices:
    """Make one confusion matrix per configuration, a mean over seeds, and those of the single runs."""
    means = [_matrix(each, files, number) for number, each in enumerate(ranking.configurations)]
    repeated = [each for each in ranking.configurations if len(each.runs) > 1]
    singles = [
        _run_matrix(run, f"{run.folder.name}: {each.label}, seed {row['seed']}.")
        for each in repeated
        for run, row in zip(each.runs, each.rows, strict=True)
    ]
    return Matrices(
        drop_missing(means[:_OPEN_MATRICES]), drop_missing(means[_OPEN_MATRICES:]), drop_missing(singles)
    )


def _run_matrix(run: RunResults, caption: str) -> Image | None:
    name = f"confusion_{run.split}"
    return run_figure(run, name, f"{caption} {frequent_confusions(run.split_metrics)}")


def _matrix(configuration: Configuration, files: PageFigures, number: int) -> Image | None:
    measured = [run.split_metrics for run in configuration.runs]
    classes = list(measured[0].get("per_class") or ())
    fits = [
        list(part.get("per_class") or ()) == classes and len(part.get("confusion") or ()) == len(classes)
        for part in measured
    ]
    if not classes or not all(fits):
        return None
    if len(measured) == 1:
        return _run_matrix(configuration.runs[0], f"{configuration.label}.")
    counts = np.mean([confusion_counts(part) for part in measured], axis=0)
    figure = figures.confusion_matrix(counts, classes, normalise=True, title=configuration.title)
    title = f"{configuration.title}, mean"
    rounded = {"confusion": np.rint(counts[:, : len(classes)]).astype(int), "per_class": classes}
    caption = f"{title}. {frequent_confusions(rounded)}"
    return files.save(figure, f"confusion_{number}", f"Confusion matrix of {title}", caption)
