import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.report import comparison_figures, summary
from fer_lightning.report.comparison_page import write_comparison
from fer_lightning.report.run_page import write_page
from tests.report.test_page import Page

pytestmark = pytest.mark.usefixtures("fast_figures")


def change_metrics(folder, *, remove=(), **accuracies):
    """Set the accuracy of some splits of a run, and remove others."""
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text())
    for split in remove:
        del metrics[split]
    for split, acc in accuracies.items():
        metrics[split]["acc"] = acc
    path.write_text(json.dumps(metrics))


def table_of(path, label="the runs"):
    """Return the headers and rows of a page's table."""
    html = path.read_text(encoding="utf-8").replace("<wbr>", "")
    table = re.search(f'aria-label="{label}">(.*?)</table>', html, re.DOTALL).group(1)

    def texts(tag, part):
        return [
            " ".join(re.sub("<[^>]*>", "", cell).split())
            for cell in re.findall(f"<{tag}[ >].*?</{tag}>", part, re.DOTALL)
        ]

    return texts("th", table), [texts("td", row) for row in table.split("<tr")[2:]]


def test_rows_are_sorted_by_val_accuracy_and_the_best_is_marked(make_run, tmp_path):
    runs = [make_run("0_mlp", model="mlp"), make_run("1_cnn"), make_run("2_rnn", model="rnn")]
    for run, (val, test) in zip(runs, [(0.5, 0.9), (0.7, 0.6), (0.6, 0.7)], strict=True):
        change_metrics(run, val=val, test=test)

    page = write_comparison(runs, tmp_path / "report.html")
    headers, rows = table_of(page)

    assert headers[:5] == ["run", "test acc %", "95 % CI", "val acc %", "model"]
    assert [row[0] for row in rows] == ["1_cnn best", "2_rnn", "0_mlp"]
    assert [row[1] for row in rows] == ["60.00", "70.00", "90.00"]
    assert "Sorted by val accuracy, which chooses the best." in Page(page).text
    assert '<th scope=col aria-sort="descending"><button>val acc %' in page.read_text()


def test_without_val_the_highest_is_marked_as_no_selection(make_run, tmp_path):
    runs = [make_run("0_mlp", model="mlp"), make_run("1_cnn")]
    for run, test in zip(runs, (0.5, 0.9), strict=True):
        change_metrics(run, remove=["val"], test=test)

    page = write_comparison(runs, tmp_path / "report.html")

    assert [row[0] for row in table_of(page)[1]] == ["1_cnn highest", "0_mlp"]
    assert "this is no selection" in Page(page).text
    assert "best" not in [row[0].split()[-1] for row in table_of(page)[1]]


@pytest.mark.slow
def test_runs_of_other_images_are_compared_with_none(make_run, tmp_path):
    runs = [
        make_run("0_cnn", n=60),
        make_run("1_mlp", model="mlp", n=60),
        make_run("2_rnn", model="rnn", n=61),
    ]

    page = write_comparison(runs, tmp_path / "report.html")
    text = Page(page).text

    assert "not comparable" in text
    assert "rnn is not compared: it was evaluated on other images." in text
    assert not [row for row in table_of(page)[1] if row[0].endswith("best")]
    assert len(table_of(page, "paired tests")[1]) == 1


def test_each_changed_setting_has_a_column_and_equal_ones_have_none(make_run, tmp_path):
    runs = [make_run(f"{number}_cnn", lr=lr) for number, lr in enumerate((0.001, 0.0003))]
    (runs[1] / "overrides.yaml").unlink()
    info = json.loads((runs[1] / "run.json").read_text())
    info["overrides"] = [*info["overrides"][:2], "optimizer.lr=3e-4", "+model.name=big one", "data=synthetic"]
    (runs[1] / "run.json").write_text(json.dumps(info))

    headers, rows = table_of(write_comparison(runs, tmp_path / "report.html"))

    assert not {"model", "seed", "state", "parameters"} & set(headers)
    by_run = {row[0].split()[0]: dict(zip(headers, row, strict=True)) for row in rows}
    assert {name: row["optimizer.lr"] for name, row in by_run.items()} == {
        "0_cnn": "0.001",
        "1_cnn": "0.0003",
    }
    assert by_run["1_cnn"]["model.name"] == "big one"
    assert by_run["0_cnn"]["model.name"] == "—"


def test_state_is_shown_only_if_a_run_did_not_finish(make_run, tmp_path):
    runs = [
        make_run("0_cnn"),
        make_run("1_cnn", seed=1, state="failed"),
        make_run("2_cnn", seed=2, state="failed"),
    ]

    page = write_comparison(runs, tmp_path / "report.html")
    headers, rows = table_of(page)

    assert [dict(zip(headers, row, strict=True))["state"] for row in rows] == ["finished", "failed", "failed"]
    assert "1_cnn, 2_cnn failed: data.root=<nowhere>" in Page(page).text
    assert "1 of 3 runs" in Page(page).text
    assert "state" not in table_of(write_comparison(runs[:1], tmp_path / "one.html"))[0]


