import csv
import json
import statistics

import pytest

from fer_lightning.report import summary
from fer_lightning.report.comparison_page import write_comparison
from fer_lightning.report.summary_table import summary_table
from tests.report.test_tables import metrics_of, printed

pytestmark = pytest.mark.usefixtures("fast_figures")


def test_summary_counts_unanswered_images(make_run):
    runs = [make_run("0_cnn"), make_run("1_llm", model="llm")]
    assert "no answer" not in printed(summary_table(summary.summarise_runs(runs)))
    metrics = metrics_of(runs[1])
    metrics["test"]["no_answer"] = {"refused": 30, "empty": 12}
    (runs[1] / "metrics.json").write_text(json.dumps(metrics))

    rows = summary.summarise_runs(runs)

    assert [row["no_answer"] for row in rows] == [None, 42]
    assert "no answer" in printed(summary_table(rows))


def test_runs_that_differ_only_in_seed_get_a_mean_row(make_run):
    seeds = [make_run(f"{seed}_cnn", seed=seed) for seed in range(3)]
    others = [
        make_run("3_cnn", lr=0.1),
        make_run("4_cnn", seed=1, state="failed"),
        make_run("5_mlp", model="mlp"),
    ]

    rows = summary.summarise_runs(seeds + others)

    assert [row["kind"] for row in rows] == ["run"] * 6 + ["mean"]
    scores = [metrics_of(folder)["test"]["acc"] for folder in seeds]
    mean = rows[-1]
    assert mean["acc"] == pytest.approx(statistics.mean(scores))
    assert mean["acc_sd"] == pytest.approx(statistics.stdev(scores))
    assert (mean["num_runs"], mean["seed"], mean["overrides"]) == (3, None, "optimizer.lr=0.001")


@pytest.mark.parametrize("folder", ["r2", "2013", "cnn", "data", "source"])
def test_folder_whose_name_is_part_of_a_setting_does_not_hide_the_setting(folder, make_run):
    def with_settings(run, root):
        text = (run / "config.yaml").read_text().replace("logger:", "source: cnn\nlogger:")
        (run / "config.yaml").write_text(
            text.replace("data: {", f"data: {{name: fer2013, root: /faces/{root}, ")
        )
        return run

    others = [with_settings(make_run(folder), "fer2013"), with_settings(make_run("b", seed=1), "ferplus")]
    same = [with_settings(make_run("c", seed=2), "fer2013"), with_settings(make_run("d", seed=3), "ferplus")]

    first, second, third, fourth, *means = summary.summarise_runs(others + same)

    assert first["configuration"] == third["configuration"] != second["configuration"]
    assert second["configuration"] == fourth["configuration"]
    assert [mean["num_runs"] for mean in means] == [2, 2]


def test_paths_in_a_run_folder_and_the_name_of_a_run_do_not_set_seeds_apart(make_run):
    for seed in range(2):
        run = make_run(f"{seed}_cnn", seed=seed)
        with (run / "config.yaml").open("a") as file:
            file.write(f"callback: {{file: '{run}/saved.txt', windows: 'C:\\runs\\{run.name}\\x'}}\n")
            file.write(f"wandb: {{run_name: {run.name}}}\n")

    rows = summary.summarise_runs([run.parent / f"{seed}_cnn" for seed in range(2)])

    assert [row["kind"] for row in rows] == ["run", "run", "mean"]


def test_table_says_that_limited_and_synthetic_runs_are_no_results(make_run):
    whole = make_run("0_cnn")
    limited = make_run("1_cnn", seed=1, extra_info={"limited": ["trainer=smoke"], "synthetic": True})
    metrics = metrics_of(limited)
    (limited / "metrics.json").write_text(json.dumps(metrics | {"synthetic": True}))

    rows = summary.summarise_runs([whole, limited])

    text = " ".join(printed(summary_table(rows)).split())
    assert "limited (trainer=smoke): the numbers are not results" in text
    assert "synthetic faces: results do not transfer to photographs of people" in text
    assert "finished, limited" in text
    alone = printed(summary_table(summary.summarise_runs([whole])))
    assert "not results" not in alone
    assert "synthetic" not in alone
    assert [(row["limited"], row["synthetic"]) for row in rows[:2]] == [
        (None, False),
        ("trainer=smoke", True),
    ]


