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


def test_the_interval_of_a_share_is_wilsons():
    assert tables.wilson_interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert tables.wilson_interval(0.0, 35) == pytest.approx((0.0, 0.0989), abs=1e-4)


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
