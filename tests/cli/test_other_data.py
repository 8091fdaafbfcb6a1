"""Networks on other data than they were trained on: colour, other sizes, more classes, leaks."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from fer_lightning.data.labels import ALL_EXPRESSIONS, EXPRESSIONS
from fer_lightning.evaluation.predictions import Predictions
from tests.commands import run, sentence, succeed

MLP = ("model=mlp", "model.hidden=[16]", "trainer.max_epochs=1", "logger=none", "num_threads=1")
COLOUR = (*MLP, "data=image_folder", "data.root=faces", "data.image_size=16", "data.channels=3")


@pytest.fixture(scope="module")
def folder(cache, tmp_path_factory):
    """Class folders of colour images, and a network that was trained on a part of them."""
    cwd = tmp_path_factory.mktemp("cwd")
    random = np.random.default_rng(0)
    for name in EXPRESSIONS:
        (cwd / "faces" / name).mkdir(parents=True)
        for number in range(12):
            image = random.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(image).save(cwd / f"faces/{name}/{number}.png")
    succeed("train.py", *COLOUR, "hydra.run.dir=run", cwd=cwd, cache=cache)
    return cwd


def evaluate(folder, cache, name, *words):
    done = succeed("eval.py", "checkpoint=run", *words, f"hydra.run.dir={name}", cwd=folder, cache=cache)
    return done, json.loads((folder / name / "metrics.json").read_text())


def test_a_colour_network_is_evaluated_on_colour_images(folder, cache):
    named = ("data=image_folder", "data.root=faces", "split=all")
    _, metrics = evaluate(folder, cache, "named", *named)
    _, own = evaluate(folder, cache, "own")
    one, other = (
        Predictions.load(folder / f"{name}.npz") for name in ("named/predictions_all", "own/predictions_test")
    )
    place = {
        name.rpartition("/")[2] + str(label): row
        for row, (name, label) in enumerate(zip(one.ids, one.labels, strict=True))
    }
    rows = [
        place[name.rpartition("/")[2] + str(label)]
        for name, label in zip(other.ids, other.labels, strict=True)
    ]
    np.testing.assert_allclose(one.probs[rows], other.probs, atol=1e-6)
    assert one.leaked.sum() == 84 - len(other), "train and val have trained and selected it"
    assert metrics["all"]["leak_free"]["n"] == own["test"]["n"]


@pytest.mark.parametrize(("setting", "trained"), [("data.channels=1", 3), ("data.image_size=48", 16)])
def test_images_that_the_network_does_not_take_are_refused(folder, cache, setting, trained):
    words = ("checkpoint=run", "data=image_folder", "data.root=faces", setting)
    done = run("eval.py", *words, cwd=folder, cache=cache)
    assert sentence(done) == f"error: {setting}: the network was trained with {trained}; leave it out\n"
    right = f"{setting.partition('=')[0]}={trained}"
    evaluate(folder, cache, f"right_{trained}", "data=image_folder", "data.root=faces", right)


def test_a_split_that_was_dealt_out_is_named(folder, cache):
    done, metrics = evaluate(folder, cache, "dealt", "data=image_folder", "data.root=faces")
    said = (
        f"image_folder has no test split of its own: {metrics['test']['n']} of its 84 images were dealt out "
        "for it; split=all evaluates all images"
    )
    assert f"WARNING: {said}" in done.stdout
    assert said in (folder / "dealt/report.html").read_text()
    done, _ = evaluate(folder, cache, "whole", "data=image_folder", "data.root=faces", "split=all")
    assert "dealt out" not in done.stdout


def benchmark(folder, cache, network, *words):
    command = ("-m", "fer_lightning", "benchmark", network, *words, "--save", "saved")
    done = succeed(*command, cwd=folder, cache=cache)
    return done, json.loads((folder / "saved/benchmark.json").read_text())["rows"][0]


def test_images_that_trained_the_network_leave_no_leak_free_accuracy(folder, cache):
    done, row = benchmark(folder, cache, "run", "--data", "image_folder:faces", "--split", "train")
    assert (row["split_origin"], row["leak_free_n"], row["leak_free_acc"]) == ("dealt", 0, None)
    said = "no leak-free accuracy: each image, or a duplicate of it, trained or selected the network"
    assert said in " ".join(done.stdout.split())


def test_what_initial_weights_of_another_size_have_seen_is_not_known(folder, cache):
    small = ("model=resnet", "model.depth=15", "model.stem=small", "model.width=0.125", *COLOUR[2:])
    succeed("train.py", *small, "hydra.run.dir=small", cwd=folder, cache=cache)
    larger = (*small, "data.image_size=24", "init_from=small", "hydra.run.dir=larger")
    succeed("train.py", *larger, cwd=folder, cache=cache)
    reason = (
        "its initial weights were trained on images of 16 pixels and 3 channels, which cannot be found among "
        "those of another size"
    )
    metrics = json.loads((folder / "larger/metrics.json").read_text())
    assert metrics["test"]["leak_free"] is None
    assert metrics["test"]["leak_free_near_reason"] == reason
    _, row = benchmark(folder, cache, "larger", "--data", "image_folder:faces", "--split", "train")
    assert (row["leak_free_acc"], row["leak_free_reason"]) == (None, reason)
    same = (*small, "init_from=small", "hydra.run.dir=same_size")
    succeed("train.py", *same, cwd=folder, cache=cache)
    assert json.loads((folder / "same_size/metrics.json").read_text())["test"]["leak_free"] is not None


def test_rows_whose_votes_are_for_another_class_are_left_out(folder, cache):
    rows = []
    for name in ALL_EXPRESSIONS:
        for number in range(5):
            image = f"faces/{'neutral' if name == 'contempt' else name}/{number}.png"
            votes = {each: 9 * (each == name) + (each == "neutral") for each in ALL_EXPRESSIONS}
            rows.append({"path": image if name != "contempt" else f"other/{number}.png", **votes})
    (folder / "other").mkdir()
    for number in range(5):
        Image.fromarray(np.full((16, 16), number, np.uint8)).save(folder / f"other/{number}.png")
    with (folder / "votes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", *ALL_EXPRESSIONS])
        writer.writeheader()
        writer.writerows(rows)
    done, row = benchmark(folder, cache, "run", "--data", "csv:votes.csv", "--split", "all")
    assert row["n"] == 35
    assert "5 rows of the unknown class 'contempt', left out" in " ".join(done.stdout.split())
    _, metrics = evaluate(folder, cache, "votes", "data=csv", "data.root=votes.csv", "split=all")
    assert metrics["all"]["n"] == 35
    done = run(
        "train.py", *MLP, "data=csv", "data.root=votes.csv", "data.image_size=16", cwd=folder, cache=cache
    )
    assert "votes.csv:1: votes for contempt, which data.classes lacks; add it there" in sentence(done)
