import json
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from fer_lightning.core.metrics import METRICS
from fer_lightning.report import summary, tables


def printed(renderable, width=200):
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_markup_in_class_names_is_printed_literally():
    entry = {"precision": 0.5, "recall": None, "f1": 0.25, "acc_ovr": 0.9, "n": 1234}
    measured = {"per_class": {"[red]x[/red]": entry}, "confusion": [[1234]]}

    line = next(
        row for row in printed(tables.per_class_table(measured)).splitlines() if "[red]x[/red]" in row
    )

    assert [cell.strip() for cell in line.strip("│").split("│")][1:] == ["50.0", "—", "25.0", "90.0", "1,234"]
    assert "[red]x[/red]" in printed(tables.confusion_table(measured))


def test_confusion_table_has_true_classes_in_rows(make_run):
    measured = metrics_of(make_run())["test"]

    line = next(row for row in printed(tables.confusion_table(measured)).splitlines() if "│ surprise" in row)

    assert [int(cell) for cell in line.strip("│").split("│")[1:]] == measured["confusion"][-1]


def header_of(table, width=200):
    return next(row for row in printed(table, width).splitlines() if "┃" in row)


def test_confusion_table_has_whole_class_names_where_they_fit(make_run):
    measured = metrics_of(make_run())["test"]

    names = [cell.strip() for cell in header_of(tables.confusion_table(measured, width=80)).split("┃")]

    assert names[2:-1] == list(measured["per_class"])


def test_confusion_table_shortens_class_names_to_different_ones():
    names = ["surprised", "surprising", "sad", "happiness in the morning"]
    measured = {"per_class": {name: {} for name in names}, "confusion": np.eye(4, dtype=int).tolist()}

    table = tables.confusion_table(measured, width=75)
    short = [cell.strip() for cell in header_of(table).split("┃")][2:-1]

    assert len(set(short)) == 4
    assert all(name.startswith(part) for name, part in zip(names, short, strict=True))
    assert short[:3] == ["surprised", "surprising", "sad"]
    assert len(short[3]) < len(names[3])
    assert max(map(len, printed(table, 75).splitlines())) <= 75


def test_headline_shows_ci_leak_free_accuracy_and_checkpoint(make_run):
    metrics = metrics_of(make_run())

    text = printed(tables.headline_table(metrics))

    assert f"{100 * metrics['test']['acc']:.2f} %" in text
    assert "95 % CI" in text
    assert "leak-free test accuracy" in text
    assert f"n = {metrics['test']['leak_free']['n']}" in text
    assert "best val/acc" in text
    assert "nothing was selected" in printed(tables.headline_table(metrics | {"selected_by": "last"}))


def test_headline_of_a_split_without_images_is_empty():
    metrics = {
        "test": {"acc": None, "acc_macro": None, "f1_macro": None, "n": 0, "leak_free": {"acc": None, "n": 0}}
    }

    assert tables.headline_facts(metrics) == []


def test_headline_uses_the_recorded_intervals():
    leak_free = {"acc": 0.6, "n": 80, "ci95": {"acc": [0.01, 0.02]}}
    intervals = {"acc": [0.03, 0.04], "f1_macro": [0.05, 0.06]}
    test = {
        "acc": 0.5,
        "f1_macro": 0.4,
        "acc_macro": 0.45,
        "n": 100,
        "ci95": intervals,
        "leak_free": leak_free,
    }

    notes = {what: note for what, _, note in tables.headline_facts({"test": test})}

    assert notes["test accuracy"] == "95 % CI 3.0-4.0, n = 100"
    assert notes["test macro F1"] == "95 % CI 5.0-6.0, macro accuracy 45.00 %"
    assert notes["leak-free test accuracy"].startswith("95 % CI 1.0-2.0, ")


