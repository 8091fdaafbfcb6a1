"""The page that repeats the paper: its tables and figures from our runs, headed by the answers in words."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fer_lightning.config.resolve import instantiate, read_yaml
from fer_lightning.core.errors import FERError
from fer_lightning.core.files import naming
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.locate import locate
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.report import figures, html, paper_tables, paper_words, reference
from fer_lightning.report.architecture import Layer, condense, layers_of
from fer_lightning.report.audit import AUDIT_CAPTION, read_audit
from fer_lightning.report.drawing import save
from fer_lightning.report.paper import (
    Comparison,
    Group,
    LanguageModel,
    PaperRuns,
    Sample,
    choose_sample,
    collect,
    compare_predictors,
    leak_free,
)
from fer_lightning.report.paper_tables import Grid
from fer_lightning.report.tables import confusion_counts

_FOLDED_ABOVE = 15  # rows
_NUM_EACH = 12  # images of a class: more would not be read
_TITLE = "Deep Learning for Facial Expression Recognition, repeated"


def write_paper(folders: Sequence[Path], out: Path) -> Path:
    """Repeat every table and figure of the paper from some runs, beside the paper's own numbers.

    Args:
        folders: Run folders of networks (several seeds of each), and of language models if there are any.
        out: Takes ``report.html``, ``tables/`` (Markdown and CSV) and ``figures/`` (PNG and PDF).

    Returns:
        The page.

    Raises:
        FERError: If no run can be used, or if the runs do not compare.
    """
    evidence = collect(folders)
    sample = choose_sample(evidence)
    return _Report(evidence, sample, out).write()


class _Report:
    """A page in the making: what it is made of, and where its files go."""

    def __init__(self, evidence: PaperRuns, sample: Sample | None, out: Path) -> None:
        self.evidence, self.sample, self.out = evidence, sample, out
        firsts = {group.label: group.predictions[0] for group in evidence.groups}
        models = {model.label: model.predictions for model in evidence.language_models}
        self.paper_contest = compare_predictors(self._firsts(improved=False))
        self.improved_contest = compare_predictors(self._firsts(improved=True))
        self.sample_contest = compare_predictors(firsts | models, sample.ids) if sample else None
        self.layers: dict[str, list[Layer]] = {}
        self.not_drawn: list[str] = []
        for group in evidence.groups:
            try:
                self.layers[group.label] = _layers(group)
            except FERError as error:
                self.not_drawn.append(f"Figure 3, {group.label} is missing: {error}.")
        self.data, self.no_data = _load_data(evidence)
        self.audited = next((run for run in evidence.runs if read_audit(run.folder)), None)
        self.audit = read_audit(self.audited.folder) if self.audited else {}
        self.told: set[str] = set()

    def _firsts(self, *, improved: bool) -> dict[str, Predictions]:
        return {group.label: group.predictions[0] for group in self.evidence.block(improved=improved)}

    def write(self) -> Path:
        """Write tables, figures and the page."""
        try:
            (self.out / "tables").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FERError(f"--out {self.out}: {error.strerror}; expected a folder to write into") from error
        runs = self.evidence.runs
        sections = [
            f"<h1>{escape(_TITLE)}</h1>",
            html.paragraph(self._subtitle(), "soft"),
            html.banners(runs),
            *(html.paragraph(warning, "banner bad") for warning in _warnings(self.audit)),
            html.cards(paper_words.headline(self.evidence)),
            self._answers(),
            self._first_table(),
            self._second_table(),
            self._data_figures(),
            self._architectures(),
            self._trust(),
            html.section(
                "Where the paper contradicts itself", *map(html.paragraph, reference.CONTRADICTIONS)
            ),
            html.section("What was left out", *map(html.paragraph, self.evidence.left_out)),
        ]
        return html.write(self.out / "report.html", _TITLE, sections)

    def _subtitle(self) -> str:
        runs = self.evidence.runs
        return (
            f"Every table and figure of Karnati et al. from {len(runs)} runs on {runs[0].dataset}, beside "
            "the paper's own numbers. The tables also lie in tables/ as Markdown and CSV, the figures in "
            "figures/ as PNG and PDF."
        )

    def _answers(self) -> str:
        first = paper_words.answer_first(self.evidence, self.paper_contest, self.improved_contest)
        second = paper_words.answer_second(self.evidence, self.sample_contest)
        return "\n".join(
            (
                html.section(paper_words.FIRST_QUESTION, *map(html.paragraph, first)),
                html.section(paper_words.SECOND_QUESTION, *map(html.paragraph, second)),
            )
        )

    def _first_table(self) -> str:
        evidence, papers, improved = self.evidence, self.paper_contest, self.improved_contest
        return "\n".join(
            (
                html.section(
                    "Accuracy",
                    self._table(paper_tables.table_1(evidence)),
                    *(html.paragraph(note, "soft") for note in _cautions(evidence, improved=False)),
                    self._table(paper_tables.improved_table(evidence)),
                    *(html.paragraph(note, "soft") for note in _cautions(evidence, improved=True)),
                ),
                html.section(
                    "Which differences are real",
                    self._pairs("pairs", f"All test images, {evidence.recipe}, first seed of each", papers),
                    self._pairs(
                        "pairs_improved", "All test images, the improved recipe, first seed of each", improved
                    ),
                    self._pairs(
                        "pairs_leak_free",
                        f"Without leaked copies, {evidence.recipe}, first seed of each",
                        leak_free(papers),
                    ),
                    self._pairs(
                        "pairs_improved_leak_free",
                        "Without leaked copies, the improved recipe, first seed of each",
                        leak_free(improved),
                    ),
                ),
                html.section(
                    "Who is taken for whom",
                    self._panels(improved=False),
                    self._table(paper_tables.counts_table(evidence)),
                    self._panels(improved=True),
                ),
            )
        )

    def _pairs(self, name: str, title: str, contest: Comparison) -> str:
        apart = [html.paragraph(sentence, "soft") for sentence in contest.apart]
        table = self._table(paper_tables.pairs_table(name, title, contest)) if contest.tests else ""
        return "\n".join((table, *filter(self._untold, apart)))

    def _untold(self, words: str) -> bool:
        """Tell whether the page has not said this yet, and note that it now has."""
        fresh = words not in self.told
        self.told.add(words)
        return fresh

    def _panels(self, *, improved: bool) -> str:
        groups = self.evidence.block(improved=improved)
        if not groups:
            return ""
        tests = {f"{group.label}, n = {group.n:,}": group.runs[0].metrics["test"] for group in groups}
        matrices = {label: np.array(test["confusion"]) for label, test in tests.items()}
        bars = {label: test["per_class"] for label, test in tests.items()}
        ending, of_which = ("_improved", ", improved") if improved else ("", "")
        return "\n".join(
            (
                self._figure(
                    f"figure_4_confusion{ending}",
                    figures.confusion_panels(matrices, self.evidence.classes),
                    f"Figure 4{of_which}: who was taken for whom, in images of the first seed; the darker, "
                    "the larger the share of the true class.",
                ),
                self._figure(
                    f"figure_5_per_class{ending}",
                    figures.per_class_panels(bars),
                    f"Figure 5{of_which}: precision (of the images given this name, how many deserved it), "
                    "recall (of those that deserve it, how many were given it) and F1, first seed.",
                ),
            )
        )

    def _second_table(self) -> str:
        contest, parts = self.sample_contest, []
        if contest and self.sample and contest.predictions:
            grid = paper_tables.table_2(contest, self.evidence.classes, self.sample.origin)
            parts = [self._table(grid), *(html.paragraph(sentence, "soft") for sentence in contest.apart)]
            parts.append(self._sample_figure(self.sample))
            title = f"The {contest.n:,} images of Table 2, ours"
            parts.append(
                self._table(paper_tables.pairs_table("table_2_pairs", title, contest))
                if contest.tests
                else ""
            )
        else:
            parts.append(
                html.paragraph("There is no sample: too few images of a class were shown to every network.")
            )
        for model in self.evidence.language_models:
            parts.append(self._language_model(model))
        parts.append(self._table(paper_tables.papers_pairs_table()))
        return html.section("Networks and language model", *parts)

    def _sample_figure(self, sample: Sample) -> str:
        if self.data is None:
            return html.paragraph(f"Figure 6 is missing: {self.no_data}", "soft")
        missing = ~np.isin(sample.ids, self.data.faces.ids)
        if missing.any():
            return html.paragraph(
                f"Figure 6 is missing: {int(missing.sum()):,} images of the sample are not in the data, the "
                f"first: {sample.ids[missing][0]}.",
                "soft",
            )
        rows = np.flatnonzero(np.isin(self.data.faces.ids, sample.ids))
        labels = self.data.faces.labels[rows]
        most = int(np.bincount(labels).max())
        num_each = min(most, _NUM_EACH)
        shown = f"the first {num_each} of each class of " if num_each < most else ""
        figure = figures.samples_per_class(
            self.data.faces.images[rows], labels, self.data.classes, num_each=num_each
        )
        return self._figure(
            "figure_6_sample", figure, f"Figure 6: {shown}{sample.origin}; a row a true class."
        )

    def _language_model(self, model: LanguageModel) -> str:
        name = _file_name(model.label)
        matrix = figures.confusion_matrix(
            confusion_counts(model.run.measured), self.evidence.classes, normalise=False
        )
        n = len(model.predictions)
        return self._figure(f"confusion_{name}", matrix, f"{model.label}: who was taken for whom, n = {n:,}.")

    def _data_figures(self) -> str:
        facts = self.evidence.runs[0].info.get("data") or {}
        counts = {split: some for split, some in (facts.get("counts") or {}).items() if any(some.values())}
        parts = [html.paragraph(facts.get("summary") or "")]
        if counts:
            caption = "Figure 1: how each split divides among the classes."
            parts.append(
                self._figure("figure_1_class_distribution", figures.class_distribution(counts), caption)
            )
        if self.data is None:
            parts.append(html.paragraph(f"Figure 2 is missing: {self.no_data}", "soft"))
        else:
            train, faces = self.data.rows["train"], self.data.faces
            figure = figures.samples_per_class(faces.images[train], faces.labels[train], self.data.classes)
            parts.append(self._figure("figure_2_samples", figure, "Figure 2: training images of each class."))
        if self.audit:
            parts += [self._table(paper_tables.audit_table(self.audit)), self._audit_examples()]
        else:
            parts.append(html.paragraph("No run brought an audit.json: the data were not audited.", "soft"))
        return html.section("The data", *parts)

    def _audit_examples(self) -> str:
        """Show the worst of the data, as the page of the run that was audited does."""
        return html.figure(self.audited, "audit", AUDIT_CAPTION) if self.audited else ""

    def _architectures(self) -> str:
        drawn, listed = [], []
        for label, layers in self.layers.items():
            name = _file_name(label)
            parameters = sum(layer.num_parameters for layer in layers)
            work = sum(layer.multiply_adds for layer in layers)
            boxes = [
                (
                    f"{count} x {layer.kind}" if count > 1 else layer.kind,
                    paper_tables.shape(layer.output_shape),
                    f"{layer.num_parameters:,}" if layer.num_parameters else "",
                    f"{layer.multiply_adds:,}" if layer.multiply_adds else "",
                )
                for count, layer in condense(layers)
            ]
            drawn.append(
                self._figure(
                    f"figure_3_{name}",
                    figures.architecture(boxes),
                    f"Figure 3, {label}: {parameters:,} parameters, {work / 1e6:.1f} M multiply-adds "
                    f"({2 * work / 1e6:.1f} MFLOPs) an image{_not_counted(layers)}.",
                )
            )
            listed.append(self._table(paper_tables.layers_table(label, name, layers), folded=True))
        note = (
            "Drawn from the networks themselves. Equal neighbours share a box with their sums; "
            "normalisation, activation and dropout stand with the layer before them. The paper's own figure "
            "is a picture that its text lacks, so that the sizes of MLP, CNN and RNN are ours."
        )
        return html.section(
            "The architectures",
            html.paragraph(note, "soft"),
            html.side_by_side(*drawn),
            *(html.paragraph(sentence, "soft") for sentence in self.not_drawn),
            *listed,
        )

    def _trust(self) -> str:
        work = {label: sum(layer.multiply_adds for layer in layers) for label, layers in self.layers.items()}
        return html.section(
            "Calibration and cost",
            self._table(paper_tables.calibration_table(self.evidence)),
            self._table(paper_tables.cost_table(self.evidence, work)),
        )

    def _table(self, grid: Grid | None, *, folded: bool = False) -> str:
        """Save a table as Markdown and CSV, and give its markup; a note is told once, a long table folded."""
        if grid is None:
            return ""
        place = self.out / "tables"
        for path, text in (
            (place / f"{grid.name}.md", grid.to_markdown()),
            (place / f"{grid.name}.csv", grid.to_csv()),
        ):
            with naming(path):
                path.write_text(text, encoding="utf-8")
        rows = [[(cell.shown, _sort_key(cell.value)) for cell in row] for row in grid.rows]
        table = html.table(grid.headers, rows, text_columns=grid.text_columns, label=grid.title)
        note = html.paragraph(grid.note if self._untold(grid.note) else "", "soft")
        title = escape(grid.title)
        if folded or len(rows) > _FOLDED_ABOVE:
            return f"<details><summary>{title} ({len(rows)} rows)</summary>{table}\n{note}</details>"
        return f"<h3>{title}</h3>\n{table}\n{note}"

    def _figure(self, name: str, figure: Figure, caption: str) -> str:
        """Save a figure as PNG and PDF, and give its markup."""
        for ending in ("png", "pdf"):
            save(figure, self.out / "figures" / f"{name}.{ending}")
        return html.image(self.out / "figures" / f"{name}.png", name.replace("_", " "), caption)


def _warnings(audit: Mapping[str, Any]) -> list[str]:
    """Give the sentences of an ``audit.json``, which other versions may have written otherwise."""
    found = audit.get("warnings")
    return [str(warning) for warning in found] if isinstance(found, list) else []


def _file_name(label: str) -> str:
    """Spell a label so that every system takes it for a file's name."""
    return re.sub("[^a-z0-9]+", "_", label.lower()).strip("_")


