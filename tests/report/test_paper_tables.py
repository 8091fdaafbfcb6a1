import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.evaluation.stats import wilson_interval
from fer_lightning.report import paper_tables, reference
from fer_lightning.report.paper import collect, compare_predictors
from fer_lightning.report.paper_tables import Cell, Grid


def rows_of(grid):
    return {
        row[0].shown: {name: cell.shown for name, cell in zip(grid.headers, row, strict=True)}
        for row in grid.rows
    }


def values_of(grid):
    return {
        row[0].shown: {name: cell.value for name, cell in zip(grid.headers, row, strict=True)}
        for row in grid.rows
    }


def test_table_1_gives_ours_the_papers_and_the_difference_of_the_mean_over_seeds(make_paper_run):
    runs = [make_paper_run(f"{seed}_mlp", seed=seed, right=range(20 + 4 * seed)) for seed in range(3)]

    grid = paper_tables.table_1(collect(runs))

    row, values = rows_of(grid)["MLP"], values_of(grid)["MLP"]
    assert (row["seeds"], row["images"], row["paper %"]) == ("3 (0, 1, 2)", "56", "40.71")
    assert values["ours %"] == pytest.approx(100 * 24 / 56)
    assert values["sd"] == pytest.approx(100 * 4 / 56)
    assert values["difference"] == pytest.approx(100 * 24 / 56 - 40.71)
    assert values["95 % interval"] == pytest.approx([100 * b for b in wilson_interval(24 / 56, 56)])
    leak_free = [np.isin(np.flatnonzero(np.arange(56) % 8), range(20 + 4 * seed)).mean() for seed in range(3)]
    assert values["leak-free %"] == pytest.approx(100 * np.mean(leak_free))
    assert values["leak-free images"] == 49


def test_table_1_says_which_rows_were_not_run_and_gives_them_no_number_of_ours(make_paper_run):
    rows = rows_of(paper_tables.table_1(collect([make_paper_run("0_mlp")])))

    assert list(rows) == ["ResNet-34 (pre-trained)", "ResNet-34 (from scratch)", "CNN", "MLP", "RNN"]
    assert rows["ResNet-34 (pre-trained)"]["seeds"] == "not run here"
    assert rows["ResNet-34 (pre-trained)"]["paper %"] == "68.72"
    assert rows["ResNet-34 (from scratch)"]["paper %"] == "—"
    assert rows["CNN"]["seeds"] == "not among the runs"
    assert {rows["CNN"][key] for key in ("ours %", "difference", "images", "leak-free %")} == {"—"}
    assert rows["MLP"]["sd"] == "—"


def test_other_images_than_the_papers_get_no_difference(make_paper_run):
    row = rows_of(paper_tables.table_1(collect([make_paper_run("0_mlp", images=range(40))])))["MLP"]

    assert (row["paper %"], row["difference"]) == ("40.71", "—")


def test_the_improved_recipe_has_a_table_of_its_own_with_private_test_alone(make_paper_run, small_faces):
    private = np.flatnonzero(
        np.char.startswith(small_faces.faces.ids[small_faces.rows["test"]], "test/")
    ).tolist()
    evidence = collect([make_paper_run("0_mlp", experiment="improved", right=private[:21])])

    values = values_of(paper_tables.improved_table(evidence))["MLP (improved)"]

    assert values["ours %"] == pytest.approx(100 * 21 / 56)
    assert values["PrivateTest %"] == pytest.approx(100 * 21 / 28)
    assert values["PrivateTest images"] == 28
    known = [row for row in private if row % 8 == 0]
    assert values["leak-free images"] == 49
    assert values["PrivateTest leak-free images"] == 28 - len(known)
    rightly = len(set(private[:21]) - set(known))
    assert values["PrivateTest leak-free %"] == pytest.approx(100 * rightly / (28 - len(known)))
    assert "Epochs: 30." in paper_tables.improved_table(evidence).note
    assert "MLP (improved)" not in rows_of(paper_tables.table_1(evidence))
    assert paper_tables.improved_table(collect([make_paper_run("1_mlp")])) is None


