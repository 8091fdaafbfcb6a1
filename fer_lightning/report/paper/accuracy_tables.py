"""Table 1, its counterpart of the improved recipe, and the counts that the paper's text mentions."""

import numpy as np
from numpy.typing import NDArray

from fer_lightning.config.compare import flatten
from fer_lightning.evaluation.stats import spread, wilson_interval
from fer_lightning.report.paper import reference
from fer_lightning.report.paper.runs import NetworkResults, PaperRuns
from fer_lightning.report.paper.table import (
    EMPTY_CELL,
    Cell,
    PaperTable,
    count_cell,
    interval_cell,
    percent_cell,
    points_cell,
    text_cell,
)

_TABLE_1_HEADERS = (
    "model",
    "seeds",
    "ours %",
    "sd",
    "95 % CI",
    "images",
    "paper %",
    "difference",
    "leak-free %",
    "leak-free images",
    "leak-free (near) %",
    "leak-free (near) images",
)
_PRIVATE_TEST_HEADERS = tuple(
    f"PrivateTest {name}" for name in ("%", "95 % CI", "images", "leak-free %", "leak-free images")
)


def table_1(runs: PaperRuns) -> PaperTable:
    """Reproduce Table 1 with the runs of the paper's recipe."""
    networks = runs.with_recipe(improved=False)
    rows = [_network_row(network, papers_accuracy(network)) for network in networks]
    rows += [_missing_row(label, paper) for label, paper in papers_rows_not_run(runs)]
    return PaperTable(
        "table_1",
        f"Table 1: test accuracy, {runs.recipe}",
        "Accuracies in percent, means over seeds with their standard deviation (sd). The 95 % CI is "
        "Wilson's, for the mean: it reflects the sampling of test images, the sd reflects the seed. "
        "Difference: ours minus the paper's, in points, if both were measured on the same 7,178 images. "
        "Leak-free: excluding images that are pixel-identical to one that the network was trained or "
        "selected on; (near): excluding near-duplicates of these, too.",
        _TABLE_1_HEADERS,
        tuple(rows),
        text_columns=2,
    )


def papers_accuracy(network: NetworkResults) -> float | None:
    """Return the accuracy in [0, 1] that Table 1 has of a network; its ResNet is pre-trained.

    The improved recipe is compared with it, too, whether pre-trained or not.
    """
    if network.family == "resnet" and not network.pretrained and not network.improved:
        return None
    return reference.TABLE_1.get(network.family)


def papers_rows_not_run(runs: PaperRuns) -> list[tuple[str, float]]:
    """Return name and accuracy of the rows of Table 1 that none of the runs repeats."""
    run = {
        network.family
        for network in runs.with_recipe(improved=False)
        if network.pretrained or network.family != "resnet"
    }
    names = reference.FAMILIES | {"resnet": "ResNet-34 (pre-trained)"}
    return [(names[family], paper) for family, paper in reference.TABLE_1.items() if family not in run]


def _missing_row(label: str, paper: float) -> tuple[Cell, ...]:
    row = dict.fromkeys(_TABLE_1_HEADERS, EMPTY_CELL)
    row |= {"model": text_cell(label), "seeds": Cell("not run", None), "paper %": percent_cell(paper)}
    return tuple(row.values())


def _network_row(network: NetworkResults, paper: float | None) -> tuple[Cell, ...]:
    kept = ~network.predictions[0].leaked
    difference = EMPTY_CELL
    if paper is not None and network.on_papers_images:
        difference = points_cell(spread(network.accuracies()).mean - paper)
    return (
        text_cell(network.label),
        _seeds_cell(network),
        *_accuracy_cells(network, np.ones(network.num_images, dtype=bool)),
        EMPTY_CELL if paper is None else percent_cell(paper),
        difference,
        _accuracy_cells(network, kept)[0],
        count_cell(int(kept.sum())),
        *_near_cells(network),
    )


