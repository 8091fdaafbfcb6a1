"""The records in results/, and the tables that README and docs have from them."""

import json
import re
import shutil

import numpy as np
import pytest
import scipy.stats

from benchmarks import loops
from benchmarks.ablation import BASE, CHANGES, VIEWS, octal_digits, write
from fer_lightning.core.errors import FERError
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.report.run_results import read_run
from results.ablation import ablation_table, paired_difference, right_by_seed, verdict
from results.documents import DOCUMENTS, ROOT, fill, fill_file
from results.figures import FIGURES, svg
from results.predictors import predictor_table
from results.records import HERE, PREDICTIONS, TEXTS, collect, record_folders, record_name
from results.tables import networks, rows, table

RECORDS = record_folders()


@pytest.fixture
def run_folder(tmp_path):
    """A finished run, as the command that trained it left it, with the paths of a machine."""
    folder = tmp_path / "sweep" / "0_run"
    shutil.copytree(RECORDS[0], folder)
    for name in TEXTS:
        text = (folder / name).read_text()
        text = text.replace(f"outputs/{RECORDS[0].name}", str(folder)).replace(
            "data/fer2013", "/home/me/faces"
        )
        (folder / name).write_text(text)
    arrays = dict(np.load(folder / PREDICTIONS))
    np.savez(folder / PREDICTIONS, **arrays)
    (folder / "best.ckpt").write_bytes(b"weights")
    return folder


def altered(folder, **changes):
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | changes))
    return folder


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_tables_of_a_document_are_those_of_the_records(document):
    text = document.read_text(encoding="utf-8")
    assert fill_file(document) == text, "python -m results writes the tables again"


def test_a_part_of_a_document_is_replaced_by_its_table():
    text = "before\n<!-- results: paper -->\n| model | n | test acc |\nold\n<!-- /results -->\nafter\n"
    filled = fill(text)
    mlp = next(network for network in networks("paper") if network.family == "mlp")
    assert f"| MLP | 3 | **{100 * np.mean(mlp.accuracies()):.2f}** |" in filled
    assert "old" not in filled
    assert filled.startswith(
        "before\n<!-- results: paper -->\n\n| model | n | test acc |\n| --- | --- | --- |\n"
    )
    assert filled.endswith("\n<!-- /results -->\nafter\n")
    assert fill(filled) == filled
    with pytest.raises(
        FERError, match="results: pape: no such table, expected one of paper, improved, official"
    ):
        fill(text.replace("paper", "pape"))
    with pytest.raises(FERError, match="results: 'seeds': no such column, expected one of model, parameters"):
        fill(text.replace("| n |", "| seeds |"))


def test_a_row_has_the_seeds_whose_records_there_are(tmp_path):
    for number in (1, 2, 3):
        name = f"paper_mlp_seed{number - 1}"
        shutil.copytree(HERE / name, tmp_path / name)
        (mlp,) = rows("paper", tmp_path)
        assert len(mlp.acc.values) == number
        assert (mlp.acc.n, mlp.leak_free.n, mlp.private.n) == (7178, 6610, 3589)
    assert "| MLP | 3 |" in table("paper", ["model", "n"], where=tmp_path)
    assert rows("improved", tmp_path) == []


def test_times_on_a_gpu_are_columns_once_they_are_measured(tmp_path):
    measured = json.loads((HERE / "predictors.json").read_text())
    first = measured["cpu"]["networks"][0]
    times = {"ms_in_batches_of_1": [0.5, 0.7, 0.6], "ms_in_batches_of_64": [0.02]}
    measured["cuda"] = {"networks": [first | times]}
    (tmp_path / "predictors.json").write_text(json.dumps(measured))
    header, _, *lines = predictor_table(tmp_path).splitlines()
    assert header.endswith("| one face, GPU | 64, GPU |")
    assert [line.endswith("| 0.6 ms | 0.02 ms |") for line in lines].count(True) == 1
    assert [line.endswith("| - | - |") for line in lines].count(True) == len(lines) - 1


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_of_the_documents_shows_the_records(name):
    def numbers(drawn):
        return re.findall(r">([^<>]*[0-9][^<>]*)<", drawn.decode())

    committed = (ROOT / "docs" / f"{name}.svg").read_bytes()
    assert len(numbers(committed)) > 10
    assert numbers(committed) == numbers(svg(name)), "python -m results draws the figures again"


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.name)
def test_a_record_is_whole_and_agrees_with_its_predictions(record):
    run, predictions = read_run(record), Predictions.load(record / PREDICTIONS)
    metrics = run.metrics["test"]
    assert sorted(path.name for path in record.iterdir()) == sorted([*TEXTS, PREDICTIONS])
    assert record_name(run) == record.name
    assert metrics["n"] == len(predictions)
    assert metrics["acc"] == pytest.approx(np.mean(predictions.predicted == predictions.labels), abs=1e-9)
    assert metrics["confusion"] == predictions.confusion[:, :-1].tolist()


def test_a_collected_record_has_no_paths_and_no_weights(run_folder, tmp_path):
    (record,) = collect([run_folder.parent], tmp_path / "records")
    assert record.name == RECORDS[0].name
    assert sorted(path.name for path in record.iterdir()) == sorted([*TEXTS, PREDICTIONS])
    for name in TEXTS:
        assert (record / name).read_text() == (RECORDS[0] / name).read_text()
    assert (record / PREDICTIONS).stat().st_size < (run_folder / PREDICTIONS).stat().st_size / 3
    probs = Predictions.load(run_folder / PREDICTIONS).probs
    assert np.array_equal(Predictions.load(record / PREDICTIONS).probs, probs)


