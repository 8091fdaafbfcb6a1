"""The paper's tables from our runs, as plain data: for the page, for Markdown, for CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.config.compare import flatten
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.evaluation.stats import bootstrap_intervals, spread, wilson_interval
from fer_lightning.report import reference
from fer_lightning.report.architecture import Layer
from fer_lightning.report.paper import Comparison, Group, PaperRuns, bound_papers_table_2, right
from fer_lightning.report.tables import duration

SIGNIFICANT = 0.05


class Cell(NamedTuple):
    """One value of a table.

    Attributes:
        shown: For people.
        value: For CSV and for sorting; None where there is none. A pair fills two columns of the CSV.
    """

    shown: str
    value: Any


@dataclass(frozen=True)
class Grid:
    """One table.

    Attributes:
        name: Its files' name.
        title: What it shows.
        note: How to read it.
        headers: One a column.
        rows: Cells, a tuple a row.
        text_columns: How many of the first columns hold words.
    """

    name: str
    title: str
    note: str
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    text_columns: int = 1

    def to_csv(self) -> str:
        """Write the values, not rounded for people; a column of pairs becomes two."""
        pairs = [any(isinstance(row[i].value, tuple) for row in self.rows) for i in range(len(self.headers))]
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            name
            for header, pair in zip(self.headers, pairs, strict=True)
            for name in ((f"{header}, low", f"{header}, high") if pair else (header,))
        )
        for row in self.rows:
            values: list[Any] = []
            for cell, pair in zip(row, pairs, strict=True):
                values += (cell.value or (None, None)) if pair else (cell.value,)
            writer.writerow(values)
        return file.getvalue()

    def to_markdown(self) -> str:
        """Write what is shown, with title and note."""

        def line(cells: Iterable[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

        rule = [":--" if column < self.text_columns else "--:" for column in range(len(self.headers))]
        lines = [line(self.headers), line(rule), *(line(cell.shown for cell in row) for row in self.rows)]
        return "\n".join([f"**{self.title}**", "", *lines, "", self.note, ""])


NOTHING = Cell("—", None)


def table_1(evidence: PaperRuns) -> Grid:
    """Repeat Table 1 with the runs of the paper's recipe."""
    rows = []
    for family, paper in reference.TABLE_1.items():
        groups = [group for group in evidence.block(improved=False) if group.family == family]
        if family == "resnet" and not any(group.pretrained for group in groups):
            rows.append(_absent("ResNet-34 (pre-trained)", "not run here", paper))
        if not groups:
            # Of a ResNet from scratch the paper has no row.
            scratch = family == "resnet"
            label = "ResNet-34 (from scratch)" if scratch else reference.FAMILIES[family]
            rows.append(_absent(label, "not among the runs", None if scratch else paper))
        rows += [
            _measured(group, paper if family != "resnet" or group.pretrained else None) for group in groups
        ]
    rows += [
        _measured(group, None)
        for group in evidence.block(improved=False)
        if group.family not in reference.TABLE_1
    ]
    return Grid(
        "table_1",
        f"Table 1: test accuracy, {evidence.recipe}",
        "Accuracies in percent, means over seeds with their standard deviation (sd). The interval is "
        "Wilson's, 95 %, of that mean on so many images: it tells how far the choice of images reaches, as "
        "the sd tells how far the seed does. The difference is ours minus the paper's, in points, where both "
        "were measured on the same 7,178 images. Leak-free leaves out the images of which a pixel-identical "
        "copy stands in what the network was trained or selected on.",
        _TABLE_1_HEADERS,
        tuple(rows),
        text_columns=2,
    )


_TABLE_1_HEADERS = (
    *("model", "seeds", "ours %", "sd", "95 % interval", "images", "paper %", "difference"),
    *("leak-free %", "leak-free images"),
)


def _absent(label: str, why: str, paper: float | None) -> tuple[Cell, ...]:
    row = dict.fromkeys(_TABLE_1_HEADERS, NOTHING) | {"model": _text(label), "seeds": Cell(why, None)}
    if paper is not None:
        row["paper %"] = _percent(paper)
    return tuple(row.values())


def _measured(group: Group, paper: float | None) -> tuple[Cell, ...]:
    everything, kept = np.ones(group.n, dtype=bool), ~group.predictions[0].leaked
    return (
        _text(group.label),
        _seeds(group),
        *_mean_and_interval(group, everything),
        *_beside(group, paper),
        _mean_and_interval(group, kept)[0],
        _count(int(kept.sum())),
    )


def _beside(group: Group, paper: float | None) -> tuple[Cell, Cell]:
    """Give the paper's number, and the difference where both were measured on the same images."""
    if paper is None:
        return NOTHING, NOTHING
    mean = spread(group.accuracy(np.ones(group.n, dtype=bool))).mean
    return _percent(paper), _points(mean - paper) if group.on_papers_images else NOTHING


