"""Table 2 and the paired tests, ours and the paper's."""

from collections.abc import Sequence

from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.evaluation.stats import wilson_interval
from fer_lightning.report.paper import reference
from fer_lightning.report.paper.comparison import Comparison, is_significant, paper_table_2_bounds
from fer_lightning.report.paper.table import (
    EMPTY_CELL,
    Cell,
    PaperTable,
    count_cell,
    interval_cell,
    p_value_cell,
    percent_cell,
    points_cell,
    text_cell,
)


def table_2(comparison: Comparison, classes: Sequence[str], origin: str) -> PaperTable:
    """Reproduce Table 2: our predictors on the sample, then the paper's rows."""
    rows = [_our_row(label, part) for label, part in comparison.predictions.items()]
    rows += [_papers_row(label, counts, classes) for label, counts in reference.TABLE_2.items()]
    leaked = max((int(part.leaked.sum()) for part in comparison.predictions.values()), default=0)
    return PaperTable(
        "table_2",
        f"Table 2: {comparison.num_images:,} images, networks and language models",
        f"Recall per class (%) on {origin}; first seed of each network. Of these images {leaked:,} are "
        "duplicates of images that a network was trained on. The paper's rows are its own, on 35 other "
        "images that it does not list, so no difference is given; GPT-4 Turbo's row is a stored reference, "
        "not a new evaluation. The 95 % CI is Wilson's. No answer: images for which a language model gave no "
        "readable answer; they count as wrong.",
        ("predictor", "source", *classes, "overall %", "95 % CI", "correct", "no answer"),
        tuple(rows),
        text_columns=2,
    )


def _our_row(label: str, part: Predictions) -> tuple[Cell, ...]:
    correct, n = part.correct, len(part)
    recalls = [
        percent_cell(float(correct[rows].mean()), 0) if (rows := part.labels == code).any() else EMPTY_CELL
        for code in range(len(part.classes))
    ]
    num_correct = int(correct.sum())
    return (
        text_cell(label),
        text_cell("ours"),
        *recalls,
        percent_cell(num_correct / n),
        interval_cell(wilson_interval(num_correct / n, n)),
        Cell(f"{num_correct:,} of {n:,}", num_correct),
        count_cell(int((part.predicted < 0).sum())),
    )


def _papers_row(label: str, counts: Sequence[int], classes: Sequence[str]) -> tuple[Cell, ...]:
    correct_of = dict(zip(EXPRESSIONS, counts, strict=True))
    recalls = [
        percent_cell(correct_of[name] / reference.PER_CLASS, 0) if name in correct_of else EMPTY_CELL
        for name in classes
    ]
    num_correct, n = sum(counts), reference.PER_CLASS * len(counts)
    return (
        text_cell(label),
        text_cell("the paper"),
        *recalls,
        percent_cell(num_correct / n),
        interval_cell(wilson_interval(num_correct / n, n)),
        Cell(f"{num_correct} of {n}", num_correct),
        EMPTY_CELL,
    )


def pairs_table(name: str, title: str, comparison: Comparison) -> PaperTable:
    """Make a table of every paired test of a comparison."""
    rows = tuple(
        (
            text_cell(f"{test.first} and {test.second}"),
            text_cell("significant" if is_significant(test) else "n.s."),
            points_cell(test.difference),
            interval_cell(test.interval, signed=True),
            count_cell(test.only_first),
            count_cell(test.only_second),
            count_cell(test.n),
            p_value_cell(test.p_value),
            p_value_cell(test.p_holm),
        )
        for test in comparison.tests
    )
    headers = (
        "pair",
        "verdict",
        "difference",
        "95 % CI",
        "only first",
        "only second",
        "images",
        "p",
        "p, Holm",
    )
    return PaperTable(
        name,
        title,
        "Each pair is compared on the same images with McNemar's exact test, which uses the images that only "
        "the first or only the second has correct. The last column is corrected for the number of pairs "
        "(Holm); below 0.05 the difference is significant, otherwise it is not (n.s.). Difference: the first "
        "minus the second, in points, with Newcombe's 95 % CI.",
        headers,
        rows,
        text_columns=2,
    )


def papers_pairs_table() -> PaperTable:
    """Make a table of the differences in the paper's own Table 2."""
    rows = tuple(
        (
            text_cell(f"{bounds.first} and {bounds.second}"),
            text_cell(bounds.verdict),
            points_cell(bounds.difference),
            p_value_cell(bounds.p_low),
            p_value_cell(bounds.p_high),
        )
        for bounds in paper_table_2_bounds()
    )
    return PaperTable(
        "table_2_papers_pairs",
        "Significance of the differences in the paper's own Table 2",
        "The paper does not report which images two predictors both have correct, so its pairs cannot be "
        "tested exactly. But five images per class leave few possibilities: whichever they were, McNemar's "
        "exact p-value, corrected for ten pairs (Holm), lies between these bounds. Undetermined: the bounds "
        "are on different sides of 0.05.",
        ("pair", "verdict", "difference", "p at least", "p at most"),
        rows,
        text_columns=2,
    )