def test_repeated_seed_gets_no_mean_row(make_run):
    rows = summary.summarise_runs([make_run("0_cnn"), make_run("1_cnn")])

    assert [row["kind"] for row in rows] == ["run", "run"]


def test_summary_shows_only_differing_overrides(make_run):
    rows = summary.summarise_runs([make_run("0_cnn"), make_run("1_mlp", model="mlp", seed=4)])

    assert [row["overrides"] for row in rows] == ["seed=0", "seed=4"]


def test_failed_job_is_listed_with_its_reason(make_run):
    rows = summary.summarise_runs([make_run("0_cnn"), make_run("1_cnn", state="failed")])

    text = printed(summary_table(rows, "a sweep"))

    assert "1_cnn failed: data.root=<nowhere>: no such folder" in text
    assert "test acc" in text


def test_summary_csv_has_the_same_columns_in_every_row(make_run, tmp_path):
    rows = summary.summarise_runs(
        [make_run("0_cnn"), make_run("1_cnn", seed=1), make_run("2_rnn", state="failed")]
    )

    summary.write_summary_csv(rows, tmp_path / "summary.csv")

    with (tmp_path / "summary.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == list(summary.SUMMARY_KEYS)
    assert [row["kind"] for row in read] == ["run", "run", "run", "mean"]
    assert float(read[1]["acc"]) == rows[1]["acc"]
    assert (read[2]["acc"], read[2]["state"]) == ("", "failed")


DAMAGES = {
    "cut record": ("run.json", lambda text: text[:100]),
    "number for a date": ("run.json", lambda text: json.dumps(json.loads(text) | {"started": 5})),
    "cut metrics": ("metrics.json", lambda text: text[: len(text) // 2]),
    "text for a score": ("metrics.json", lambda text: text.replace('"acc": 0', '"acc": "x', 1)),
    "list for a split": ("metrics.json", lambda text: json.dumps(json.loads(text) | {"test": [1]})),
    "cut config": ("config.yaml", lambda text: text + "\n[{"),
    "no archive": ("predictions_test.npz", lambda _: "none"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_hides_no_other(damage, make_run, tmp_path):
    name, change = DAMAGES[damage]
    folders = [make_run("0_cnn"), make_run("1_cnn", seed=1), make_run("2_cnn", seed=2)]
    whole = summary.summarise_runs(folders)
    file = folders[1] / name
    file.write_text(change(file.read_text() if file.suffix != ".npz" else ""))

    rows = summary.summarise_runs(folders)

    assert [row["state"] for row in rows] == ["finished", "damaged", "finished", "finished"]
    assert [rows[0]["acc"], rows[2]["acc"]] == [whole[0]["acc"], whole[2]["acc"]]
    assert (rows[1]["acc"], rows[3]["num_runs"]) == (None, 2)
    assert "1_cnn" in rows[1]["reason"]
    text = printed(summary_table(rows))
    assert "1_cnn damaged: " in text
    page = write_comparison(folders, tmp_path / "both.html").read_text()
    assert "1_cnn has a damaged file: " in page
    assert "2_cnn" in page


def table_rows(rows, width=80):
    """Return the cells of each row of a table that was printed on a terminal of some width."""
    lines = printed(summary_table(rows), width).splitlines()
    rule = next(number for number, line in enumerate(lines) if "─" in line)
    end = next(number for number in range(rule + 1, len(lines)) if not lines[number].strip())
    return [line.split() for line in (lines[rule - 1], *lines[rule + 1 : end])]


def test_table_fits_80_columns_and_marks_the_best_by_val(make_run):
    rows = summary.summarise_runs(
        [make_run(f"{number}_cnn", lr=lr, seed=number) for number, lr in enumerate((0.1, 0.001, 0.0001))]
    )
    for row, val in zip(rows, (0.3, 0.5, 0.4), strict=True):
        row["val_acc"] = val

    header, *shown = table_rows(rows)

    assert " ".join(header) == "job model seed lr test acc 95 % CI val acc fit time"
    assert [row[:5] for row in shown] == [
        ["*", "1", "cnn", "1", "0.001"],
        ["2", "cnn", "2", "0.0001", shown[1][4]],
        ["0", "cnn", "0", "0.1", shown[2][4]],
    ]
    text = printed(summary_table(rows), 80)
    assert "sorted by val accuracy, * the best" in text
    assert max(map(len, text.splitlines())) <= 80


def test_table_shows_means_above_their_seeds(make_run):
    runs = [
        make_run(f"{number}_{model}", model=model, seed=number % 2)
        for number, model in enumerate(("cnn", "cnn", "mlp", "mlp"))
    ]
    rows = summary.summarise_runs(runs)
    for row in rows:
        row["val_acc"] = 0.9 if row["model"] == "mlp" else 0.1

    _, *shown = table_rows(rows)

    assert shown[0][:4] == ["*", "mlp", "2", "seeds"]
    assert [row[:3] for row in shown[1:3]] == [["2", "mlp", "0"], ["3", "mlp", "1"]]
    assert [row[0] for row in shown[3:]] == ["cnn", "0", "1"]


def test_settings_that_do_not_fit_share_a_column(make_run):
    names = [f"model.a_long_setting_{letter}" for letter in "abcdef"]
    rows = summary.summarise_runs(
        [
            make_run(f"{number}_cnn", extra_info={"overrides": [f"{name}={number}" for name in names]})
            for number in range(2)
        ]
    )

    text = printed(summary_table(rows), 80)

    assert max(map(len, text.splitlines())) <= 80
    assert "settings" in text
    for word in ("a_long_setting_a=0", "a_long_setting_f=1"):
        assert word in text  # not broken


def test_without_val_the_highest_is_said_to_be_no_selection(make_run):
    rows = summary.summarise_runs([make_run("0_cnn"), make_run("1_mlp", model="mlp")])
    for row in rows:
        row["val_acc"] = None
    assert "* highest test accuracy, which is no selection" in printed(summary_table(rows))


@pytest.mark.parametrize(
    ("lrs", "shown"),
    [
        ((0.00012345678, 0.00987654321, 0.1), ["0.000123", "0.00988", "0.1"]),
        ((0.00012345678, 0.00012349999, 0.1), ["0.00012346", "0.0001235", "0.1"]),
    ],
)
def test_numbers_have_as_few_digits_as_keep_them_different(lrs, shown, make_run):
    rows = summary.summarise_runs([make_run(f"{number}_cnn", lr=lr) for number, lr in enumerate(lrs)])
    assert [row["settings"]["optimizer.lr"] for row in rows] == shown


def test_trials_that_a_search_ended_early_are_pruned(make_run, tmp_path):
    runs = [make_run(f"{number}_cnn", seed=number) for number in range(3)]
    trials = [
        {"number": 0, "state": "finished", "pruned_after": None},
        {"number": 1, "state": "pruned", "pruned_after": 4},
    ]
    record = runs[0].parent / "search.json"
    record.write_text(json.dumps({"trials": trials}))
    rows = [row for row in summary.summarise_runs(runs) if row["kind"] == "run"]
    assert [row["pruned_after"] for row in rows] == [None, 4, None]
    assert [summary.cell(row, "state") for row in rows] == ["finished", "pruned", "finished"]
    for damaged in ("no JSON", "[]", '{"trials": [3]}', '{"trials": [{"number": 1, "state": "pruned"}]}'):
        record.write_text(damaged)
        assert [row.get("pruned_after") for row in summary.summarise_runs(runs)[:3]] == [None] * 3


def test_settings_of_a_search_can_be_read_in_80_columns(make_run):
    """The time and a model that is the same for all go first."""
    settings = ("optimizer.lr", "data.batch_size=3{}", "model.widths=[32,64,12{}]", "model.dropout=0.{}")
    rows = summary.summarise_runs(
        [
            make_run(
                f"{number}_cnn",
                lr=0.000123456 * (1 + number),
                extra_info={"overrides": [each.format(number) for each in settings]},
            )
            for number in range(3)
        ]
    )
    for row in rows:
        row |= {"val_acc": 0.5, "fit_s": 100.0, "pruned_after": 2 if row["run"] == "1_cnn" else None}
    text = printed(summary_table(rows), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "fit time" not in text
    assert "pruned" in text
    for word in ("batch_size=31", "lr=0.000123 ", "val acc"):
        assert word in text
    assert len(text.splitlines()) < 18
