import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.evaluation.stats import wilson_interval
from fer_lightning.report.paper import reference
from fer_lightning.report.paper.accuracy_tables import counts_table, improved_table, table_1
from fer_lightning.report.paper.comparison import compare_predictors
from fer_lightning.report.paper.comparison_tables import pairs_table, papers_pairs_table, table_2
from fer_lightning.report.paper.runs import collect_runs
from fer_lightning.report.paper.supplementary_tables import audit_table, calibration_table, cost_table
from fer_lightning.report.paper.table import EMPTY_CELL, Cell, PaperTable, format_p_value


def texts_of(table):
    return {
        row[0].text: {name: cell.text for name, cell in zip(table.headers, row, strict=True)}
        for row in table.rows
    }


def values_of(table):
    return {
        row[0].text: {name: cell.value for name, cell in zip(table.headers, row, strict=True)}
        for row in table.rows
    }


def test_table_1_shows_our_mean_the_papers_and_the_difference(make_paper_run):
    runs = [make_paper_run(f"{seed}_mlp", seed=seed, right=range(20 + 4 * seed)) for seed in range(3)]

    table = table_1(collect_runs(runs))

    row, values = texts_of(table)["MLP"], values_of(table)["MLP"]
    assert (row["seeds"], row["images"], row["paper %"]) == ("3 (0, 1, 2)", "56", "40.71")
    assert values["ours %"] == pytest.approx(100 * 24 / 56)
    assert values["sd"] == pytest.approx(100 * 4 / 56)
    assert values["difference"] == pytest.approx(100 * 24 / 56 - 40.71)
    assert values["95 % CI"] == pytest.approx([100 * b for b in wilson_interval(24 / 56, 56)])
    leak_free = [np.isin(np.flatnonzero(np.arange(56) % 8), range(20 + 4 * seed)).mean() for seed in range(3)]
    assert values["leak-free %"] == pytest.approx(100 * np.mean(leak_free))
    assert values["leak-free images"] == 49


def test_table_1_marks_rows_that_were_not_run(make_paper_run):
    rows = texts_of(table_1(collect_runs([make_paper_run("0_mlp")])))

    assert list(rows) == ["MLP", "ResNet-34 (pre-trained)", "CNN", "RNN"]  # those with results first
    assert rows["ResNet-34 (pre-trained)"]["seeds"] == "not run"
    assert rows["ResNet-34 (pre-trained)"]["paper %"] == "68.72"
    assert rows["CNN"]["seeds"] == "not run"
    assert {rows["CNN"][key] for key in ("ours %", "difference", "images", "leak-free %")} == {"—"}
    assert rows["MLP"]["sd"] == "—"


def test_other_images_get_no_difference(make_paper_run):
    row = texts_of(table_1(collect_runs([make_paper_run("0_mlp", images=range(40))])))["MLP"]

    assert (row["paper %"], row["difference"]) == ("40.71", "—")


def test_improved_table_shows_private_test_separately(make_paper_run, small_faces):
    private = np.flatnonzero(
        np.char.startswith(small_faces.faces.ids[small_faces.rows["test"]], "test/")
    ).tolist()
    paper_runs = collect_runs([make_paper_run("0_mlp", experiment="improved", right=private[:21])])

    values = values_of(improved_table(paper_runs))["MLP (improved)"]

    assert values["ours %"] == pytest.approx(100 * 21 / 56)
    assert values["PrivateTest %"] == pytest.approx(100 * 21 / 28)
    assert values["PrivateTest images"] == 28
    known = [row for row in private if row % 8 == 0]
    assert values["leak-free images"] == 49
    assert values["PrivateTest leak-free images"] == 28 - len(known)
    rightly = len(set(private[:21]) - set(known))
    assert values["PrivateTest leak-free %"] == pytest.approx(100 * rightly / (28 - len(known)))
    assert "Epochs: 30." in improved_table(paper_runs).note
    assert "MLP (improved)" not in texts_of(table_1(paper_runs))
    assert improved_table(collect_runs([make_paper_run("1_mlp")])) is None


