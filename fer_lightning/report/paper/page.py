"""The report's page: all tables and figures, headed by the answers to the paper's questions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fer_lightning.core.errors import FERError
from fer_lightning.core.names import dataset_title
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.report.architecture import Layer
from fer_lightning.report.audit_section import AUDIT_CAPTION
from fer_lightning.report.order import joined
from fer_lightning.report.paper import (
    accuracy_tables,
    answers,
    comparison_tables,
    page_figures,
    reference,
    supplementary_tables,
)
from fer_lightning.report.paper.comparison import (
    Comparison,
    Sample,
    choose_sample,
    compare_predictors,
    leak_free,
)
from fer_lightning.report.paper.dataset import DatasetImages, LoadImages, load_dataset
from fer_lightning.report.paper.output import ReportFiles, TitledTable, file_name
from fer_lightning.report.paper.runs import NetworkResults, PaperRuns, collect_runs
from fer_lightning.report.paper.table import PaperTable
from fer_lightning.report.rendering import render_page, run_banners, run_figure
from fer_lightning.report.run_results import RunResults, read_audit

_TITLE = "Reproduction report: Karnati et al., Deep Learning for Facial Expression Recognition"


def write_paper(folders: Sequence[Path], out: Path, load_images: LoadImages) -> Path:
    """Reproduce every table and figure of the paper from some runs, and return the page.

    Args:
        folders: Run folders of networks (several seeds of each), and of language models if there are any.
        out: Folder for ``report.html``, ``tables/`` (Markdown, CSV and LaTeX) and ``figures/`` (PNG, PDF and
            SVG).
        load_images: Loads the data set of the runs, for the figures that show images.

    Raises:
        FERError: No run can be used, or the runs are not comparable.
    """
    runs = collect_runs(folders)
    sample = choose_sample(runs)
    papers = compare_predictors(_first_seeds(runs.with_recipe(improved=False)))
    improved = compare_predictors(_first_seeds(runs.with_recipe(improved=True)))
    on_sample = _compare_on_sample(runs, sample) if sample else None
    layers, no_layers = _network_layers(runs)
    dataset = load_dataset(runs, load_images)

    # In the order of the page: a note that several tables share is shown with the first of them.
    files = ReportFiles(out, runs.runs)
    context: dict[str, Any] = {
        "questions": answers.answered_questions(runs, papers, improved, on_sample),
        "main_figure": page_figures.accuracy(files, runs),
        "data": _data(files, runs, dataset),
        "architectures": _architectures(files, runs, layers) | {"missing": no_layers},
        "accuracy": _accuracy(files, runs),
        "significance": _significance(files, runs, papers, improved),
        "confusion": _confusion(files, runs),
        "sample": _sample(files, runs, on_sample, sample, dataset),
        "llm_figures": [page_figures.llm_confusion(files, llm, runs.classes) for llm in runs.llms],
        "papers_pairs": files.save_table(comparison_tables.papers_pairs_table(), ours=False),
        "calibration": files.save_table(supplementary_tables.calibration_table(runs)),
        "cost": _cost(files, runs, layers),
    }
    return render_page(
        out / "report.html",
        "paper.html",
        title=_TITLE,
        num_runs=len(runs.runs),
        dataset=dataset_title(runs.runs[0].dataset),
        warnings=_banners(runs),
        no_results=runs.no_results,
        headline=answers.headline_cards(runs),
        contradictions=reference.CONTRADICTIONS,
        left_out=runs.left_out,
        **context,
    )


def _banners(runs: PaperRuns) -> list[tuple[str, bool]]:
    """Return what keeps the numbers from being results that compare with the paper's, all as failures."""
    limits = [*(text for text, _ in run_banners(runs.runs)), *answers.other_images(runs)]
    return [(text, True) for text in limits] + _audit_warnings(_audited_run(runs))


def _first_seeds(networks: Sequence[NetworkResults]) -> dict[str, Predictions]:
    return {network.label: network.predictions[0] for network in networks}


def _compare_on_sample(runs: PaperRuns, sample: Sample) -> Comparison:
    llms = {llm.label: llm.predictions for llm in runs.llms}
    return compare_predictors(_first_seeds(runs.networks) | llms, sample.ids)


def _network_layers(runs: PaperRuns) -> tuple[dict[str, list[Layer]], list[str]]:
    """List the layers of each network by label; return also a sentence on each that cannot be built."""
    layers, missing = {}, []
    for network in runs.networks:
        try:
            layers[network.label] = page_figures.network_layers(network)
        except FERError as error:
            missing.append(f"Figure 3, {network.label} is missing: {error}.")
    return layers, missing


def _audited_run(runs: PaperRuns) -> RunResults | None:
    return next((run for run in runs.runs if read_audit(run.folder)), None)


def _audit_warnings(run: RunResults | None) -> list[tuple[str, bool]]:
    """Return the warnings in ``audit.json`` as banners; files of other versions may lack them."""
    warnings = read_audit(run.folder).get("warnings") if run else None
    return [(str(warning), True) for warning in warnings] if isinstance(warnings, list) else []


def _accuracy(files: ReportFiles, runs: PaperRuns) -> dict[str, Any]:
    return {
        "table": files.save_table(accuracy_tables.table_1(runs)),
        "cautions": _cautions(runs, improved=False),
        "curves": page_figures.learning_curves(files, runs, improved=False),
        "improved_table": _save_if_any(files, accuracy_tables.improved_table(runs)),
        "improved_cautions": _cautions(runs, improved=True),
        "improved_curves": page_figures.learning_curves(files, runs, improved=True),
    }


