import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as PILImage

from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.report import drawing
from fer_lightning.report.drawing import confident_errors, draw_all, draw_audit, draw_run, export_figures


def stems(folder, suffix):
    return {path.stem for path in (folder / "figures").glob(f"*.{suffix}")}


def test_draw_all_draws_every_figure(make_run):
    folder = make_run(n=60)
    images = np.zeros((60, 48, 48), dtype=np.uint8)

    draw_all(folder, split="test", images=images, train_samples=(images, np.arange(60) % 7))

    drawn = {
        "class_distribution",
        "confusion_counts_test",
        "confusion_test",
        "learning_curves",
        "per_class_test",
        "reliability_test",
        "roc_test",
    }
    of_images = {"mistakes_test", "samples"}
    assert stems(folder, "pdf") == drawn
    assert stems(folder, "png") == stems(folder, "svg") == drawn | of_images
    title = "CNN on FER-2013, seed 0, 4 epochs: confusion test"
    with PILImage.open(folder / "figures/confusion_test.png") as image:
        assert image.info["Title"] == title
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    pdf = (folder / "figures/confusion_test.pdf").read_bytes()
    assert f"/Title ({title})".encode() in pdf
    assert b"/FontFile2" in pdf  # a TrueType font is embedded, as journals demand
    assert b"/Type3" not in pdf
    svg = (folder / "figures/confusion_test.svg").read_text()
    assert f"<title>{title}</title>" in svg
    assert ">happy<" in svg.replace(" ", "")  # text is text


def mark_run(folder, **marks):
    for name in ("run.json", "metrics.json"):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | marks))
    return folder


def test_limited_run_is_marked_above_each_figure(make_run, monkeypatch):
    monkeypatch.setattr(drawing, "FORMATS", ("svg",))
    whole, limited = make_run(n=60), mark_run(make_run("smoke", n=60), limited=["trainer=smoke"])
    for folder in (whole, limited):
        draw_run(folder)

    for name in stems(whole, "svg"):
        marked = (limited / f"figures/{name}.svg").read_text()
        assert ">limited run: not results (trainer=smoke)<" in marked
        assert "not results" not in (whole / f"figures/{name}.svg").read_text()
        heights = [
            float(
                re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', (folder / f"figures/{name}.svg").read_text())[1]
            )
            for folder in (whole, limited)
        ]
        assert heights[0] + 10 < heights[1] < heights[0] + 30  # a line, below which the figure is as it was
        assert "(limited run, not results)</title>" in marked


@pytest.mark.usefixtures("fast_figures")
@pytest.mark.parametrize(
    ("marks", "ending"),
    [
        ({}, "seed-0"),
        ({"limited": ["trainer=smoke"]}, "seed-0_limited"),
        ({"synthetic": True}, "seed-0_synthetic"),
        ({"synthetic": True, "limited": ["trainer=smoke"]}, "seed-0_limited_synthetic"),
    ],
)
def test_exported_figures_are_marked_in_their_names(marks, ending, make_run, tmp_path):
    written = export_figures(mark_run(make_run(n=60), **marks), tmp_path / "out", "pdf")

    assert {path.stem.partition("on-fer-2013-")[2] for path in written} == {ending}


def test_number_of_images_must_match_predictions(make_run):
    images = np.zeros((59, 48, 48), dtype=np.uint8)

    with pytest.raises(AssertionError):
        draw_all(make_run(n=60), split="test", images=images, train_samples=(images, np.zeros(59, dtype=int)))


@pytest.mark.usefixtures("fast_figures")
def test_figure_is_redrawn_only_if_older_than_its_data(make_run):
    folder = make_run(n=60)
    draw_run(folder)
    figures = sorted((folder / "figures").iterdir())
    for path in figures:
        path.write_bytes(b"drawn")
    os.utime(folder / "metrics.json", ns=(2**62, 2**62))

    draw_run(folder)

    kept = {path.stem for path in figures if path.read_bytes() == b"drawn"}
    assert kept == {"learning_curves", "reliability_test", "roc_test"}


@pytest.mark.usefixtures("fast_figures")
def test_split_without_images_has_no_result_figures(make_run):
    folder = make_run(n=60)
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(metrics | {"test": {"acc": None, "n": 0}}))

    draw_run(folder)

    assert {path.stem for path in (folder / "figures").iterdir()} == {"class_distribution", "learning_curves"}


@pytest.mark.usefixtures("fast_figures")
def test_answers_without_confidence_have_no_reliability_diagram(make_run, monkeypatch):
    folder = make_run(n=60)
    graded = Predictions.load(folder / "predictions_test.npz")
    certain = np.eye(7, dtype=np.float32)[graded.predicted]
    replace(graded, probs=certain).save(folder / "predictions_test.npz")
    real, images, given = drawing.figures.misclassified_images, np.zeros((60, 8, 8), np.uint8), []
    monkeypatch.setattr(
        drawing.figures, "misclassified_images", lambda *args: given.append(args[3]) or real(*args)
    )

    draw_all(folder, split="test", images=images, train_samples=(images, np.arange(60) % 7))

    assert (folder / "figures/confusion_test.png").exists()
    assert not (folder / "figures/reliability_test.png").exists()
    assert not (folder / "figures/roc_test.png").exists()
    assert given == [None]


def test_confident_errors_exclude_unanswered_images():
    probs = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [np.nan, np.nan]], dtype=np.float32)
    predictions = Predictions(
        ids=np.array(["a", "b", "c", "d"]),
        labels=np.array([1, 1, 1, 0]),
        probs=probs,
        status=np.array(["ok", "ok", "ok", "refused"]),
        leaked=np.zeros(4, dtype=bool),
        classes=("x", "y"),
    )

    assert confident_errors(predictions).tolist() == [1, 0]


def test_audit_examples_show_split_label_and_name(make_run, monkeypatch):
    folder = make_run(n=60)
    examples = [
        {"kind": "conflict", "rows": [0, 3], "ids": ["train/x/one.jpg", "test/y/two.jpg"]},
        {"kind": "constant", "rows": [2], "ids": ["val/x/three.jpg"]},
    ]
    (folder / "audit.json").write_text(json.dumps({"examples": examples}))
    images = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8)
    given = {}
    real = drawing.figures.audit_examples
    monkeypatch.setattr(
        drawing.figures, "audit_examples", lambda groups: given.update(groups) or real(groups)
    )

    draw_audit(folder, images=images, labels=np.array([0, 0, 0, 1]), classes=("x", "y"))

    assert (folder / "figures" / "audit.png").exists()
    ((pair, captions),) = given["pixel-identical, different labels"]
    assert (pair[:, 0, 0].tolist(), captions) == ([0, 3], ["train: x\none", "test: y\ntwo"])
    assert [captions for _, captions in given["blank images"]] == [["val: x\nthree"]]


def test_audit_without_examples_draws_nothing(make_run):
    folder = make_run(n=60)
    (folder / "audit.json").write_text(json.dumps({"examples": []}))

    draw_audit(folder, images=np.zeros((1, 8, 8), np.uint8), labels=np.zeros(1, int), classes=("x",))

    assert not (folder / "figures" / "audit.png").exists()