def test_other_data_than_fer2013_have_no_private_test(make_paper_run):
    run = make_paper_run("0_mlp", experiment="improved", info={"dataset": "mine"})
    (run / "metrics.json").write_text((run / "metrics.json").read_text().replace('"fer2013"', '"mine"'))

    grid = paper_tables.improved_table(collect([run]))

    assert "leak-free images" in grid.headers
    assert "PrivateTest" not in " ".join((*grid.headers, grid.note))
    assert len(grid.rows[0]) == len(grid.headers)


def test_the_title_of_table_1_claims_the_papers_recipe_only_where_it_was_run(make_paper_run):
    short = {"trainer": {"max_epochs": 1}}
    titles = [
        paper_tables.table_1(collect([make_paper_run(name, config=config)])).title
        for name, config in (("0_mlp", None), ("1_mlp", short))
    ]

    assert titles[0].endswith("the paper's recipe")
    assert titles[1].endswith("recipes that depart from the paper's")


def test_table_2_counts_an_image_without_an_answer_as_wrong_and_shows_it(make_paper_run):
    part = collect([make_paper_run("0_mlp", right=range(56))]).groups[0].predictions[0]
    part.status[part.labels.tolist().index(3)] = "refused"

    grid = paper_tables.table_2(compare_predictors({"gpt-x": part}), EXPRESSIONS, "some images")

    row = rows_of(grid)["gpt-x"]
    assert (row["happy"], row["sad"], row["right"], row["no answer"]) == ("88", "100", "55 of 56", "1")


def test_table_2_repeats_the_papers_rows_marked_as_the_papers(make_paper_run):
    part = collect([make_paper_run("0_mlp")]).groups[0].predictions[0]

    grid = paper_tables.table_2(compare_predictors({"our MLP": part}), EXPRESSIONS, "some images")

    gpt = rows_of(grid)["GPT-4 Turbo"]
    assert [gpt[name] for name in EXPRESSIONS] == ["20", "40", "40", "60", "60", "80", "80"]
    assert (gpt["whose"], gpt["overall %"], gpt["95 % interval"]) == ("the paper", "54.29", "38.2 to 69.5")
    assert [row[1].shown for row in grid.rows] == ["ours"] + 5 * ["the paper"]


def test_table_2_of_other_classes_leaves_the_papers_cells_empty(make_paper_run):
    part = collect([make_paper_run("0_mlp")]).groups[0].predictions[0]

    grid = paper_tables.table_2(
        compare_predictors({"our MLP": part}), ("a", "b", "happy", "d", "e", "f", "g"), ""
    )

    gpt = rows_of(grid)["GPT-4 Turbo"]
    assert (gpt["a"], gpt["happy"]) == ("—", "60")


def test_the_counts_that_the_paper_names_stand_beside_ours(make_paper_run):
    right = range(56)
    grid = paper_tables.counts_table(collect([make_paper_run("0_cnn", model="cnn", right=right)]))

    told = {row[1].shown: (row[2].shown, row[3].shown) for row in grid.rows}
    assert told["happy named happy"] == ("8", "1,298")
    assert told["sad for neutral / neutral for sad"] == ("0 / 0", "219")


def test_counts_of_a_column_and_of_both_directions_are_read_from_the_right_cells(make_paper_run):
    nothing_right = [make_paper_run("0_mlp"), make_paper_run("1_cnn", model="cnn")]  # each named as its next

    told = {
        (row[0].shown, row[1].shown): row[2].shown
        for row in paper_tables.counts_table(collect(nothing_right)).rows
    }

    assert told["MLP", "named disgust"] == "8"  # every angry face
    assert told["MLP", "disgust named disgust"] == "0"
    assert told["CNN", "sad for neutral / neutral for sad"] == "0 / 8"


def test_counts_of_other_images_are_not_put_beside_the_papers(make_paper_run):
    assert paper_tables.counts_table(collect([make_paper_run("0_mlp", images=range(40))])) is None


def test_calibration_takes_the_recorded_interval_and_else_draws_one(make_paper_run):
    old = make_paper_run("0_mlp", right=range(28))
    evidence = collect([old])

    low, high = values_of(paper_tables.calibration_table(evidence))["MLP"]["95 % interval"]
    evidence.groups[0].runs[0].metrics["test"]["ci95"] = {"ece": [0.01, 0.02]}

    assert low < high
    assert values_of(paper_tables.calibration_table(evidence))["MLP"]["95 % interval"] == (1.0, 2.0)


