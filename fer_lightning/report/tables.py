"""Tables of one run: for the terminal, and as rows for its page."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fer_lightning.core.metrics import METRICS
from fer_lightning.evaluation.stats import wilson_interval
from fer_lightning.report.run_results import (
    reported_split,
)

_MAX_LISTED_CLASSES = 30  # of a confusion matrix in the terminal


def percent(value: float | None, digits: int = 1) -> str:
    """Format a fraction in [0, 1] as a percentage without the percent sign; None becomes a dash."""
    return "—" if value is None else f"{100 * value:.{digits}f}"


def metric_value(value: float | None, unit: str) -> str:
    """Format a metric: a fraction as a percentage without the sign, another number with four decimals."""
    if value is None or unit == "%":
        return percent(value, 2)
    return f"{value:.4f}"


def metric_rows(split_metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield for each of ``METRICS`` its title with unit, value, 95 % CI and both leak-free values.

    Absent ones are dashes.

    Args:
        split_metrics: A split's part of ``metrics.json``.
    """
    intervals, leak_free, near = (
        split_metrics.get(key) or {} for key in ("ci95", "leak_free", "leak_free_near")
    )
    for metric in METRICS:
        interval = intervals.get(metric.key)
        low_high = (
            "-".join(metric_value(bound, metric.unit) for bound in interval) if interval else percent(None)
        )
        yield (
            f"{metric.title}, %" if metric.unit else metric.title,
            metric_value(split_metrics.get(metric.key), metric.unit),
            low_high,
            metric_value(leak_free.get(metric.key), metric.unit),
            metric_value(near.get(metric.key), metric.unit),
        )


def calibration_sentence(metrics: Mapping[str, Any], split: str | None) -> str:
    """Say how a temperature changes the calibration error of a split; empty if there is none.

    Args:
        metrics: The content of ``metrics.json``.
        split: The reported split.
    """
    calibration = metrics.get("calibration") or {}
    measured = calibration.get(split)
    if not isinstance(measured, Mapping):
        return ""
    before, after = (percent(measured.get(key), 2) for key in ("ece_before", "ece_after"))
    return (
        f"With the temperature {calibration['temperature']:.3g}, chosen on {calibration.get('fitted_on')} "
        f"for predict and exports, the calibration error is {after} points instead of {before}."
    )


def duration(seconds: float | None) -> str:
    """Format a time in seconds: ``7.3 s``, ``2 min 05 s``, ``3 h 20 min``."""
    if seconds is None:
        return "—"
    if seconds < 59.95:  # above that, one decimal would round to 60.0
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 10:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class Headline(NamedTuple):
    """One of a run's main results.

    Attributes:
        name: What it is.
        value: Its value, with its unit.
        details: At most two short texts, such as its CI and the number of images.
        explanation: What it means or why it is missing; mostly empty.
    """

    name: str
    value: str
    details: tuple[str, ...] = ()
    explanation: str = ""

    @property
    def note(self) -> str:
        """Details and explanation in one line."""
        first, *others = self.details or ("",)
        return ", ".join(part for part in (first, self.explanation, *others) if part)


def headline(metrics: dict[str, Any]) -> list[Headline]:
    """Return the main results of a run.

    Args:
        metrics: The content of ``metrics.json``, possibly empty.
    """
    split = reported_split(metrics)
    if split is None:
        return []
    measured = metrics[split]
    facts = [*_accuracies(split, measured), *_leak_free_accuracies(split, measured)]
    if reasons := measured.get("no_answer"):
        listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
        value = f"{sum(reasons.values()):,} of {measured['n']:,} images"
        facts.append(Headline("no answer", value, (f"they count as wrong: {listed}",)))
    validation = metrics.get("val") or {}
    if split != "val" and validation.get("acc") is not None:
        value = f"{percent(validation['acc'], 2)} %"
        facts.append(Headline("val accuracy", value, (f"n = {validation['n']:,}",)))
    if metrics.get("limited"):
        facts.append(Headline("limited run", "not results", (", ".join(metrics["limited"]),)))
    if metrics.get("best_epoch") is not None:
        last = metrics.get("selected_by") == "last"
        details = ("last epoch", "nothing was selected") if last else (f"best {metrics.get('selected_by')}",)
        facts.append(Headline("checkpoint", f"epoch {metrics['best_epoch'] + 1}", details))
    return facts


