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


def test_a_csv_and_a_published_data_set_are_rows_too(folder, cache):
    """Of the CSV, a row of another class is left out; CK+ has contempt, and no images of neutral."""
    lines = [f"own/test/{name}/{number}.png,{name},test" for name in ("sad", "contempt") for number in (0, 1)]
    lines += [f"own/test/Happiness/{number}.png,happy,test" for number in range(3)]
    (folder / "faces.csv").write_text("\n".join(["path,label,split", *lines]))
    for subject, name in enumerate(("anger", "contempt", "sadness")):
        (folder / f"ckplus/{name}").mkdir(parents=True)
        for frame in range(2):
            source = folder / f"own/test/Happiness/{subject}.png"
            (folder / f"ckplus/{name}/S00{subject}_001_0000000{frame}.png").write_bytes(source.read_bytes())
    data = ("--data", "csv:faces.csv,ckplus:ckplus", "--split", "all", "--save", "more")
    done = succeed(*BENCHMARK, *data, cwd=folder, cache=cache)
    rows = json.loads((folder / "more/benchmark.json").read_text())["rows"]
    assert [(row["data"], row["n"], row["classes"]) for row in rows] == [
        ("csv", 5, ["happy", "sad"]), ("ckplus", 4, ["angry", "sad"]),
    ]  # fmt: skip
    assert rows[1]["left_out"] == {"contempt": 2}
    assert "2 rows of the unknown class 'contempt', left out" in done.stdout
