"""Calibration, training cost, data audit and layers: tables that the paper does not have."""

from collections.abc import Sequence
from typing import Any

from fer_lightning.config.compare import flatten
from fer_lightning.evaluation.stats import bootstrap_intervals
from fer_lightning.report.architecture import Layer
from fer_lightning.report.paper.runs import LLMResults, NetworkResults, PaperRuns
from fer_lightning.report.paper.table import (
    EMPTY_CELL,
    Cell,
    PaperTable,
    count_cell,
    format_shape,
    interval_cell,
    percent_cell,
    text_cell,
)
from fer_lightning.report.run_results import RunResults
from fer_lightning.report.tables import duration


def calibration_table(runs: PaperRuns) -> PaperTable:
    """Compare confidence and accuracy of each network."""
    headers = (
        "model",
        "calibration error",
        "95 % CI",
        "leak-free calibration error",
        "mean confidence %",
        "accuracy %",
        "images",
    )
    return PaperTable(
        "calibration",
        "Calibration",
        "The calibration error is the mean distance, in points, between the confidence of the predictions "
        "and their accuracy (15 bins, first seed), with a bootstrap 95 % CI over images. If the mean "
        "confidence is above the accuracy, the model is overconfident. Language models report no confidence.",
        headers,
        (*map(_network_calibration, runs.networks), *map(_llm_calibration, runs.llms)),
    )


def _network_calibration(network: NetworkResults) -> tuple[Cell, ...]:
    metrics = network.runs[0].metrics["test"]
    interval = (metrics.get("ci95") or {}).get("ece")
    if interval is None:
        interval = bootstrap_intervals(network.predictions[0]).get("ece")
    leak_free = (metrics.get("leak_free") or {}).get("ece")
    confidence = float(network.predictions[0].probs.max(axis=1).mean())
    return (
        text_cell(network.label),
        EMPTY_CELL if metrics["ece"] is None else percent_cell(metrics["ece"]),
        EMPTY_CELL if interval is None else interval_cell((interval[0], interval[1])),
        EMPTY_CELL if leak_free is None else percent_cell(leak_free),
        percent_cell(confidence),
        percent_cell(metrics["acc"]),
        count_cell(network.num_images),
    )


def _llm_calibration(llm: LLMResults) -> tuple[Cell, ...]:
    accuracy = float(llm.predictions.correct.mean())
    return (
        text_cell(llm.label),
        EMPTY_CELL,
        EMPTY_CELL,
        EMPTY_CELL,
        EMPTY_CELL,
        percent_cell(accuracy),
        count_cell(len(llm.predictions)),
    )


def cost_table(runs: PaperRuns, multiply_adds: dict[str, int]) -> PaperTable:
    """Make a table of the cost of each training run.

    Args:
        runs: The runs.
        multiply_adds: Multiply-adds of one image by the network's label.
    """
    headers = (
        "model",
        "machine",
        "seed",
        "threads",
        "time",
        "images/s",
        "epochs",
        "parameters",
        "multiply-adds",
        "precision",
    )
    return PaperTable(
        "cost",
        "Training cost",
        "Time of the fit alone. Runs with few threads, or with other jobs on the same machine, are slower: "
        "compare times only between equal rows. Multiply-adds are of one image, of convolutions, linear and "
        "recurrent layers; FLOPs are twice as many.",
        headers,
        tuple(
            _cost_row(network.label, run, multiply_adds.get(network.label))
            for network in runs.networks
            for run in network.runs
        ),
        text_columns=2,
    )


def _cost_row(label: str, run: RunResults, multiply_adds: int | None) -> tuple[Cell, ...]:
    info, machine = run.info, run.info.get("machine") or {}
    hardware = [machine.get("cpu"), machine.get("accelerator")]
    fit_s = (info.get("durations") or {}).get("fit_s")
    speed, precision = info.get("images_per_s"), info.get("precision")
    return (
        text_cell(label),
        text_cell(", ".join(str(part) for part in hardware if part) or "unknown"),
        count_cell(info.get("seed")),
        count_cell(info.get("num_threads")),
        Cell(duration(fit_s), fit_s),
        count_cell(None if speed is None else round(speed)),
        count_cell(len(info.get("epoch_seconds") or ()) or None),
        count_cell(info.get("num_parameters")),
        EMPTY_CELL if multiply_adds is None else Cell(f"{multiply_adds / 1e6:.1f} M", multiply_adds),
        Cell(str(precision or "—"), precision),
    )


def audit_table(audit: dict[str, Any]) -> PaperTable:
    """List the numbers in an ``audit.json``, as far as it has them."""
    shown = {
        "images": audit.get("num_images"),
        "duplicates": audit.get("copies"),
        "blank": audit.get("constant"),
        "near_duplicates": audit.get("near_duplicates"),
        "median": (audit.get("quality") or {}).get("medians"),
    }
    rows = tuple(
        (text_cell(key.replace("_", " ").replace(".", ", ")), Cell(f"{value:,}", value))
        for key, value in flatten(shown).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    )
    return PaperTable(
        "audit",
        "Data audit",
        "Duplicates are pixel-identical images; near-duplicates show the same photograph with another crop "
        "or brightness, or mirrored. Sharpness is the variance of the Laplacian, low in blurred images.",
        ("measure", "value"),
        rows,
    )


def layers_table(label: str, name: str, layers: Sequence[Layer]) -> PaperTable:
    """List the layers of one network.

    Args:
        label: The network's label.
        name: The same as part of a file name.
        layers: The layers.
    """
    rows = tuple(
        (
            text_cell(layer.name),
            text_cell(", ".join((layer.kind, *layer.followed_by))),
            text_cell(format_shape(layer.output_shape)),
            count_cell(layer.num_parameters),
            count_cell(layer.multiply_adds),
        )
        for layer in layers
    )
    return PaperTable(
        f"layers_{name}",
        f"Layers of {label}",
        "Shapes are of one image; parameters of a batch norm are counted with the layer before it.",
        ("module", "layer", "output shape", "parameters", "multiply-adds"),
        rows,
        text_columns=2,
    )