def _mean_and_interval(group: Group, images: NDArray[np.bool_]) -> tuple[Cell, Cell, Cell, Cell]:
    n = int(images.sum())
    if not n:
        return NOTHING, NOTHING, NOTHING, _count(0)
    accuracy = spread(group.accuracy(images))
    return (
        _percent(accuracy.mean),
        NOTHING if accuracy.sd is None else _percent(accuracy.sd),
        _interval(wilson_interval(accuracy.mean, n)),
        _count(n),
    )


def improved_table(evidence: PaperRuns) -> Grid | None:
    """Show the runs of the improved recipe on all test images, and on PrivateTest alone."""
    groups = evidence.block(improved=True)
    if not groups:
        return None
    rows = [_measured(group, reference.TABLE_1.get(group.family)) for group in groups]
    headers: tuple[str, ...] = _TABLE_1_HEADERS
    epochs = sorted({str(flatten(group.config).get("trainer.max_epochs", "unknown")) for group in groups})
    note = (
        f"Epochs: {', '.join(epochs)}. What else is not the paper's stands below. The paper's column is its "
        "own Table 1, whose ResNet was pre-trained."
    )
    if groups[0].runs[0].dataset == "fer2013":
        rows = [(*row, *_private_test(group)) for row, group in zip(rows, groups, strict=True)]
        told = ("%", "interval", "images", "leak-free %", "leak-free images")
        headers = (*headers, *(f"PrivateTest {name}" for name in told))
        note += " PrivateTest is the half of the test images that the challenge of 2013 reported."
    title = "Beyond Table 1: the improved recipe"
    return Grid("table_1_improved", title, note, headers, tuple(rows), text_columns=2)


def _private_test(group: Group) -> tuple[Cell, ...]:
    images = np.char.startswith(group.predictions[0].ids, "test/")
    mean, _, interval, n = _mean_and_interval(group, images)
    leak_free, _, _, num_leak_free = _mean_and_interval(group, images & ~group.predictions[0].leaked)
    return mean, interval, n, leak_free, num_leak_free


def table_2(contest: Comparison, classes: Sequence[str], origin: str) -> Grid:
    """Repeat Table 2: our predictors on the sample, the paper's rows below."""
    rows = [_by_class(label, "ours", part) for label, part in contest.predictions.items()]
    leaked = max((int(part.leaked.sum()) for part in contest.predictions.values()), default=0)
    for label, counts in reference.TABLE_2.items():
        right_of = dict(zip(EXPRESSIONS, counts, strict=True))
        n = reference.PER_CLASS * len(counts)
        rows.append(
            (
                _text(label),
                _text("the paper"),
                *(
                    _percent(right_of[name] / reference.PER_CLASS, 0) if name in right_of else NOTHING
                    for name in classes
                ),
                _percent(sum(counts) / n),
                _interval(wilson_interval(sum(counts) / n, n)),
                Cell(f"{sum(counts)} of {n}", sum(counts)),
                NOTHING,
            )
        )
    return Grid(
        "table_2",
        f"Table 2: {contest.n:,} images, networks and language model",
        f"Percent of each class named rightly, on {origin}; a network of several seeds by its first. Of "
        f"these images {leaked:,} have a copy in what a network was trained on. The paper's rows are its own,"
        " on 35 other images that it does not name, so that no difference is taken; GPT-4 Turbo's is a "
        "stored reference and was not asked again. Intervals are Wilson's, 95 %. No answer: images for which "
        "a language model gave none that can be read; they count as wrong.",
        (
            "predictor",
            "whose",
            *classes,
            "overall %",
            "95 % interval",
            "right",
            "no answer",
        ),
        tuple(rows),
        text_columns=2,
    )


def _by_class(label: str, whose: str, part: Predictions) -> tuple[Cell, ...]:
    correct, n = right(part), len(part)
    shares = [
        _percent(float(correct[rows].mean()), 0) if (rows := part.labels == code).any() else NOTHING
        for code in range(len(part.classes))
    ]
    share = float(correct.mean())
    return (
        *(_text(label), _text(whose), *shares),
        *(_percent(share), _interval(wilson_interval(share, n))),
        Cell(f"{int(correct.sum()):,} of {n:,}", int(correct.sum())),
        _count(int((part.predicted < 0).sum())),
    )