def _near_cells(network: NetworkResults) -> tuple[Cell, Cell]:
    """Return accuracy and number of the images without a near-duplicate that the network has seen."""
    near = network.predictions[0].near_leaked
    if near is None:
        return EMPTY_CELL, EMPTY_CELL
    mean, _, _, n = _accuracy_cells(network, ~near)
    return mean, n


def _seeds_cell(network: NetworkResults) -> Cell:
    seeds = [run.info.get("seed") for run in network.runs]
    return Cell(f"{len(seeds)} ({', '.join(map(str, seeds))})", len(seeds))


def _accuracy_cells(network: NetworkResults, images: NDArray[np.bool_]) -> tuple[Cell, Cell, Cell, Cell]:
    """Return mean, standard deviation, CI and number of images for some of the test images."""
    n = int(images.sum())
    if not n:
        return EMPTY_CELL, EMPTY_CELL, EMPTY_CELL, count_cell(0)
    accuracy = spread(network.accuracies(images))
    return (
        percent_cell(accuracy.mean),
        EMPTY_CELL if accuracy.sd is None else percent_cell(accuracy.sd),
        interval_cell(wilson_interval(accuracy.mean, n)),
        count_cell(n),
    )


def improved_table(runs: PaperRuns) -> PaperTable | None:
    """Make a table like Table 1 of the improved recipe, for all test images and for PrivateTest alone."""
    networks = runs.with_recipe(improved=True)
    if not networks:
        return None
    rows = [_network_row(network, papers_accuracy(network)) for network in networks]
    headers: tuple[str, ...] = _TABLE_1_HEADERS
    epochs = sorted(
        {str(flatten(network.config).get("trainer.max_epochs", "unknown")) for network in networks}
    )
    note = (
        f"Epochs: {', '.join(epochs)}. Other differences from the paper are listed below. The paper's column "
        "is its Table 1, whose ResNet is pre-trained."
    )
    if networks[0].runs[0].dataset == "fer2013":
        rows = [(*row, *_private_test_cells(network)) for row, network in zip(rows, networks, strict=True)]
        headers += _PRIVATE_TEST_HEADERS
        note += " PrivateTest is the half of the test images that the 2013 challenge reported."
    title = "Beyond Table 1: the improved recipe"
    return PaperTable("table_1_improved", title, note, headers, tuple(rows), text_columns=2)


def _private_test_cells(network: NetworkResults) -> tuple[Cell, ...]:
    images = np.char.startswith(network.predictions[0].ids, "test/")
    mean, _, interval, n = _accuracy_cells(network, images)
    leak_free, _, _, num_leak_free = _accuracy_cells(network, images & ~network.predictions[0].leaked)
    return mean, interval, n, leak_free, num_leak_free


def counts_table(runs: PaperRuns) -> PaperTable | None:
    """Compare the counts that the paper's text mentions with ours; None if no run has its images."""
    rows = tuple(
        _count_row(network, count)
        for count in reference.COUNTS
        for network in runs.with_recipe(improved=False)
        if network.family == count.family and network.on_papers_images
    )
    if not rows:
        return None
    return PaperTable(
        "counts",
        "Counts mentioned in the paper's text",
        "Numbers of images among the 7,178; ours are of the first seed. For a confusion between two classes "
        "the paper does not say which one is true: ours are given for both. Its ResNet is pre-trained.",
        ("model", "count", "ours", "the paper"),
        rows,
        text_columns=2,
    )


def _count_row(network: NetworkResults, count: reference.Count) -> tuple[Cell, ...]:
    metrics = network.runs[0].metrics["test"]
    matrix = np.array(metrics["confusion"])
    classes = list(metrics["per_class"])
    ours = [
        int(matrix[slice(None) if true is None else classes.index(true), classes.index(predicted)].sum())
        for true, predicted in count.cells
    ]
    return (
        text_cell(network.label),
        text_cell(count.description),
        Cell(" / ".join(f"{images:,}" for images in ours), sum(ours)),
        count_cell(count.images),
    )
