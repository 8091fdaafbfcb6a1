"""``fer-lightning benchmark``: one network on data sets with other classes."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.evaluation.stats import wilson_interval
from tests.commands import TINY, succeed

SMALL = ("model=mlp", "model.hidden=[16]", *TINY, "data.image_size=16", "logger=none")
BENCHMARK = ("-m", "fer_lightning", "benchmark", "run")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def folder(cache, tmp_path_factory):
    """A run on the seven expressions, class folders with split folders and others without."""
    cwd = tmp_path_factory.mktemp("cwd")
    succeed("train.py", *SMALL, "trainer.max_epochs=1", "hydra.run.dir=run", cwd=cwd, cache=cache)
    random = np.random.default_rng(0)
    for place, num in {
        **{f"own/{split}/{name}": 8 for split in ("train", "test") for name in ("Happiness", "anger", "sad")},
        **{f"own/{split}/contempt": 3 for split in ("train", "test")},
        **{f"flat/{name}": 20 for name in ("happy", "fear")},
        **{f"few/{name}": 1 for name in ("happy", "fear")},
    }.items():
        (cwd / place).mkdir(parents=True)
        for number in range(num):
            image = random.integers(0, 256, (16, 16), np.uint8)
            Image.fromarray(image).save(cwd / place / f"{number}.png")
    return cwd


@pytest.fixture(scope="module")
def benchmark(folder, cache):
    data = ("--data", "image_folder:own,image_folder:flat", "--save", "saved")
    return succeed(*BENCHMARK, *data, cwd=folder, cache=cache)


def test_rows_have_the_classes_that_each_data_set_shares(folder, benchmark):
    own, flat = json.loads((folder / "saved/benchmark.json").read_text())["rows"]
    assert own["classes"] == ["angry", "happy", "sad"]
    assert own["lacking"] == ["disgust", "fear", "neutral", "surprise"]
    assert own["left_out"] == {"contempt": 3}
    assert (own["n"], own["split_origin"]) == (24, "official")
    assert flat["classes"] == ["fear", "happy"]
    assert (flat["n"], flat["split_origin"], flat["left_out"]) == (4, "dealt", {})
    assert (
        "image_folder:own: images of classes that the network lacks are left out: 3 of contempt"
        in benchmark.stdout
    )
    assert "image_folder:flat: has no test split of its own; a part of its images was" in benchmark.stdout


def test_numbers_are_those_of_the_networks_answers_among_the_shared_classes(folder, benchmark, cache):
    words = ("eval.py", "checkpoint=run", "data=image_folder", "data.root=own", "hydra.run.dir=evaluated")
    succeed(*words, cwd=folder, cache=cache)
    whole = Predictions.load(folder / "evaluated/predictions_test.npz")
    assert len(whole) == 24, "eval.py leaves contempt out, too"
    shared = [whole.classes.index(name) for name in ("angry", "happy", "sad")]
    right = np.array(shared)[whole.probs[:, shared].argmax(1)] == whole.labels
    assert right.mean() > whole.correct.mean()
    (row, _) = json.loads((folder / "saved/benchmark.json").read_text())["rows"]
    assert row["acc"] == pytest.approx(right.mean())
    assert row["ci95"]["acc"] == pytest.approx(wilson_interval(right.mean(), 24))
    assert row["leak_free_acc"] == pytest.approx(right.mean()), "no image of it trained the network"
    assert 0 <= row["ci95"]["f1_macro"][0] <= row["f1_macro"] <= row["ci95"]["f1_macro"][1] <= 1
    assert 0 < row["ece"] < 1


def test_table_and_csv_have_one_line_per_data_set(folder, benchmark):
    with (folder / "saved/benchmark.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    rows = json.loads((folder / "saved/benchmark.json").read_text())["rows"]
    assert [line["given"] for line in lines] == ["image_folder:own", "image_folder:flat"]
    assert [float(line["acc"]) for line in lines] == [row["acc"] for row in rows]
    assert [float(line["ece_ci95_high"]) for line in lines] == [row["ci95"]["ece"][1] for row in rows]
    assert [line["left_out"] for line in lines] == ["3", "0"]
    assert "3 of 7" in benchmark.stdout
    assert "2 of 7" in benchmark.stdout
    assert f"{100 * rows[0]['acc']:.1f}" in benchmark.stdout


def test_split_all_takes_every_image_and_splits_none_off(folder, cache):
    words = ("--data", "image_folder:flat", "--data", "image_folder:few", "--split", "all", "--save", "all")
    succeed(*BENCHMARK, *words, cwd=folder, cache=cache)
    flat, few = json.loads((folder / "all/benchmark.json").read_text())["rows"]
    assert (flat["n"], flat["split_origin"]) == (40, "all images")
    assert (few["n"], few["split_origin"]) == (2, "all images")