def test_metrics_without_intervals_get_those_of_accuracies():
    test = {"acc": 0.5, "f1_macro": 0.4, "acc_macro": 0.45, "n": 100, "leak_free": {"acc": 0.5, "n": 35}}

    accuracy, f1, leak_free = (note for _, _, note in tables.headline_facts({"test": test}))

    assert accuracy == "95 % CI 40.4-59.6, n = 100"
    assert "CI" not in f1
    assert leak_free.startswith("95 % CI 34.3-65.7, ")
    assert leak_free.endswith("n = 35")


@pytest.fixture
def with_unanswered():
    """Return the metrics of a split in which 3 of 7 images are unanswered."""
    scores = {"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "acc_ovr": 0.8}
    return {
        "acc": 4 / 7,
        "n": 7,
        "no_answer": {"refused": 2, "empty": 1},
        "per_class": {
            "sad": scores | {"n": 4, "no_answer": 1},
            "surprise": scores | {"n": 3, "no_answer": 2},
        },
        "confusion": [[3, 0], [0, 1]],
    }


def cells(renderable, name):
    line = next(row for row in printed(renderable).splitlines() if name in row)
    return [cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")]


def test_unanswered_images_have_a_column(with_unanswered):
    assert ("no answer", "3 of 7 images", "they count as wrong: 2 refused, 1 empty") in tables.headline_facts(
        {"test": with_unanswered}
    )
    assert cells(tables.per_class_table(with_unanswered), "precision")[-2:] == ["no answer", "images"]
    assert cells(tables.per_class_table(with_unanswered), "surprise")[-2:] == ["2", "3"]
    assert cells(tables.confusion_table(with_unanswered), "no answer") == ["", "sad", "surprise", "no answer"]
    assert cells(tables.confusion_table(with_unanswered), "│ surprise")[1:] == ["0", "1", "2"]
    assert tables.confusion_counts(with_unanswered).tolist() == [[3, 0, 1], [0, 1, 2]]


def test_no_unanswered_images_no_column(make_run):
    old = metrics_of(make_run())["test"]
    new = old | {"no_answer": {}, "per_class": {c: e | {"no_answer": 0} for c, e in old["per_class"].items()}}

    for measured in (old, new):
        assert "no answer" not in printed(tables.per_class_table(measured))
        assert "no answer" not in printed(tables.confusion_table(measured))
        assert not tables.confusion_counts(measured)[:, -1].any()
    assert not [fact for fact in tables.headline_facts({"test": new}) if fact[0] == "no answer"]


def test_tables_of_a_split_without_images_are_empty():
    assert tables.per_class_table({"acc": None, "n": 0}).row_count == 0
    assert tables.confusion_table({"acc": None, "n": 0}).row_count == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "—"),
        (7.26, "7.3 s"),
        (59.97, "1 min 00 s"),
        (125, "2 min 05 s"),
        (725, "12 min"),
        (12_000, "3 h 20 min"),
    ],
)
def test_duration_format(seconds, text):
    assert tables.duration(seconds) == text


def test_tables_import_neither_torch_nor_matplotlib():
    code = "import sys, fer_lightning.report.tables; print({'torch', 'matplotlib'} & set(sys.modules))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_a_confusion_matrix_too_large_for_the_terminal_is_one_line():
    table = tables.confusion_table({"per_class": {f"class {number}": {} for number in range(31)}})
    assert "31 classes: see the figures and metrics.json" in printed(table)


def test_every_metric_of_the_table_is_in_the_summary_and_the_rows_of_a_run():
    keys = {metric.key for metric in METRICS}
    assert keys <= set(summary.SUMMARY_KEYS)
    assert {f"{key}_sd" for key in keys} <= set(summary.SUMMARY_KEYS)
    measured = {"acc": 0.5, "kappa": 0.25, "ci95": {"acc": [0.4, 0.6]}, "leak_free": {"acc": 0.45}}
    rows = {title: values for title, *values in tables.metric_rows(measured)}
    assert len(rows) == len(METRICS)
    assert rows["accuracy, %"] == ["50.00", "40.00-60.00", "45.00", "—"]
    assert rows["Cohen's kappa"] == ["0.2500", "—", "—", "—"]
