import math
import os

import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.report.page import write_comparison, write_page
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


LINKED = ("run.json", "metrics.json", "metrics.csv", "config.yaml", "overrides.yaml")


@pytest.mark.parametrize("name", LINKED)
def test_no_file_of_a_run_is_read_through_a_link_that_leads_out(name, make_run, tmp_path):
    folder = make_run()
    if name == "overrides.yaml":  # read where run.json does not tell them
        (folder / "run.json").unlink()
    (folder / name).unlink(missing_ok=True)
    (tmp_path / "secret").write_text("password: hunter2\n")
    (folder / name).symlink_to(tmp_path / "secret")

    with pytest.raises(FERError, match=f"{name}: a symbolic link that leads out of the run folder") as told:
        read_run(folder)
    assert "hunter2" not in str(told.value)


@pytest.mark.usefixtures("saving_costs_nothing")
@pytest.mark.parametrize(
    "write",
    [write_page, lambda folder: write_comparison([folder], folder / "x.html")],
    ids=["page", "comparison"],
)
def test_predictions_are_not_read_through_a_link_that_leads_out(write, make_run, tmp_path):
    folder = make_run(n=60)
    (folder / "predictions_test.npz").rename(tmp_path / "elsewhere.npz")
    (folder / "predictions_test.npz").symlink_to(tmp_path / "elsewhere.npz")

    with pytest.raises(FERError, match="predictions_test.npz: a symbolic link that leads out"):
        write(folder)


def test_a_link_that_stays_in_its_run_and_one_to_the_run_are_followed(make_run, tmp_path):
    folder = make_run()
    (folder / "config.yaml").rename(folder / "first.yaml")
    (folder / "config.yaml").symlink_to("first.yaml")
    (tmp_path / "newest").symlink_to(folder)

    assert read_run(tmp_path / "newest").config == (folder / "first.yaml").read_text()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: path.symlink_to(path.name), "a symbolic link that leads to itself"),
        (os.mkfifo, "a folder, a pipe or a device, expected a file"),
        (os.mkdir, "a folder, a pipe or a device, expected a file"),
    ],
    ids=["loop", "pipe", "folder"],
)
def test_what_is_no_file_is_named_and_not_waited_for(make, told, make_run):
    folder = make_run()
    (folder / "config.yaml").unlink()
    make(folder / "config.yaml")

    with pytest.raises(FERError, match=f"config.yaml: {told}"):
        read_run(folder)