@pytest.mark.slow
def test_seeds_have_a_row_of_means_and_one_matrix(make_run, tmp_path):
    runs = [
        make_run(f"{number}_{model}", model=model, seed=seed, skill=skill)
        for number, (model, skill, seed) in enumerate(
            (model, skill, seed) for model, skill in (("cnn", 2.5), ("mlp", 0.5)) for seed in range(3)
        )
    ]

    page = write_comparison(runs, tmp_path / "report.html")
    text = " ".join(Page(page).text.split())
    headers, rows = table_of(page, "the configurations")

    assert [row[0] for row in rows] == ["cnn best", "mlp"]
    means = [summary.cell(row, "acc") for row in summary.summarise_runs(runs) if row["kind"] == "mean"]
    assert [row[headers.index("test acc %")] for row in rows] == means
    assert not [row for row in table_of(page)[1] if "best" in row[0]]
    assert "cnn. It is ahead of mlp by" in text
    assert "first seed of each configuration (seed 0); the means over seeds agree" in text
    assert "cnn, 3 seeds, mean. Most frequent confusions" in text
    assert "Single runs (6)" in text


def test_paired_tests_say_that_there_is_no_clear_winner(make_run, tmp_path):
    runs = [make_run("0_mlp", model="mlp", n=60), make_run("1_cnn", n=60)]

    page = write_comparison(runs, tmp_path / "report.html")

    assert "No clear winner: mlp and cnn do not differ significantly" in Page(page).text
    assert table_of(page, "paired tests")[1][0][:2] == ["mlp and cnn", "not significant"]
    assert "Each configuration has one seed" in Page(page).text


def test_runs_of_one_seed_are_no_repetitions(make_run, tmp_path):
    runs = [make_run("0_best", n=60), make_run("1_last", n=60)]

    page = write_comparison(runs, tmp_path / "report.html")

    assert "seeds" not in Page(page).text.split("Results")[1].split("Learning curves")[0]
    pairs = table_of(page, "paired tests")[1]
    assert [pair[0] for pair in pairs] == ["cnn (0_best) and cnn (1_last)"]


@pytest.mark.slow
def test_numeric_settings_are_drawn(make_run, tmp_path):
    runs = [
        make_run(
            f"{number}_cnn", lr=lr, extra_info={"overrides": [f"optimizer.lr={lr}", f"model.dropout={drop}"]}
        )
        for number, (lr, drop) in enumerate([(0.1, 0.3), (0.01, 0.3), (0.001, 0.5)])
    ]

    alts = [image["alt"] for image in Page(write_comparison(runs, tmp_path / "report.html")).all("img")]

    assert "val accuracy against optimizer.lr, model.dropout" in alts
    assert "Parallel coordinates of optimizer.lr, model.dropout and val accuracy" in alts
    assert any(alt.startswith("Learning curves of lr=0.") for alt in alts)
    other = [make_run("8_cnn"), make_run("9_mlp", model="mlp")]
    assert "Settings" not in Page(write_comparison(other, tmp_path / "other.html")).text


@pytest.mark.slow
def test_twelve_configurations_show_four_matrices_and_fold_the_others(make_run, tmp_path):
    runs = [make_run(f"{number}_cnn", lr=0.001 * (number + 1), n=70) for number in range(12)]

    page = write_comparison(runs, tmp_path / "report.html")
    shown = page.read_text().split("Confusion matrices</h2>")[1].split("<details>")

    assert [part.count("<img") for part in shown] == [4, 8]
    assert "Other configurations (8)" in shown[1]
    assert "Paired tests of all 66 pairs" in Page(page).text
    assert "11 others do not differ significantly" in Page(page).text


def test_figures_are_svg_on_the_page_and_png_and_pdf_next_to_it(make_run, tmp_path):
    runs = [make_run(f"{number}_cnn", seed=number, lr=0.1, n=60) for number in range(2)]
    runs.append(make_run("2_cnn", lr=0.01, n=60))

    page = Page(write_comparison(runs, tmp_path / "report.html"))

    sources = [image["src"] for image in page.all("img")]
    assert len(sources) >= 4
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    for name in ("accuracy", "learning_curves", "settings", "classes"):
        assert {f"{name}.svg", f"{name}.png", f"{name}.pdf"} <= written