def pairs_table(name: str, title: str, contest: Comparison) -> Grid:
    """Show every paired test of a contest."""
    rows = tuple(
        (
            _text(f"{test.first} and {test.second}"),
            _text("apart" if test.p_holm < SIGNIFICANT else "not told apart"),
            _points(test.difference),
            _interval(test.interval, signed=True),
            _count(test.only_first),
            _count(test.only_second),
            _count(test.n),
            Cell(p_value(test.p_value, sign=False), test.p_value),
            Cell(p_value(test.p_holm, sign=False), test.p_holm),
        )
        for test in contest.tests
    )
    return Grid(
        name,
        title,
        "Each pair on the same images: the exact test of McNemar asks whether the images that only one of "
        "the two had right could have fallen either way. The last column is corrected for the number of "
        "pairs (Holm); below 0.05 a pair is told apart. Difference in points, the first minus the second, "
        "with Newcombe's 95 % interval.",
        (
            *("pair", "verdict", "difference", "95 % interval", "only first right", "only second right"),
            *("images", "p", "p, Holm"),
        ),
        rows,
        text_columns=2,
    )


def papers_pairs_table() -> Grid:
    """Show what the paper's own Table 2 can tell apart."""
    rows = tuple(
        (
            _text(f"{bounds.first} and {bounds.second}"),
            _text(bound_verdict(bounds.p_low, bounds.p_high)),
            _points(bounds.difference),
            Cell(p_value(bounds.p_low, sign=False), bounds.p_low),
            Cell(p_value(bounds.p_high, sign=False), bounds.p_high),
        )
        for bounds in bound_papers_table_2()
    )
    return Grid(
        "table_2_papers_pairs",
        "What the paper's own Table 2 can tell apart",
        "The paper does not say which images two predictors both had right, so that its pairs cannot be "
        "tested exactly. But five images a class leave little room: whatever the pairs were, McNemar's exact "
        "p, corrected for ten pairs (Holm), lay between these bounds.",
        ("pair", "verdict", "difference", "p at least", "p at most"),
        rows,
        text_columns=2,
    )


def bound_verdict(p_low: float, p_high: float) -> str:
    """Say what bounds of a p-value decide."""
    if p_high < SIGNIFICANT:
        return "apart"
    return "not told apart" if p_low >= SIGNIFICANT else "depends on the pairs"


def counts_table(evidence: PaperRuns) -> Grid | None:
    """Put the counts that the paper's text names beside ours."""
    rows = []
    for count in reference.COUNTS:
        groups = [group for group in evidence.block(improved=False) if group.family == count.family]
        for group in groups:
            if not group.on_papers_images:
                continue
            test = group.runs[0].metrics["test"]
            matrix = np.array(test["confusion"])
            names = list(test["per_class"])
            ours = [
                int(matrix[slice(None) if true is None else names.index(true), names.index(said)].sum())
                for true, said in count.cells
            ]
            rows.append(
                (
                    _text(group.label),
                    _text(count.words),
                    Cell(" / ".join(f"{images:,}" for images in ours), sum(ours)),
                    _count(count.images),
                )
            )
    if not rows:
        return None
    return Grid(
        "counts",
        "The counts that the paper's text names",
        "Images of the 7,178; ours of the first seed. Of a confusion between two classes the paper does not "
        "say which one was the truth: ours are given both ways. Its ResNet was pre-trained.",
        ("model", "what", "ours", "the paper"),
        tuple(rows),
        text_columns=2,
    )


def calibration_table(evidence: PaperRuns) -> Grid:
    """Show how far confidence is from accuracy."""
    rows = []
    for group in evidence.groups:
        test = group.runs[0].metrics["test"]
        interval = (test.get("ci95") or {}).get("ece")
        if interval is None:
            interval = bootstrap_intervals(group.predictions[0]).get("ece")
        leak_free = (test.get("leak_free") or {}).get("ece")
        confidence = float(group.predictions[0].probs.max(axis=1).mean())
        rows.append(
            (
                _text(group.label),
                NOTHING if test["ece"] is None else _percent(test["ece"]),
                NOTHING if interval is None else _interval((interval[0], interval[1])),
                NOTHING if leak_free is None else _percent(leak_free),
                _percent(confidence),
                _percent(test["acc"]),
                _count(group.n),
            )
        )
    rows += [
        (
            _text(model.label),
            *(NOTHING,) * 4,
            _percent(float(right(model.predictions).mean())),
            _count(len(model.predictions)),
        )
        for model in evidence.language_models
    ]
    return Grid(
        "calibration",
        "Calibration",
        "The calibration error is the mean distance, in points, between the confidence of an answer and how "
        "often such answers are right (15 bins, first seed); its 95 % interval is by bootstrap over images. "
        "A mean confidence above the accuracy is overconfidence. A language model states no confidence.",
        (
            *("model", "calibration error", "95 % interval", "leak-free calibration error"),
            *("mean confidence %", "accuracy %", "images"),
        ),
        tuple(rows),
    )