def test_other_data_have_no_private_test(make_paper_run):
    run = make_paper_run("0_mlp", experiment="improved", info={"dataset": "mine"})
    (run / "metrics.json").write_text((run / "metrics.json").read_text().replace('"fer2013"', '"mine"'))

    table = improved_table(collect_runs([run]))

    assert "leak-free images" in table.headers
    assert "PrivateTest" not in " ".join((*table.headers, table.note))
    assert len(table.rows[0]) == len(table.headers)


def test_table_1_title_names_the_recipe(make_paper_run):
    short = {"trainer": {"max_epochs": 1}}
    titles = [
        table_1(collect_runs([make_paper_run(name, config=config)])).title
        for name, config in (("0_mlp", None), ("1_mlp", short))
    ]

    assert titles[0].endswith("the paper's recipe")
    assert titles[1].endswith("recipes that depart from the paper's")


def test_table_2_counts_unanswered_images_as_wrong(make_paper_run):
    part = collect_runs([make_paper_run("0_mlp", right=range(56))]).networks[0].predictions[0]
    part.status[part.labels.tolist().index(3)] = "refused"

    table = table_2(compare_predictors({"gpt-x": part}), EXPRESSIONS, "some images")

    row = texts_of(table)["gpt-x"]
    assert (row["happy"], row["sad"], row["correct"], row["no answer"]) == ("88", "100", "55 of 56", "1")


def test_table_2_marks_the_papers_rows(make_paper_run):
    part = collect_runs([make_paper_run("0_mlp")]).networks[0].predictions[0]

    table = table_2(compare_predictors({"our MLP": part}), EXPRESSIONS, "some images")

    gpt = texts_of(table)["GPT-4 Turbo"]
    assert [gpt[name] for name in EXPRESSIONS] == ["20", "40", "40", "60", "60", "80", "80"]
    assert (gpt["source"], gpt["overall %"], gpt["95 % CI"]) == ("the paper", "54.29", "38.2-69.5")
    assert [row[1].text for row in table.rows] == ["ours"] + 5 * ["the paper"]


def test_table_2_leaves_unknown_classes_of_the_paper_empty(make_paper_run):
    part = collect_runs([make_paper_run("0_mlp")]).networks[0].predictions[0]

    table = table_2(compare_predictors({"our MLP": part}), ("a", "b", "happy", "d", "e", "f", "g"), "")

    gpt = texts_of(table)["GPT-4 Turbo"]
    assert (gpt["a"], gpt["happy"]) == ("—", "60")


def test_counts_compare_ours_with_the_papers(make_paper_run):
    right = range(56)
    table = counts_table(collect_runs([make_paper_run("0_cnn", model="cnn", right=right)]))

    counts = {row[1].text: (row[2].text, row[3].text) for row in table.rows}
    assert counts["happy classified as happy"] == ("8", "1,298")
    assert counts["sad as neutral / neutral as sad"] == ("0 / 0", "219")


def test_counts_read_columns_and_both_directions(make_paper_run):
    nothing_right = [
        make_paper_run("0_mlp"),
        make_paper_run("1_cnn", model="cnn"),
    ]  # each class is predicted as the next

    counts = {
        (row[0].text, row[1].text): row[2].text for row in counts_table(collect_runs(nothing_right)).rows
    }

    assert counts["MLP", "classified as disgust"] == "8"  # every angry image
    assert counts["MLP", "disgust classified as disgust"] == "0"
    assert counts["CNN", "sad as neutral / neutral as sad"] == "0 / 8"


def test_counts_of_other_images_are_not_compared(make_paper_run):
    assert counts_table(collect_runs([make_paper_run("0_mlp", images=range(40))])) is None