def test_a_network_that_is_certain_of_everything_has_no_calibration_error(make_paper_run):
    run = make_paper_run("0_mlp", right=range(20))
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["test"] |= {"ece": None, "ci95": {}}
    (run / "metrics.json").write_text(json.dumps(metrics))
    part = Predictions.load(run / "predictions_test.npz")
    replace(part, probs=(part.probs > 0.5).astype(np.float32)).save(run / "predictions_test.npz")

    row = rows_of(paper_tables.calibration_table(collect([run])))["MLP"]

    assert (row["calibration error"], row["95 % interval"], row["mean confidence %"]) == ("—", "—", "100.00")


def test_cost_gives_each_run_its_machine_threads_and_work(make_paper_run):
    told = {
        "machine": {"cpu": "A CPU", "accelerator": "A GPU"},
        "num_threads": 2,
        "durations": {"fit_s": 125.0},
        "images_per_s": 1234.4,
        "epoch_seconds": [1.0, 2.0],
    }
    evidence = collect([make_paper_run("0_mlp", info=told)])

    row = rows_of(paper_tables.cost_table(evidence, {"MLP": 2_500_000}))["MLP"]

    assert (row["machine"], row["threads"], row["time"]) == ("A CPU, A GPU", "2", "2 min 05 s")
    assert (row["images/s"], row["epochs"], row["multiply-adds"]) == ("1,234", "2", "2.5 M")


def test_the_audit_is_listed_as_far_as_its_file_goes():
    audit = {
        "copies": {"groups": 1516, "test_in_train": 288, "complete": True},
        "name": "fer2013",
        "quality": {"medians": {"train": {"sharpness": 2020.99}, "val": None}},
    }

    rows = rows_of(paper_tables.audit_table(audit))

    assert {name: row["value"] for name, row in rows.items()} == {
        "copies, groups": "1,516",
        "copies, test in train": "288",
        "median, train, sharpness": "2,020.99",
    }
    assert paper_tables.audit_table({}).rows == ()


def test_a_csv_holds_numbers_and_an_interval_as_two_columns():
    grid = Grid(
        "x",
        "X",
        "",
        ("name", "interval"),
        ((Cell("a", "a"), Cell("1.0 to 2.0", (1.0, 2.0))), (Cell("b", "b"), paper_tables.NOTHING)),
    )

    assert list(csv.reader(grid.to_csv().splitlines())) == [
        ["name", "interval, low", "interval, high"],
        ["a", "1.0", "2.0"],
        ["b", "", ""],
    ]


def test_markdown_shows_title_table_and_note_and_a_bar_in_a_name_breaks_nothing():
    grid = Grid("x", "X", "How to read it.", ("name", "%"), ((Cell("a|b", "a|b"), Cell("1.0", 1.0)),))

    assert grid.to_markdown().splitlines() == [
        "**X**",
        "",
        "| name | % |",
        "| :-- | --: |",
        "| a\\|b | 1.0 |",
        "",
        "How to read it.",
    ]


@pytest.mark.parametrize(
    ("p", "told"),
    [
        (0.0004, "p < 0.001"),
        (0.0344, "p = 0.034"),
        (0.0496, "p = 0.0496"),
        (0.62, "p = 0.62"),
        (1.0, "p = 1.00"),
    ],
)
def test_p_values_are_written_as_people_do(p, told):
    assert paper_tables.p_value(p) == told


def test_every_pair_of_the_papers_table_2_has_its_verdict():
    verdicts = {row[0].shown: row[1].shown for row in paper_tables.papers_pairs_table().rows}

    assert verdicts["CNN and GPT-4 Turbo"] == "not told apart"
    assert verdicts["CNN and RNN"] == "apart"
    assert verdicts["GPT-4 Turbo and MLP"] == "depends on the pairs"
    assert len(verdicts) == len(reference.TABLE_2) * (len(reference.TABLE_2) - 1) / 2
