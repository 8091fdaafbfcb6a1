"""The figures of the report, numbered as in the paper."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fer_lightning.config.instantiate import instantiate
from fer_lightning.core.errors import FERError
from fer_lightning.evaluation.stats import wilson_interval
from fer_lightning.report import figures
from fer_lightning.report.architecture import Layer, condense, layers_of
from fer_lightning.report.paper import reference
from fer_lightning.report.paper.accuracy_tables import papers_accuracy, papers_rows_not_run
from fer_lightning.report.paper.comparison import Sample
from fer_lightning.report.paper.dataset import DatasetImages
from fer_lightning.report.paper.output import ReportFiles, file_name
from fer_lightning.report.paper.runs import LLMResults, NetworkResults, PaperRuns
from fer_lightning.report.paper.table import format_shape
from fer_lightning.report.rendering import Image
from fer_lightning.report.tables import confusion_counts

_MAX_IMAGES_PER_CLASS = 12
_TIMES = "\N{MULTIPLICATION SIGN}"


def accuracy(files: ReportFiles, runs: PaperRuns) -> Image | None:
    """Draw our accuracies next to the paper's, of networks that were tested on the same images."""
    rows = {network.label: _accuracy_row(network) for network in runs.networks}
    if any(network.on_papers_images for network in runs.networks):
        for label, paper in papers_rows_not_run(runs):
            rows.setdefault(label, figures.AccuracyRow((), None, paper, _papers_interval(paper)))
    if not rows:
        return None
    compared = any(row.published is not None for row in rows.values())
    papers = (
        f" The paper's are of one run each; their CI is Wilson's for {reference.NUM_TEST:,} images."
        if compared
        else " The paper's values are not shown: they are of other images."
    )
    caption = f"Test accuracy, ours as means over seeds with Wilson's 95 % CI.{papers}"
    numbers = ", ".join(f"{label} {100 * np.mean(row.seeds):.1f}" for label, row in rows.items() if row.seeds)
    return files.save_figure("accuracy", figures.published_accuracy(rows), caption, alt=numbers)


def _accuracy_row(network: NetworkResults) -> figures.AccuracyRow:
    seeds = network.accuracies()
    interval = wilson_interval(float(np.mean(seeds)), network.num_images)
    paper = papers_accuracy(network) if network.on_papers_images else None
    return figures.AccuracyRow(seeds, interval, paper, None if paper is None else _papers_interval(paper))


def _papers_interval(accuracy: float) -> tuple[float, float]:
    return wilson_interval(accuracy, reference.NUM_TEST)


def learning_curves(files: ReportFiles, runs: PaperRuns, *, improved: bool) -> Image | None:
    """Overlay learning curves of the networks of one recipe: of validation if all have it, else training."""
    groups = {each.label: [run.history for run in each.runs] for each in runs.with_recipe(improved=improved)}
    histories = [history for group in groups.values() for history in group]

    def all_have(column: str) -> bool:
        return all(np.isfinite(history.get(column) or [np.nan]).any() for history in histories)

    splits = {"val": "validation", "train": "training"}
    split = next((split for split in splits if all_have(f"{split}/acc") and all_have("epoch")), None)
    if not histories or split is None:
        return None
    several = any(len(group) > 1 for group in groups.values())
    seeds = " Thin lines are seeds, the thick one their mean." if several else ""
    return files.save_figure(
        f"learning_curves{'_improved' if improved else ''}",
        figures.overlaid_curves(groups, split=split, split_name=splits[split]),
        f"Accuracy and loss in {splits[split]}{', improved recipe' if improved else ''}.{seeds}",
    )


def class_distribution(files: ReportFiles, runs: PaperRuns) -> Image | None:
    """Draw Figure 1, the class distribution, from the counts that the first run recorded."""
    data = runs.runs[0].info.get("data") or {}
    counts = {
        split: by_class for split, by_class in (data.get("counts") or {}).items() if any(by_class.values())
    }
    if not counts:
        return None
    caption = "Figure 1: class distribution per split."
    return files.save_figure("figure_1_class_distribution", figures.class_distribution(counts), caption)


def training_samples(files: ReportFiles, dataset: DatasetImages | str) -> Image | str:
    """Draw Figure 2, training images of each class, or return why it is missing."""
    if isinstance(dataset, str):
        return f"Figure 2 is missing: {dataset}"
    rows = dataset.train_rows
    figure = figures.samples_per_class(dataset.images[rows], dataset.labels[rows], dataset.classes)
    return files.save_figure("figure_2_samples", figure, "Figure 2: training images of each class.")