def _cautions(runs: PaperRuns, *, improved: bool) -> list[str]:
    """List how the rows of one recipe differ from the paper's experiment; what they share is said once."""
    networks = runs.with_recipe(improved=improved)
    concerned: dict[str, list[str]] = {}
    for network in networks:
        for reason in _reasons(network):
            concerned.setdefault(reason, []).append(network.label)
    grouped: dict[tuple[str, ...], list[str]] = {}
    for reason, labels in concerned.items():
        grouped.setdefault(tuple(labels), []).append(reason)
    sentences = []
    for sharing, reasons in grouped.items():
        everyone = len(sharing) == len(networks) > 1
        count = {3: "three", 4: "four"}.get(len(sharing), len(sharing))
        who = joined(sharing)
        if everyone:
            who = "Both" if len(sharing) == 2 else f"All {count}"
        sentences.append(f"{who}: {'; '.join(reasons)}.")
    return sentences


def _reasons(network: NetworkResults) -> list[str]:
    reasons = list(network.departures)
    if not network.on_papers_data:
        reasons.append(
            f"its data are not FER-2013 as published (fingerprint {network.fingerprint}), so no "
            "difference is given"
        )
    elif not network.on_papers_images:
        reasons.append(
            f"tested on {answers.num_images(network)} images of the paper, so no difference is given"
        )
    if len(network.runs) == 1:
        reasons.append("single seed, so the training variance is unknown")
    return reasons


def _significance(
    files: ReportFiles, runs: PaperRuns, papers: Comparison, improved: Comparison
) -> list[dict[str, Any]]:
    of_improved = "the improved recipe"
    everything, without = "All test images", "Without leaked duplicates"
    return [
        _pairs(files, "pairs", f"{everything}, {runs.recipe}", papers),
        _pairs(files, "pairs_improved", f"{everything}, {of_improved}", improved),
        _pairs(files, "pairs_leak_free", f"{without}, {runs.recipe}", leak_free(papers)),
        _pairs(files, "pairs_improved_leak_free", f"{without}, {of_improved}", leak_free(improved)),
    ]


def _pairs(files: ReportFiles, name: str, title: str, comparison: Comparison) -> dict[str, Any]:
    table = comparison_tables.pairs_table(name, f"{title}, first seed of each", comparison)
    return {
        "table": files.save_table(table) if comparison.tests else None,
        "excluded": [sentence for sentence in comparison.excluded if files.is_new(sentence)],
    }


def _confusion(files: ReportFiles, runs: PaperRuns) -> dict[str, Any]:
    return {
        "figures": page_figures.confusion_and_scores(files, runs, improved=False),
        "counts": _save_if_any(files, accuracy_tables.counts_table(runs)),
        "improved_figures": page_figures.confusion_and_scores(files, runs, improved=True),
    }


def _sample(
    files: ReportFiles,
    runs: PaperRuns,
    comparison: Comparison | None,
    sample: Sample | None,
    dataset: DatasetImages | str,
) -> dict[str, Any] | None:
    """Prepare Table 2, its images and its tests; None if there is no sample."""
    if sample is None or comparison is None or not comparison.predictions:
        return None
    title = f"The {comparison.num_images:,} images of Table 2, ours"
    pairs = comparison_tables.pairs_table("table_2_pairs", title, comparison)
    return {
        "table": files.save_table(comparison_tables.table_2(comparison, runs.classes, sample.origin)),
        "excluded": comparison.excluded,
        "figure": page_figures.sample_images(files, dataset, sample),
        "pairs": files.save_table(pairs) if comparison.tests else None,
    }


def _data(files: ReportFiles, runs: PaperRuns, dataset: DatasetImages | str) -> dict[str, Any]:
    audited = _audited_run(runs)
    audit = supplementary_tables.audit_table(read_audit(audited.folder)) if audited else None
    return {
        "summary": (runs.runs[0].info.get("data") or {}).get("summary"),
        "class_distribution": page_figures.class_distribution(files, runs),
        "samples": page_figures.training_samples(files, dataset),
        "audit": _save_if_any(files, audit),
        "audit_examples": run_figure(audited, "audit", AUDIT_CAPTION) if audited else None,
    }


def _architectures(
    files: ReportFiles, runs: PaperRuns, layers: Mapping[str, Sequence[Layer]]
) -> dict[str, Any]:
    """Prepare Figure 3 and the lists of layers; equal networks of one family share theirs."""
    labels: dict[tuple[str, tuple[Layer, ...]], list[str]] = {}
    for network in runs.networks:
        if network.label in layers:
            labels.setdefault((network.family, tuple(layers[network.label])), []).append(network.label)
    found = [(joined(same), file_name(same[0]), listed) for (_, listed), same in labels.items()]
    return {
        "figures": [page_figures.architecture(files, *each) for each in found],
        "tables": [files.save_table(supplementary_tables.layers_table(*each), folded=True) for each in found],
    }


def _cost(files: ReportFiles, runs: PaperRuns, layers: Mapping[str, Sequence[Layer]]) -> TitledTable:
    multiply_adds = {label: sum(layer.multiply_adds for layer in listed) for label, listed in layers.items()}
    return files.save_table(supplementary_tables.cost_table(runs, multiply_adds))


def _save_if_any(files: ReportFiles, table: PaperTable | None) -> TitledTable | None:
    return files.save_table(table) if table else None
