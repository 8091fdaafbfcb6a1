import csv
import json
import statistics
import subprocess
import sys

import pytest
from rich.console import Console

from fer_lightning.report import tables


def printed(renderable, width=200):
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_class_names_that_look_like_markup_are_printed_as_they_are():
    entry = {"precision": 0.5, "recall": None, "f1": 0.25, "acc_ovr": 0.9, "n": 1234}
    measured = {"per_class": {"[red]x[/red]": entry}, "confusion": [[1234]]}

    line = next(
        row for row in printed(tables.per_class_table(measured)).splitlines() if "[red]x[/red]" in row
    )

    assert [cell.strip() for cell in line.strip("│").split("│")][1:] == ["50.0", "—", "25.0", "90.0", "1,234"]
    assert "[red]x[/red]" in printed(tables.confusion_table(measured))


def test_the_confusion_table_has_true_classes_in_rows(make_run):
    measured = metrics_of(make_run())["test"]

    line = next(row for row in printed(tables.confusion_table(measured)).splitlines() if "surprise" in row)

    assert [int(cell) for cell in line.strip("│").split("│")[1:]] == measured["confusion"][-1]


def test_the_headline_gives_interval_leak_free_accuracy_and_what_selected_the_checkpoint(make_run):
    metrics = metrics_of(make_run())

    text = printed(tables.headline(metrics))

    assert f"{100 * metrics['test']['acc']:.2f} %" in text
    assert "95 % interval" in text
    assert "leak-free test accuracy" in text
    assert f"n = {metrics['test']['leak_free']['n']}" in text
    assert "selected by val/acc" in text
    assert "nothing was selected" in printed(tables.headline(metrics | {"selected_by": "last"}))


def test_the_headline_of_a_split_without_images_has_no_numbers():
    metrics = {
        "test": {"acc": None, "acc_macro": None, "f1_macro": None, "n": 0, "leak_free": {"acc": None, "n": 0}}
    }

    assert tables.headline_facts(metrics) == []


def test_intervals_are_those_the_file_gives():
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

    assert notes["test accuracy"] == "95 % interval 3.0 to 4.0, n = 100"
    assert notes["test macro F1"] == "95 % interval 5.0 to 6.0, macro accuracy 45.00 %"
    assert notes["leak-free test accuracy"].startswith("95 % interval 1.0 to 2.0, without copies")


def test_a_file_from_before_there_were_intervals_has_that_of_its_accuracies():
    test = {"acc": 0.5, "f1_macro": 0.4, "acc_macro": 0.45, "n": 100, "leak_free": {"acc": 0.5, "n": 35}}

    notes = [note for _, _, note in tables.headline_facts({"test": test})]

    assert notes == [
        "95 % interval 40.4 to 59.6, n = 100",
        "macro accuracy 45.00 %",
        "95 % interval 34.3 to 65.7, without copies of images trained or selected on, n = 35",
    ]


@pytest.fixture
def silent():
    """A split in which 3 of 7 images got no answer."""
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


def test_silence_is_told_and_has_a_column_of_its_own(silent):
    assert ("no answer", "3 of 7 images", "they count as wrong: 2 refused, 1 empty") in tables.headline_facts(
        {"test": silent}
    )
    assert cells(tables.per_class_table(silent), "precision")[-2:] == ["no answer", "images"]
    assert cells(tables.per_class_table(silent), "surprise")[-2:] == ["2", "3"]
    assert cells(tables.confusion_table(silent), "no answer") == ["", "sad", "surp", "no answer"]
    assert cells(tables.confusion_table(silent), "surprise")[1:] == ["0", "1", "2"]
    assert tables.confusion_counts(silent).tolist() == [[3, 0, 1], [0, 1, 2]]


def test_where_all_was_answered_no_column_says_so(make_run):
    old = metrics_of(make_run())["test"]
    new = old | {"no_answer": {}, "per_class": {c: e | {"no_answer": 0} for c, e in old["per_class"].items()}}

    for measured in (old, new):
        assert "no answer" not in printed(tables.per_class_table(measured))
        assert "no answer" not in printed(tables.confusion_table(measured))
        assert not tables.confusion_counts(measured)[:, -1].any()
    assert not [fact for fact in tables.headline_facts({"test": new}) if fact[0] == "no answer"]


def test_a_summary_counts_unanswered_images_where_a_run_has_some(make_run):
    runs = [make_run("0_cnn"), make_run("1_llm", model="llm")]
    assert "no answer" not in printed(tables.summary_table(tables.summarise_runs(runs)))
    metrics = metrics_of(runs[1])
    metrics["test"]["no_answer"] = {"refused": 30, "empty": 12}
    (runs[1] / "metrics.json").write_text(json.dumps(metrics))

    rows = tables.summarise_runs(runs)

    assert [row["no_answer"] for row in rows] == [None, 42]
    assert "no answer" in printed(tables.summary_table(rows))


def test_the_tables_of_a_split_without_images_are_empty():
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
def test_times_are_written_as_people_say_them(seconds, text):
    assert tables.duration(seconds) == text


def test_runs_that_differ_only_in_seed_and_folders_get_a_row_of_means(make_run):
    seeds = [make_run(f"{seed}_cnn", seed=seed) for seed in range(3)]
    others = [
        make_run("3_cnn", lr=0.1),
        make_run("4_cnn", seed=1, state="failed"),
        make_run("5_mlp", model="mlp"),
    ]

    rows = tables.summarise_runs(seeds + others)

    assert [row["kind"] for row in rows] == ["run"] * 6 + ["mean"]
    scores = [metrics_of(folder)["test"]["acc"] for folder in seeds]
    mean = rows[-1]
    assert mean["acc"] == pytest.approx(statistics.mean(scores))
    assert mean["acc_sd"] == pytest.approx(statistics.stdev(scores))
    assert (mean["num_runs"], mean["seed"], mean["overrides"]) == (3, None, "optimizer.lr=0.001")


def test_one_seed_run_twice_is_no_sample_of_seeds(make_run):
    rows = tables.summarise_runs([make_run("0_cnn"), make_run("1_cnn")])

    assert [row["kind"] for row in rows] == ["run", "run"]


def test_only_the_overrides_that_differ_are_shown(make_run):
    rows = tables.summarise_runs([make_run("0_cnn"), make_run("1_mlp", model="mlp", seed=4)])

    assert [row["overrides"] for row in rows] == ["seed=0", "seed=4"]


def test_a_failed_job_is_listed_with_its_reason(make_run):
    rows = tables.summarise_runs([make_run("0_cnn"), make_run("1_cnn", state="failed")])

    text = printed(tables.summary_table(rows, "a sweep"))

    assert "1_cnn failed: data.root=<nowhere>: no such folder" in text
    assert "test acc" in text


def test_the_summary_file_holds_every_row_with_the_same_columns(make_run, tmp_path):
    rows = tables.summarise_runs(
        [make_run("0_cnn"), make_run("1_cnn", seed=1), make_run("2_rnn", state="failed")]
    )

    tables.write_summary_csv(rows, tmp_path / "summary.csv")

    with (tmp_path / "summary.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == list(tables.SUMMARY_KEYS)
    assert [row["kind"] for row in read] == ["run", "run", "run", "mean"]
    assert float(read[1]["acc"]) == rows[1]["acc"]
    assert (read[2]["acc"], read[2]["state"]) == ("", "failed")


def test_tables_cost_no_import_of_torch_or_matplotlib():
    code = "import sys, fer_lightning.report.tables; print({'torch', 'matplotlib'} & set(sys.modules))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