def _accuracies(split: str, measured: dict[str, Any]) -> Iterator[Headline]:
    if measured.get("acc") is not None:
        details = (*_interval(measured, "acc"), f"n = {measured['n']:,}")
        yield Headline(f"{split} accuracy", f"{percent(measured['acc'], 2)} %", details)
    if measured.get("f1_macro") is not None:
        macro = f"macro accuracy {percent(measured.get('acc_macro'), 2)} %"
        details = (*_interval(measured, "f1_macro"), macro)
        yield Headline(f"{split} macro F1", f"{percent(measured['f1_macro'], 2)} %", details)


def _leak_free_accuracies(split: str, measured: dict[str, Any]) -> Iterator[Headline]:
    for key, suffix, excluded in (
        ("leak_free", "", "excluding duplicates of train/val images"),
        ("leak_free_near", " (near)", "excluding near-duplicates too"),
    ):
        name, part = f"leak-free {split} accuracy{suffix}", measured.get(key) or {}
        if part.get("acc") is not None:
            details = (*_interval(part, "acc"), f"n = {part['n']:,}")
            yield Headline(name, f"{percent(part['acc'], 2)} %", details, excluded)
        elif reason := measured.get(f"{key}_reason"):
            yield Headline(name, "—", (), reason)


def headline_facts(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the main results of a run as triples of name, value and note.

    Args:
        metrics: The content of ``metrics.json``, possibly empty.
    """
    return [(fact.name, fact.value, fact.note) for fact in headline(metrics)]


def accuracy_sentence(metrics: dict[str, Any]) -> str:
    """Say the accuracy of a run in a line; a limited run and synthetic faces are named.

    Args:
        metrics: The content of ``metrics.json``, possibly empty.
    """
    split = reported_split(metrics)
    if split is None or metrics[split].get("acc") is None:
        return "nothing was measured"
    measured = metrics[split]
    faces = " on synthetic faces" if metrics.get("synthetic") else ""
    details = ", ".join([*_interval(measured, "acc"), f"n = {measured['n']:,}"])
    text = f"{split} accuracy{faces} {percent(measured['acc'], 2)} % ({details})"
    leak_free = measured.get("leak_free") or {}
    if leak_free.get("acc") is not None and leak_free.get("n") != measured["n"]:
        text += f", leak-free {percent(leak_free['acc'], 2)} %"
    return f"limited run, not results: {text}" if metrics.get("limited") else text


def _interval(split_metrics: dict[str, Any], key: str) -> Iterator[str]:
    """Yield the CI of a metric, if it is known; older files without ``ci95`` allow only that of ``acc``."""
    interval = (split_metrics.get("ci95") or {}).get(key)
    if interval is None and key == "acc":
        interval = accuracy_interval(split_metrics)
    if interval:
        yield f"95 % CI {percent(interval[0])}-{percent(interval[1])}"


def accuracy_interval(split_metrics: Mapping[str, Any]) -> tuple[float, float]:
    """Return the recorded 95 % CI of a split's accuracy, else Wilson's; both bounds in [0, 1]."""
    recorded = (split_metrics.get("ci95") or {}).get("acc")
    low, high = recorded or wilson_interval(split_metrics["acc"], split_metrics["n"])
    return low, high


def headline_table(metrics: dict[str, Any], title: str = "") -> Table:
    """Make a table of the main results of a run, from the content of ``metrics.json``."""
    table = Table(title=Text(title), title_justify="left", show_header=False, box=None)
    for name, value, note in headline_facts(metrics):
        table.add_row(Text(name), Text(value, style="bold"), Text(note, style="dim"))
    return table


def per_class_headers(split_metrics: dict[str, Any]) -> list[str]:
    """Return the column headers of ``per_class_rows``."""
    headers = ["class", "precision %", "recall %", "F1 %", "one-vs-rest acc %"]
    if split_metrics.get("no_answer"):
        headers.append("no answer")
    return [*headers, "images"]


def per_class_rows(split_metrics: dict[str, Any]) -> Iterator[tuple[str, list[float | None], list[int]]]:
    """Yield the name, the scores and the counts of each class of a split.

    The scores are precision, recall, F1 and one-vs-rest accuracy, in [0, 1] or None. The counts are the
    unanswered images, if the split has any, and all images.
    """
    keys = ["no_answer", "n"] if split_metrics.get("no_answer") else ["n"]
    for name, entry in (split_metrics.get("per_class") or {}).items():
        scores = [entry.get(key) for key in ("precision", "recall", "f1", "acc_ovr")]
        yield name, scores, [entry.get(key, 0) for key in keys]


def per_class_table(split_metrics: dict[str, Any], title: str = "") -> Table:
    """Make a table of the results per class.

    Args:
        split_metrics: One split of ``metrics.json``.
        title: Title above the table.
    """
    table = Table(title=Text(title), title_justify="left")
    for index, header in enumerate(per_class_headers(split_metrics)):
        table.add_column(header, justify="right" if index else "left")
    for name, scores, counts in per_class_rows(split_metrics):
        table.add_row(Text(name), *map(percent, scores), *(f"{count:,}" for count in counts))
    return table


def confusion_counts(split_metrics: dict[str, Any]) -> NDArray[np.int64]:
    """Return ``(C, C + 1)`` numbers of images, rows true, columns predicted, the last column unanswered."""
    unanswered = [entry.get("no_answer", 0) for entry in split_metrics["per_class"].values()]
    return np.column_stack([np.array(split_metrics["confusion"], np.int64), unanswered])


def frequent_confusions(split_metrics: Mapping[str, Any]) -> str:
    """Name the three most frequent confusions of a split, in a sentence."""
    confusion = split_metrics.get("confusion")
    counts = np.zeros((0, 0)) if confusion is None or not len(confusion) else np.array(confusion)
    classes = list(split_metrics.get("per_class") or {})
    np.fill_diagonal(counts, 0)
    pairs = [divmod(int(index), len(classes)) for index in np.argsort(-counts, axis=None, kind="stable")[:3]]
    named = [f"{classes[a]} → {classes[b]} ({counts[a, b]:,})" for a, b in pairs if counts[a, b]]
    return f"Most frequent confusions: {', '.join(named)}." if named else "No confusions."


def confusion_table(split_metrics: dict[str, Any], title: str = "", *, width: int = 120) -> Table:
    """Make a confusion matrix: rows true, columns predicted, the diagonal highlighted.

    The columns have whole names where the table fits, else beginnings that differ. More classes than a
    terminal has room for are named only by their number.

    Args:
        split_metrics: One split of ``metrics.json``.
        title: Title above the table.
        width: Number of characters that it has room for.
    """
    table = Table(title=Text(title), title_justify="left", caption="rows true, columns predicted")
    table.caption_justify = "left"
    if not split_metrics.get("per_class"):
        return table
    classes = list(split_metrics["per_class"])
    if len(classes) > _MAX_LISTED_CLASSES:
        table.show_header, table.caption = False, None
        table.add_row(f"{len(classes)} classes: see the figures and metrics.json")
        return table
    counts = confusion_counts(split_metrics)
    if not split_metrics.get("no_answer"):
        counts = counts[:, : len(classes)]
    longest = max(map(len, classes))
    for length in range(longest, 0, -1):
        _fill_confusion(table, classes, _beginnings(classes, length), counts)
        if Console(width=1000).measure(table).maximum <= width or length == 1:
            return table
        table.columns, table.rows = [], []
    return table


def _beginnings(names: Sequence[str], length: int) -> list[str]:
    """Shorten names to a length, or to the least number of characters in which they differ."""
    shortened = []
    for name in names:
        others = [other for other in names if other != name]
        enough = next((n for n in range(length, len(name)) if all(o[:n] != name[:n] for o in others)), None)
        shortened.append(name if enough is None else name[:enough])
    return shortened


def _fill_confusion(
    table: Table, classes: Sequence[str], headers: Sequence[str], counts: NDArray[np.int64]
) -> None:
    answers = [*headers, "no answer"][: counts.shape[1]]
    table.add_column("", no_wrap=True)
    for header in answers:
        table.add_column(Text(header), justify="right", no_wrap=True)
    for row, (name, numbers) in enumerate(zip(classes, counts.tolist(), strict=True)):
        cells = [
            Text(f"{count:,}", style="dim" if not count else "bold green" if row == column else "")
            for column, count in enumerate(numbers)
        ]
        table.add_row(Text(name), *cells)