def architecture(files: ReportFiles, label: str, name: str, layers: Sequence[Layer]) -> Image:
    """Draw Figure 3 of one network.

    Args:
        files: Where it is saved.
        label: The network's label.
        name: The same as part of a file name.
        layers: Its layers.
    """
    boxes = [
        (
            f"{count} {_TIMES} {layer.kind}" if count > 1 else layer.kind,
            ", ".join(layer.followed_by),
            format_shape(layer.output_shape),
            f"{layer.num_parameters:,}" if layer.num_parameters else "",
            f"{layer.multiply_adds:,}" if layer.multiply_adds else "",
        )
        for count, layer in condense(layers)
    ]
    parameters = sum(layer.num_parameters for layer in layers)
    multiply_adds = sum(layer.multiply_adds for layer in layers)
    return files.save_figure(
        f"figure_3_{name}",
        figures.architecture(boxes),
        f"Figure 3, {label}: {parameters:,} parameters, {multiply_adds / 1e6:.1f} M multiply-adds "
        f"({2 * multiply_adds / 1e6:.1f} MFLOPs) per image{_not_counted(layers)}.",
    )


def _not_counted(layers: Iterable[Layer]) -> str:
    kinds = dict.fromkeys(layer.kind for layer in layers if not layer.counted)
    return f"; multiply-adds not counted: {', '.join(kinds)}" if kinds else ""


def network_layers(network: NetworkResults) -> list[Layer]:
    """Build a network with random weights from its config, and list its layers.

    Raises:
        FERError: The config does not define the network, or the network fails.
    """
    folder = network.runs[0].folder
    node: Mapping[str, Any] = network.config.get("model") or {}
    size = (network.config.get("data") or {}).get("image_size") or node.get("image_size")
    if "_target_" not in node or size is None:
        raise FERError(f"{folder}/config.yaml has no model._target_, or no data.image_size")
    if "pretrained" in node:
        node = {**node, "pretrained": False}  # do not download weights
    try:
        return layers_of(instantiate(node), (node.get("in_channels", 1), size, size))
    except Exception as error:  # a user's model may fail in any way; the report continues without it
        raise FERError(
            f"the network of {folder} cannot be built ({type(error).__name__}: {error})"
        ) from error


def confusion_and_scores(files: ReportFiles, runs: PaperRuns, *, improved: bool) -> list[Image]:
    """Draw Figures 4 and 5, confusion matrices and scores per class, of the networks of one recipe."""
    networks = runs.with_recipe(improved=improved)
    if not networks:
        return []
    tests = {f"{each.label}, n = {each.num_images:,}": each.runs[0].metrics["test"] for each in networks}
    matrices = {title: np.array(test["confusion"]) for title, test in tests.items()}
    scores = {title: test["per_class"] for title, test in tests.items()}
    suffix, recipe = ("_improved", ", improved") if improved else ("", "")
    confusion = files.save_figure(
        f"figure_4_confusion{suffix}",
        figures.confusion_panels(matrices, runs.classes),
        f"Figure 4{recipe}: confusion matrices in images, first seed; shaded by the share of the true class.",
    )
    per_class = files.save_figure(
        f"figure_5_per_class{suffix}",
        figures.per_class_panels(scores),
        f"Figure 5{recipe}: precision (fraction of the predictions of a class that are correct), recall "
        "(fraction of its images that are found) and F1, first seed.",
    )
    return [confusion, per_class]


def sample_images(files: ReportFiles, dataset: DatasetImages | str, sample: Sample) -> Image | str:
    """Draw Figure 6, the images of Table 2, or return why it is missing."""
    if isinstance(dataset, str):
        return f"Figure 6 is missing: {dataset}"
    missing = ~np.isin(sample.ids, dataset.ids)
    if missing.any():
        return (
            f"Figure 6 is missing: {int(missing.sum()):,} images of the sample are not in the data, the "
            f"first: {sample.ids[missing][0]}."
        )
    rows = np.flatnonzero(np.isin(dataset.ids, sample.ids))
    labels = dataset.labels[rows]
    largest = int(np.bincount(labels).max())
    num_each = min(largest, _MAX_IMAGES_PER_CLASS)
    figure = figures.samples_per_class(dataset.images[rows], labels, dataset.classes, num_each=num_each)
    shown = f"the first {num_each} of each class of " if num_each < largest else ""
    caption = f"Figure 6: {shown}{sample.origin}; one row per true class."
    return files.save_figure("figure_6_sample", figure, caption)


def llm_confusion(files: ReportFiles, llm: LLMResults, classes: Sequence[str]) -> Image:
    """Draw the confusion matrix of one language model."""
    matrix = figures.confusion_matrix(confusion_counts(llm.run.split_metrics), classes, normalise=False)
    caption = f"{llm.label}: confusion matrix in images, n = {len(llm.predictions):,}."
    return files.save_figure(f"confusion_{file_name(llm.label)}", matrix, caption)