def test_the_teacher_of_a_record_is_named_without_its_place(run_folder, tmp_path):
    teacher = "/home/me/outputs/teacher/predictions_train.npz"
    config = (run_folder / "config.yaml").read_text()
    changed, count = re.subn(r"soft_targets: .*", f"soft_targets: {teacher}", config)
    assert count == 1
    (run_folder / "config.yaml").write_text(changed)
    (record,) = collect([run_folder], tmp_path / "records")
    assert "soft_targets: outputs/teacher/predictions_train.npz\n" in (record / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": "interrupted"}, "state interrupted, expected finished"),
        ({"data": {"fingerprint": "0" * 32}}, "expected FER-2013's"),
        ({"git": {"commit": "0" * 40, "dirty": True}}, "code that is in no commit"),
        ({"git": None}, "code that is in no commit"),
        (
            {"command": "python train.py data.cache_dir=/home/me/cache"},
            "contains /home/me/cache, a path of this",
        ),
    ],
    ids=["unfinished", "other data", "uncommitted", "no git", "path"],
)
def test_what_is_no_published_result_is_refused(run_folder, tmp_path, changes, message):
    altered(run_folder, **changes)
    with pytest.raises(FERError, match=message):
        collect([run_folder], tmp_path / "records")
    assert not (tmp_path / "records").exists()


def test_a_limited_run_is_refused(run_folder, tmp_path):
    metrics = json.loads((run_folder / "metrics.json").read_text()) | {"limited": ["trainer=smoke"]}
    (run_folder / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(FERError, match="limited by trainer=smoke; its numbers are not results"):
        collect([run_folder], tmp_path / "records")


def ablation_of(*rows):
    """The file of ``benchmarks.ablation`` for two seeds; a digit per image has a bit per seed."""
    return {"seeds": [0, 1], "rows": [{"name": name, "correct": digits} for name, digits in rows]}


def test_the_table_of_an_ablation_compares_image_by_image(tmp_path):
    base = "0" * 50 + "3" * 50
    content = ablation_of(("as it is", base), ("small", base[:-1] + "1"), ("large", "3" * 20 + base[20:]))
    (tmp_path / "ablation.json").write_text(json.dumps(content))
    _, _, first, *others = ablation_table(tmp_path).splitlines()
    assert first == "| as it is | 50.00 (0.00) |  |  |  |  |"
    assert [line.split(" | ")[0] for line in others] == ["| large", "| small"]
    assert "| 70.00 (0.00) | +20.00 (+12.12 to +27.88) | +20.0 +20.0 | < 0.001 | better |" in others[0]
    assert "| 49.50 (0.71) | -0.50 (-1.48 to +0.48) | +0.0 -1.0 | 0.32 | undecided |" in others[1]


def test_seeds_that_disagree_decide_nothing(tmp_path):
    base = right_by_seed("0" * 100, 2)
    better = np.stack([np.arange(100) < 60, np.arange(100) < 0])
    test = paired_difference(better, base)
    assert test.p_value < 0.001
    assert verdict(test, test.p_value) == "undecided"
    all_worse = paired_difference(base, right_by_seed("3" * 100, 2))
    assert (all_worse.p_value, verdict(all_worse, all_worse.p_value)) == (0.0, "worse")
    assert paired_difference(base, base).p_value == 1.0


def test_the_interval_of_a_difference_is_that_of_scipy():
    rng = np.random.default_rng(0)
    changed, base = rng.random((2, 3, 400)) < 0.6
    test = paired_difference(changed, base)
    by_image = changed.mean(axis=0) - base.mean(axis=0)
    expected = scipy.stats.norm.interval(0.95, by_image.mean(), scipy.stats.sem(by_image))
    assert test.interval == pytest.approx(expected)
    assert test.p_value == pytest.approx(
        2 * scipy.stats.norm.sf(abs(by_image.mean()) / scipy.stats.sem(by_image))
    )
    assert test.by_seed == pytest.approx(list(changed.mean(axis=1) - base.mean(axis=1)))


def test_digits_hold_what_each_seed_is_right_on():
    correct = np.random.default_rng(1).random((3, 40)) < 0.5
    digits = octal_digits(list(correct))
    assert len(digits) == 40
    assert np.array_equal(right_by_seed(digits, 3), correct)


def test_every_change_of_the_ablation_composes_and_changes_the_recipe():
    as_it_is = loops.resolve(*BASE, "data=synthetic")
    for name, changes in CHANGES.items():
        changed = loops.resolve(*BASE, "data=synthetic", *changes)
        assert (changed == as_it_is) == (not changes), name


def test_rows_of_an_ablation_are_added_in_order(tmp_path):
    path = tmp_path / "ablation.json"
    (base, second, *_), (view, *_) = CHANGES, VIEWS

    def rows_after(correct, *names):
        write({name: {"name": name, "correct": correct} for name in names}, path)
        return [(row["name"], row["correct"]) for row in json.loads(path.read_text())["rows"]]

    rows_after("1", view, second)
    assert rows_after("2", base, second) == [(base, "2"), (second, "2"), (view, "1")]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base": ["experiment=paper"]}))
    assert rows_after("3", base) == [(base, "3")]  # rows of another recipe are not comparable
