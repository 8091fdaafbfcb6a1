"""The records in results/, and the tables that README and docs have from them."""

import json
import re
import shutil

import numpy as np
import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.report.run_results import read_run
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
    with pytest.raises(FERError, match="results: pape: no such table, expected paper or improved"):
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