def cost_table(evidence: PaperRuns, multiply_adds: dict[str, int]) -> Grid:
    """Show what each training run took.

    Args:
        evidence: Its networks.
        multiply_adds: Of one image, by label.
    """
    rows = []
    for group in evidence.groups:
        for run in group.runs:
            info, machine = run.info, run.info.get("machine") or {}
            spent = (info.get("durations") or {}).get("fit_s")
            speed, parameters = info.get("images_per_s"), info.get("num_parameters")
            work = multiply_adds.get(group.label)
            place = [machine.get("cpu"), machine.get("accelerator")]
            rows.append(
                (
                    _text(group.label),
                    _text(", ".join(str(part) for part in place if part) or "unknown"),
                    _count(info.get("seed")),
                    _count(info.get("num_threads")),
                    Cell(duration(spent), spent),
                    _count(None if speed is None else round(speed)),
                    _count(len(info.get("epoch_seconds") or ()) or None),
                    _count(parameters),
                    NOTHING if work is None else Cell(f"{work / 1e6:.1f} M", work),
                    Cell(str(info.get("precision") or "—"), info.get("precision")),
                )
            )
    return Grid(
        "cost",
        "What training took",
        "Time in fit alone. Runs with few threads, or beside others on the same machine, are slower for it: "
        "compare times only between equal rows. Multiply-adds of one image through the network, "
        "convolutions, linear and recurrent layers; a FLOP count is twice that.",
        (
            *("model", "machine", "seed", "threads", "time", "images/s", "epochs", "parameters"),
            *("multiply-adds", "precision"),
        ),
        tuple(rows),
        text_columns=2,
    )


def audit_table(audit: dict[str, Any]) -> Grid:
    """List the figures of ``audit.json``, whichever it holds."""
    shown = {
        "images": audit.get("num_images"),
        "copies": audit.get("copies"),
        "constant": audit.get("constant"),
        "near_duplicates": audit.get("near_duplicates"),
        "median": (audit.get("quality") or {}).get("medians"),
    }
    rows = tuple(
        (_text(key.replace("_", " ").replace(".", ", ")), Cell(f"{value:,}", value))
        for key, value in flatten(shown).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    )
    return Grid(
        "audit",
        "What the data hold",
        "Copies are pixel-identical images; near-duplicates show the same photograph in another crop or "
        "light, or mirrored. Sharpness is the variance of the Laplacian: it falls where images were blurred.",
        ("figure", "value"),
        rows,
    )


def layers_table(label: str, name: str, layers: Sequence[Layer]) -> Grid:
    """List the layers of one network."""
    rows = tuple(
        (
            _text(layer.name),
            _text(", ".join((layer.kind, *layer.followed_by))),
            Cell(shape(layer.output_shape), shape(layer.output_shape)),
            _count(layer.num_parameters),
            _count(layer.multiply_adds),
        )
        for layer in layers
    )
    return Grid(
        f"layers_{name}",
        f"The layers of {label}",
        "Shapes of one image; a batch norm's parameters stand with the layer before it.",
        ("place", "layer", "output shape", "parameters", "multiply-adds"),
        rows,
        text_columns=2,
    )


def shape(sides: Sequence[int]) -> str:
    """Write a shape as ``64 x 12 x 12``."""
    return " x ".join(map(str, sides)) or "—"


def p_value(p: float, *, sign: bool = True) -> str:
    """Write a p-value for people: ``p < 0.001``, ``p = 0.034``; ``< 0.001``, ``0.034`` without a sign."""
    if p < 0.001:
        return "p < 0.001" if sign else "< 0.001"
    digits = f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
    if digits == f"{SIGNIFICANT:.3f}":  # on which side of it
        digits = f"{p:.4f}"
    return f"p = {digits}" if sign else digits


def _text(words: str) -> Cell:
    return Cell(words, words)


def _percent(share: float, digits: int = 2) -> Cell:
    return Cell(f"{100 * share:.{digits}f}", round(100 * share, 6))


def _points(difference: float) -> Cell:
    return Cell(f"{100 * difference:+.2f}", round(100 * difference, 6))


def _interval(bounds: tuple[float, float], *, signed: bool = False) -> Cell:
    low, high = (round(100 * bound, 6) for bound in bounds)
    sign = "+" if signed else ""
    return Cell(f"{low:{sign}.1f} to {high:{sign}.1f}", (low, high))


def _count(number: int | None) -> Cell:
    return NOTHING if number is None else Cell(f"{number:,}", number)


def _seeds(group: Group) -> Cell:
    seeds = [run.info.get("seed") for run in group.runs]
    return Cell(f"{len(seeds)} ({', '.join(map(str, seeds))})", len(seeds))
