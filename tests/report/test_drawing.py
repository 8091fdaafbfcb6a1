import json
import os

import numpy as np
import pytest

from fer_lightning.predictions import Predictions
from fer_lightning.report.drawing import confident_mistakes, draw_all, draw_run


def test_every_figure_of_a_run_is_drawn_while_its_images_are_at_hand(make_run):
    folder = make_run(n=60)
    images = np.zeros((60, 48, 48), dtype=np.uint8)

    draw_all(folder, split="test", images=images, train_samples=(images, np.arange(60) % 7))

    assert sorted(path.stem for path in (folder / "figures").iterdir()) == [
        *("class_distribution", "confusion_counts_test", "confusion_test", "learning_curves"),
        *("mistakes_test", "per_class_test", "reliability_test", "samples"),
    ]


def test_images_that_are_not_those_of_the_predictions_are_a_bug(make_run):
    images = np.zeros((59, 48, 48), dtype=np.uint8)

    with pytest.raises(AssertionError):
        draw_all(make_run(n=60), split="test", images=images, train_samples=(images, np.zeros(59, dtype=int)))


@pytest.mark.usefixtures("saving_costs_nothing")
def test_a_figure_is_drawn_again_only_when_older_than_what_it_shows(make_run):
    folder = make_run(n=60)
    draw_run(folder)
    figures = sorted((folder / "figures").iterdir())
    for path in figures:
        path.write_bytes(b"drawn")
    os.utime(folder / "metrics.json", ns=(2**62, 2**62))

    draw_run(folder)

    kept = {path.stem for path in figures if path.read_bytes() == b"drawn"}
    assert kept == {"class_distribution", "learning_curves", "reliability_test"}


@pytest.mark.usefixtures("saving_costs_nothing")
def test_a_split_without_images_draws_no_results(make_run):
    folder = make_run(n=60)
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(metrics | {"test": {"acc": None, "n": 0}}))

    draw_run(folder)

    assert {path.stem for path in (folder / "figures").iterdir()} == {"class_distribution", "learning_curves"}


def test_mistakes_are_wrong_answers_surest_first_and_silence_is_none():
    probs = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [np.nan, np.nan]], dtype=np.float32)
    predictions = Predictions(
        ids=np.array(["a", "b", "c", "d"]),
        labels=np.array([1, 1, 1, 0]),
        probs=probs,
        status=np.array(["ok", "ok", "ok", "refused"]),
        leaked=np.zeros(4, dtype=bool),
        classes=("x", "y"),
    )

    assert confident_mistakes(predictions).tolist() == [1, 0]