@pytest.mark.slow
def test_limited_runs_are_marked_in_headings_figures_and_tests(make_run, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(
        comparison_figures, "save_figure", lambda figure, *paths, **look: drawn.append(look["mark"])
    )
    monkeypatch.setattr(comparison_figures, "embed_svg", lambda *_: None)
    limit = {"limited": ["trainer.limit_train_batches=2"]}
    runs = [make_run(f"{n}_cnn", lr=0.1**n, n=60, extra_info=limit if n else None) for n in range(2)]

    page = Page(write_comparison(runs, tmp_path / "report.html"))

    assert (
        "1 of 2 runs are limited (trainer.limit_train_batches=2): the numbers are not results." in page.text
    )
    assert "Accuracy, test split (limited run, not results)" in page.text
    assert "These runs are limited: the tests and p-values mean nothing." in page.text
    assert set(drawn) == {"1/2, limited run: not results (trainer.limit_train_batches=2)"}
    whole = Page(
        write_comparison([make_run(f"w{n}", lr=0.1**n, n=60) for n in range(2)], tmp_path / "w.html")
    )
    assert "not results" not in whole.text
    assert "mean nothing" not in whole.text


def test_page_names_sweep_date_command_and_commit(make_run, tmp_path):
    extra = {"started": "2026-01-02T03:04:05.678+00:00", "command": "python train.py -m model=mlp,cnn"}
    runs = [make_run(f"lr/{number}_cnn", lr=0.1**number, extra_info=extra) for number in range(2)]
    (tmp_path / "lr/sweep.json").write_text("{}")
    summary.write_summary_csv(summary.summarise_runs(runs), tmp_path / "lr/summary.csv")

    path = write_comparison(runs, tmp_path / "lr")
    page, html = Page(path), path.read_text().replace("<wbr>", "")

    assert "<h1>Sweep lr: 2 runs on FER-2013</h1>" in html
    assert "<dt>started</dt><dd>2 January 2026, 03:04 UTC</dd>" in html
    assert "<dd><code>python train.py -m model=mlp,cnn</code></dd>" in html
    assert "<dt>commit</dt><dd>0123abc with uncommitted changes</dd>" in html
    assert "summary.csv" in [link["href"] for link in page.all("a")]
    elsewhere = Page(write_comparison(runs, tmp_path / "report.html"))
    assert "summary.csv" not in [link["href"] for link in elsewhere.all("a")]


def test_csv_has_the_ci_and_the_configuration(make_run, tmp_path):
    runs = [make_run("0_cnn"), make_run("1_cnn", seed=1), make_run("2_cnn", lr=0.1)]

    summary.write_summary_csv(summary.summarise_runs(runs), tmp_path / "summary.csv")
    with (tmp_path / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    ids = [row["configuration"] for row in rows]
    assert ids[0] == ids[1] == ids[3] != ids[2]
    assert float(rows[0]["acc_ci_low"]) < float(rows[0]["acc"]) < float(rows[0]["acc_ci_high"])
    assert rows[3]["acc_ci_low"] == ""


def test_comparison_shows_links_means_and_failures(make_run, tmp_path):
    runs = [make_run(f"sweep/{seed}_cnn %", seed=seed, n=60) for seed in range(2)]
    runs.append(make_run("sweep/2_cnn", state="failed"))
    write_page(runs[0])

    page = Page(write_comparison(runs, tmp_path / "reports/report.html"))

    links = [link["href"] for link in page.all("a")]
    assert [link for link in links if not link.startswith("#")] == ["../sweep/0_cnn%20%25/report.html"]
    assert [link for link in links if link.startswith("#")] == [
        f"#{each['id']}" for each in page.all("section")
    ]
    assert "2_cnn failed: data.root=<nowhere>" in page.text
    assert " ± " in page.text
    assert len(page.all("img")) == 5  # accuracy, curves, mean matrix, single matrices
    assert "not comparable" not in page.text


def test_comparison_out_is_a_page_or_an_existing_folder(make_run, tmp_path):
    runs = [make_run("0_cnn"), make_run("1_mlp", model="mlp")]
    folder = tmp_path / "there"
    folder.mkdir()
    assert write_comparison(runs, folder) == folder / "report.html"
    with pytest.raises(FERError, match=r"--out .*report.html/x.html: \w+.* expected a page in a folder"):
        write_comparison(runs, folder / "report.html" / "x.html")


def test_different_numbers_of_images_are_not_comparable(make_run, tmp_path):
    runs = [make_run("0_cnn", n=60), make_run("1_cnn", n=61)]

    assert "not comparable" in Page(write_comparison(runs, tmp_path / "report.html")).text


def test_different_images_are_not_comparable(make_run, tmp_path):
    runs = [make_run("0_cnn", n=60), make_run("1_cnn", n=60, seed=1)]
    predictions = Predictions.load(runs[1] / "predictions_test.npz")
    ids = np.array([f"another/{image}" for image in predictions.ids])
    replace(predictions, ids=ids).save(runs[1] / "predictions_test.npz")

    text = Page(write_comparison(runs, tmp_path / "report.html")).text

    assert "not comparable" in text
    assert " ± " not in text


def test_comparison_has_no_empty_columns(make_run, tmp_path):
    runs = [make_run(f"{seed}_cnn", state="failed", seed=seed) for seed in range(2)]

    page = Page(write_comparison(runs, tmp_path / "report.html"))

    assert "seed" in page.text
    assert "macro F1" not in page.text


def test_cells_sort_by_value_and_missing_values_have_none(make_run, tmp_path):
    runs = [make_run("0_cnn", n=60), make_run("1_cnn", state="failed")]

    cells = [cell["data-value"] for cell in Page(write_comparison(runs, tmp_path / "report.html")).all("td")]

    accuracy = json.loads((runs[0] / "metrics.json").read_text())["test"]["acc"]
    assert str(accuracy) in cells
    assert cells[-1] == ""