def test_calibration_uses_the_recorded_interval_or_a_bootstrap(make_paper_run):
    old = make_paper_run("0_mlp", right=range(28))
    paper_runs = collect_runs([old])

    low, high = values_of(calibration_table(paper_runs))["MLP"]["95 % CI"]
    paper_runs.networks[0].runs[0].metrics["test"]["ci95"] = {"ece": [0.01, 0.02]}

    assert low < high
    assert values_of(calibration_table(paper_runs))["MLP"]["95 % CI"] == (1.0, 2.0)


def test_network_without_confidence_has_no_calibration_error(make_paper_run):
    run = make_paper_run("0_mlp", right=range(20))
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["test"] |= {"ece": None, "ci95": {}}
    (run / "metrics.json").write_text(json.dumps(metrics))
    part = Predictions.load(run / "predictions_test.npz")
    replace(part, probs=(part.probs > 0.5).astype(np.float32)).save(run / "predictions_test.npz")

    row = texts_of(calibration_table(collect_runs([run])))["MLP"]

    assert (row["calibration error"], row["95 % CI"], row["mean confidence %"]) == ("—", "—", "100.00")


def test_cost_shows_machine_threads_and_multiply_adds(make_paper_run):
    info = {
        "machine": {"cpu": "A CPU", "accelerator": "A GPU"},
        "num_threads": 2,
        "durations": {"fit_s": 125.0},
        "images_per_s": 1234.4,
        "epoch_seconds": [1.0, 2.0],
    }
    paper_runs = collect_runs([make_paper_run("0_mlp", info=info)])

    row = texts_of(cost_table(paper_runs, {"MLP": 2_500_000}))["MLP"]

    assert (row["machine"], row["threads"], row["time"]) == ("A CPU, A GPU", "2", "2 min 05 s")
    assert (row["images/s"], row["epochs"], row["multiply-adds"]) == ("1,234", "2", "2.5 M")


def test_audit_table_lists_the_numbers_of_the_file():
    audit = {
        "copies": {"groups": 1516, "test_in_train": 288, "complete": True},
        "name": "fer2013",
        "quality": {"medians": {"train": {"sharpness": 2020.99}, "val": None}},
    }

    rows = texts_of(audit_table(audit))

    assert {name: row["value"] for name, row in rows.items()} == {
        "duplicates, groups": "1,516",
        "duplicates, test in train": "288",
        "median, train, sharpness": "2,020.99",
    }
    assert audit_table({}).rows == ()


def test_csv_has_two_columns_for_an_interval():
    table = PaperTable(
        "x",
        "X",
        "",
        ("name", "interval"),
        ((Cell("a", "a"), Cell("1.0 to 2.0", (1.0, 2.0))), (Cell("b", "b"), EMPTY_CELL)),
    )

    assert list(csv.reader(table.to_csv().splitlines())) == [
        ["name", "interval_low", "interval_high"],
        ["a", "1.0", "2.0"],
        ["b", "", ""],
    ]


def test_csv_columns_have_plain_names_in_every_table(make_paper_run):
    runs = collect_runs([make_paper_run("0_mlp"), make_paper_run("1_mlp", experiment="improved")])
    part = runs.networks[0].predictions[0]
    tables = [
        table_1(runs),
        improved_table(runs),
        table_2(compare_predictors({"MLP": part}), ("a class, 5 %", "A class/5 %", *EXPRESSIONS[2:]), ""),
        pairs_table("pairs", "", compare_predictors({"MLP": part, "CNN": part})),
        papers_pairs_table(),
        calibration_table(runs),
        cost_table(runs, {}),
    ]

    for table in tables:
        names, *rows = csv.reader(table.to_csv().splitlines())
        assert all(re.fullmatch(r"\w+", name) and name == name.lower() for name in names), names
        assert len(set(names)) == len(names)
        assert {len(row) for row in rows} == {len(names)}
    names = tables[0].to_csv().splitlines()[0].split(",")
    assert names[:7] == ["model", "seeds", "ours_percent", "sd", "ci95_low", "ci95_high", "images"]
    assert "leak_free_near_percent" in names