def _sort_key(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


def _cautions(evidence: PaperRuns, *, improved: bool) -> list[str]:
    """Say what keeps each row of one recipe from being the paper's experiment."""
    told = []
    for group in evidence.block(improved=improved):
        reasons = list(group.departures)
        if not group.on_papers_data:
            reasons.append(
                f"its data are not FER-2013 as published (fingerprint {group.fingerprint}), so "
                "that no difference is taken"
            )
        elif not group.on_papers_images:
            reasons.append(
                f"tested on {group.n:,} images of {group.runs[0].dataset} that are not the paper's "
                f"{reference.NUM_TEST:,}, so that no difference is taken"
            )
        if len(group.runs) == 1:
            reasons.append("run with one seed, so that how much the seed matters is not known")
        if reasons:
            told.append(f"{group.label}: {'; '.join(reasons)}.")
    return told


def _not_counted(layers: Sequence[Layer]) -> str:
    kinds = dict.fromkeys(layer.kind for layer in layers if not layer.counted)
    return f"; multiply-adds not counted: {', '.join(kinds)}" if kinds else ""


def _layers(group: Group) -> list[Layer]:
    """Build a group's network, with random weights, and list its layers.

    Raises:
        FERError: If its config does not tell how, or the network cannot be built or take an image.
    """
    folder = group.runs[0].folder
    node: Mapping[str, Any] = group.config.get("model") or {}
    size = (group.config.get("data") or {}).get("image_size") or node.get("image_size")
    if "_target_" not in node or size is None:
        raise FERError(f"{folder}/config.yaml names no model._target_, or no data.image_size")
    node = dict(node) | ({"pretrained": False} if "pretrained" in node else {})  # no download for a drawing
    try:
        return layers_of(instantiate(node), (node.get("in_channels", 1), size, size))
    except Exception as error:  # a model of one's own may fail in any way, and the report does without it
        raise FERError(
            f"the network of {folder} cannot be built ({type(error).__name__}: {error})"
        ) from error


def _load_data(evidence: PaperRuns) -> tuple[FERDataModule | None, str]:
    """Open the runs' data set where it can still be found, or say why not."""
    config, run = next(
        (
            (found, run)
            for run in evidence.runs
            if (found := (read_yaml(run.folder / "config.yaml") or {}).get("data"))
        ),
        (None, evidence.runs[0]),
    )
    if not config or "_target_" not in config:
        return None, "no run tells which data it used."
    expected = (run.info.get("data") or {}).get("fingerprint")
    try:
        if config.get("root") is not None and not Path(config["root"]).exists():
            config = locate(config | {"root": None, "download": False}, log=lambda _: None)
        data: FERDataModule = instantiate(config)
        data.setup()
    except FERError as error:
        return None, f"the data were not found again ({error})."
    if expected and data.faces.fingerprint != expected:
        return None, f"the data found ({config.get('root')}) are not those of the runs."
    return data, ""
