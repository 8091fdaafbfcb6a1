import math

import pytest

from fer_lightning.errors import FERError
from fer_lightning.report.runs import find_runs, read_run


def test_a_run_that_died_before_its_first_epoch_still_reads(tmp_path):
    (tmp_path / "overrides.yaml").write_text("- model=mlp\n")

    run = read_run(tmp_path)

    assert (run.state, run.overrides, run.split, run.history) == ("unknown", ["model=mlp"], None, {})


def test_a_csv_cut_in_the_middle_of_a_line_reads_to_its_last_cell(make_run):
    folder = make_run()
    (folder / "metrics.csv").write_text("epoch,train/loss,val/loss\n0,1.5,1.4\n1,1.2")

    history = read_run(folder).history

    assert history["train/loss"] == [1.5, 1.2]
    assert history["val/loss"][0] == 1.4
    assert math.isnan(history["val/loss"][1])


def test_the_split_least_used_for_training_is_the_one_reported(make_run):
    assert read_run(make_run()).split == "test"


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_damaged_file_is_named(make_run, content):
    folder = make_run()
    (folder / "metrics.json").write_text(content)

    with pytest.raises(FERError, match=r"metrics\.json"):
        read_run(folder)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(FERError, match="not a run folder"):
        read_run(tmp_path)
    with pytest.raises(FERError, match="no run in it"):
        find_runs([tmp_path / "nowhere"])


def test_a_sweep_folder_stands_for_its_jobs_in_the_order_of_their_numbers(make_run, tmp_path):
    for name in ("sweep/10_cnn", "sweep/9_mlp", "sweep/0_rnn"):
        make_run(name)
    (tmp_path / "sweep/figures").mkdir()

    assert [folder.name for folder in find_runs([tmp_path / "sweep"])] == ["0_rnn", "9_mlp", "10_cnn"]