HOSTILE = PaperTable(
    "table_1",
    "100 % of #1_a & b",
    "See \\input{x}~.",
    ("name", "x_1 %", "empty", "p"),
    (
        (Cell("[a] \\ & b\nc", 0), Cell("-1.5", -1.5), EMPTY_CELL, Cell("< 0.001", 0.0)),
        (Cell("{d} ^ $e$ #~", 0), Cell("+2", 2), EMPTY_CELL, Cell("—", None)),
    ),
)


def test_latex_table_is_escaped_and_has_equal_rows():
    lines = HOSTILE.to_latex().splitlines()

    assert lines[0] == r"% needs \usepackage{booktabs}"
    assert lines[3:6] == [
        r"\caption{100 \% of \#1\_a \& b}",
        r"\label{tab:table-1}",
        r"\begin{tabular}{lrr}",
    ]
    rows = [line for line in lines if line.endswith(r" \\")]
    assert rows == [
        r"name & x\_1 \% & p \\",
        r"{[a] \textbackslash{} \& b c} & $-$1.5 & \textless{} 0.001 \\",
        r"\{d\} \textasciicircum{} \$e\$ \#\textasciitilde{} & +2 & --- \\",
    ]
    assert [len(re.split(r"(?<!\\)&", row)) for row in rows] == [3, 3, 3]
    assert r"\footnotesize See \textbackslash{}input\{x\}\textasciitilde{}." in lines[-2]
    body = "\n".join(lines)
    for rule in ("toprule", "midrule", "bottomrule"):
        assert body.count(f"\\{rule}") == 1


def test_every_latex_table_has_as_many_cells_as_columns(make_paper_run):
    runs = collect_runs([make_paper_run("0_mlp"), make_paper_run("1_cnn", model="cnn")])
    compared = compare_predictors({each.label: each.predictions[0] for each in runs.networks})
    tables = (
        table_1(runs), table_2(compared, EXPRESSIONS, "some"), pairs_table("pairs", "", compared),
        papers_pairs_table(), calibration_table(runs), cost_table(runs, {}), counts_table(runs),
    )  # fmt: skip
    for table in tables:
        text = table.to_latex()
        assert text.isascii()
        columns = re.search(r"begin{tabular}{([lr]+)}", text)[1]
        rows = [line for line in text.splitlines() if line.endswith(r" \\")]
        assert len(rows) == len(table.rows) + 1
        assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {len(columns)}
        assert not re.search(r"(?<!\\)[%#_]", text.partition("caption")[2])


def test_columns_without_a_value_are_shown_nowhere_but_in_the_csv():
    assert HOSTILE.without_empty_columns().headers == ("name", "x_1 %", "p")
    assert "empty" not in HOSTILE.to_markdown() + HOSTILE.to_latex()
    assert HOSTILE.to_csv().splitlines()[0] == "name,x_1_percent,empty,p"


def test_markdown_has_title_and_note_and_escapes_bars():
    table = PaperTable("x", "X", "How to read it.", ("name", "%"), ((Cell("a|b", "a|b"), Cell("1.0", 1.0)),))

    assert table.to_markdown().splitlines() == [
        "**X**",
        "",
        "| name | % |",
        "| :-- | --: |",
        "| a\\|b | 1.0 |",
        "",
        "How to read it.",
    ]


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.0004, "p < 0.001"),
        (0.0344, "p = 0.034"),
        (0.0496, "p = 0.0496"),
        (0.62, "p = 0.62"),
        (1.0, "p = 1.00"),
    ],
)
def test_p_value_format(p, text):
    assert format_p_value(p) == text


def test_every_pair_of_the_papers_table_2_has_a_verdict():
    verdicts = {row[0].text: row[1].text for row in papers_pairs_table().rows}

    assert verdicts["CNN and GPT-4 Turbo"] == "n.s."
    assert verdicts["CNN and RNN"] == "significant"
    assert verdicts["GPT-4 Turbo and MLP"] == "undetermined"
    assert len(verdicts) == len(reference.TABLE_2) * (len(reference.TABLE_2) - 1) / 2
