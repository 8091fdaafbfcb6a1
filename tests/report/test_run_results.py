import math
import os

import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.report.comparison_page import write_comparison
from fer_lightning.report.run_page import write_page
from fer_lightning.report.run_results import find_run_folders, read_run


def test_run_killed_before_its_first_epoch_is_read(tmp_path):
    (tmp_path / "overrides.yaml").write_text("- model=mlp\n")

    run = read_run(tmp_path)

    assert (run.state, run.overrides, run.split, run.history) == ("unknown", ["model=mlp"], None, {})


def test_truncated_csv_is_read_up_to_its_last_cell(make_run):
    folder = make_run()
    (folder / "metrics.csv").write_text("epoch,train/loss,val/loss\n0,1.5,1.4\n1,1.2")

    history = read_run(folder).history

    assert history["train/loss"] == [1.5, 1.2]
    assert history["val/loss"][0] == 1.4
    assert math.isnan(history["val/loss"][1])


def test_test_split_is_the_reported_one(make_run):
    assert read_run(make_run()).split == "test"


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_damaged_json_names_the_file(make_run, content):
    folder = make_run()
    (folder / "metrics.json").write_text(content)

    with pytest.raises(FERError, match=r"metrics\.json"):
        read_run(folder)


def test_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(FERError, match="not a run folder"):
        read_run(tmp_path)
    with pytest.raises(FERError, match="no run in it"):
        find_run_folders([tmp_path / "nowhere"])


def test_sweep_folder_is_replaced_by_its_jobs_in_order(make_run, tmp_path):
    for name in ("sweep/10_cnn", "sweep/9_mlp", "sweep/0_rnn"):
        make_run(name)
    (tmp_path / "sweep/figures").mkdir()

    assert [folder.name for folder in find_run_folders([tmp_path / "sweep"])] == ["0_rnn", "9_mlp", "10_cnn"]


LINKED = ("run.json", "metrics.json", "metrics.csv", "config.yaml", "overrides.yaml")


@pytest.mark.parametrize("name", LINKED)
def test_link_out_of_a_run_folder_is_not_followed(name, make_run, tmp_path):
    folder = make_run()
    if name == "overrides.yaml":  # read only if run.json lacks them
        (folder / "run.json").unlink()
    (folder / name).unlink(missing_ok=True)
    (tmp_path / "secret").write_text("password: hunter2\n")
    (folder / name).symlink_to(tmp_path / "secret")

    with pytest.raises(FERError, match=f"{name}: a symbolic link that leads out of the run folder") as caught:
        read_run(folder)
    assert "hunter2" not in str(caught.value)


@pytest.mark.usefixtures("fast_figures")
@pytest.mark.parametrize(
    "write",
    [write_page, lambda folder: write_comparison([folder], folder / "x.html")],
    ids=["page", "comparison"],
)
def test_predictions_behind_a_link_out_are_not_read(write, make_run, tmp_path):
    folder = make_run(n=60)
    (folder / "predictions_test.npz").rename(tmp_path / "elsewhere.npz")
    (folder / "predictions_test.npz").symlink_to(tmp_path / "elsewhere.npz")

    with pytest.raises(FERError, match="predictions_test.npz: a symbolic link that leads out"):
        write(folder)


def test_links_inside_a_run_folder_and_to_it_are_followed(make_run, tmp_path):
    folder = make_run()
    (folder / "config.yaml").rename(folder / "first.yaml")
    (folder / "config.yaml").symlink_to("first.yaml")
    (tmp_path / "newest").symlink_to(folder)

    assert read_run(tmp_path / "newest").config == (folder / "first.yaml").read_text()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.symlink_to(path.name), "a symbolic link that leads to itself"),
        (os.mkfifo, "a folder, a pipe or a device, expected a file"),
        (os.mkdir, "a folder, a pipe or a device, expected a file"),
    ],
    ids=["loop", "pipe", "folder"],
)
def test_path_that_is_no_file_is_refused(make, message, make_run):
    folder = make_run()
    (folder / "config.yaml").unlink()
    make(folder / "config.yaml")

    with pytest.raises(FERError, match=f"config.yaml: {message}"):
        read_run(folder)
