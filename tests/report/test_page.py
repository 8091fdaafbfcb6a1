import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.evaluation.stats import wilson_interval
from fer_lightning.report.comparison_page import write_comparison
from fer_lightning.report.drawing import draw_all
from fer_lightning.report.run_page import write_page

pytestmark = pytest.mark.usefixtures("fast_figures")

HOSTILE = ('<script>alert("1")</script>', '" onerror="alert(1)', "</details></style>", "a&b", "$x", "c", "d")


class Page(HTMLParser):
    """Tags with their attributes, and the text between them, as a browser would find them.

    ``facts`` has one line per pair of a list of facts, with a tab between both.
    """

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.open, self.facts = [], "", [], ""
        self.feed(path.read_text(encoding="utf-8").replace("<wbr>", ""))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        for tag, mark in (("dt", "\n"), ("dd", "\t")):
            if tag in self.open:
                self.facts += mark + data.strip()

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_run_page_is_complete_and_self_contained(make_run):
    folder = make_run(n=60)
    images = np.zeros((60, 48, 48), dtype=np.uint8)
    draw_all(folder, split="test", images=images, train_samples=(images, np.arange(60) % 7))

    page = Page(write_page(folder))

    assert not page.open
    assert len(page.all("img")) == 9
    assert all(
        image["src"].startswith("data:image/svg+xml;base64,") and image["alt"] for image in page.all("img")
    )
    targets = [value for _, given in page.tags for key, value in given.items() if key == "href"]
    assert targets == [f"#{section['id']}" for section in page.all("section")]
    accuracy = json.loads((folder / "metrics.json").read_text())["test"]["acc"]
    for part in (
        "CNN on FER-2013, seed 0, 4 epochs",
        f"{100 * accuracy:.2f} %",
        "leak-free",
        "best val/acc",
        "288 test images are duplicates",
        "python train.py model=cnn",
        "0123abc with uncommitted changes",
        "torch 2.14.1",
        "bf16-mixed",
        "2,245 images/s",
        "cache_dir: /cache/0",
    ):
        assert part in page.text, part
    assert "Synthetic" not in page.text


def test_sections_of_a_run_page_stand_in_reading_order(make_run):
    folder = make_run(n=60)
    images = np.zeros((60, 48, 48), dtype=np.uint8)
    draw_all(folder, split="test", images=images, train_samples=(images, np.arange(60) % 7))

    page = Page(write_page(folder))

    assert [section["id"] for section in page.all("section")] == [
        "learning-curves",
        "confusion-matrix",
        "results-per-class",
        "roc-and-precision-recall-curves",
        "calibration",
        "most-confident-errors",
        "data",
        "provenance",
    ]
    assert page.text.index("test accuracy") < page.text.index("All metrics of the test split")
    assert len(page.all("details")) == 4
    assert not [folded for folded in page.all("details") if "open" in folded]


def test_cards_have_two_short_lines_and_notes_below(make_run):
    folder = make_run(n=60)
    metrics = json.loads((folder / "metrics.json").read_text())

    text = " ".join(Page(write_page(folder)).text.split())

    low, high = (f"{100 * bound:.1f}" for bound in wilson_interval(metrics["test"]["acc"], 60))
    value = f"{100 * metrics['test']['acc']:.2f} %"
    assert f"test accuracy{value}95 % CI {low}-{high}n = 60" in text
    assert "leak-free accuracy1" in text
    assert "1 Excluding duplicates of train/val images." in text
    assert "checkpointepoch 3best val/acc" in text
    assert "epoch index" not in text


SETTINGS = """
model: {_target_: fer_lightning.models.resnet.ResNet, depth: 15}
optimizer: {_target_: torch.optim.SGD, lr: 0.2, momentum: 0.9, nesterov: true, maximize: false}
scheduler: {_target_: torch.optim.lr_scheduler.OneCycleLR}
data: {batch_size: 128}
trainer: {max_epochs: 30}
"""


def test_title_and_provenance_name_what_was_trained(make_run):
    started = {"started": "2026-11-27T10:20:10.703+00:00", "command": "python train.py resume=runs/0"}
    folder = make_run(model="resnet", seed=3, n=60, extra_info=started)
    (folder / "config.yaml").write_text(SETTINGS)

    page = Page(write_page(folder))

    assert "ResNet-15 on FER-2013, seed 3, 4 epochs" in page.text
    rows = dict(re.findall(r"(?<=\n)([\w ]+?)\t(.*)", page.facts))
    assert rows["optimizer"] == "SGD (momentum 0.9, nesterov)"
    assert rows["learning rate"] == "0.2, schedule OneCycleLR"
    assert (rows["batch size"], rows["epochs"]) == ("128", "4 of 30 planned")
    assert rows["started"] == "27 November 2026, 10:20 UTC"
    assert rows["overrides"].startswith("model=resnet seed=3")


def test_overrides_are_not_said_twice(make_run):
    page = Page(write_page(make_run(n=60)))

    assert "\ncommand\tpython train.py model=cnn seed=0" in page.facts
    assert "\noverrides\t" not in page.facts


def test_damaged_config_leaves_names_and_settings_out(make_run):
    folder = make_run(n=60)
    (folder / "config.yaml").write_text("model: [}")

    page = Page(write_page(folder))

    assert "CNN on FER-2013, seed 0, 4 epochs" in page.text
    assert "\noptimizer\t" not in page.facts


def test_hostile_names_are_escaped(make_run):
    folder = make_run("0_<img src=x>", classes=HOSTILE, n=200, extra_info={"name": "<b>", "reason": "<i>"})
    other = make_run("1_cnn", classes=HOSTILE, n=200)

    for path in (write_page(folder), write_comparison([folder, other], folder.parent / "report.html")):
        page = Page(path)
        assert len(page.all("script")) == 1
        assert not [key for _, given in page.tags for key in given if key.startswith("on")]
        assert not page.all("b") or all(not given for given in page.all("b"))
        assert not page.all("i")
        assert all(image["src"].startswith("data:") for image in page.all("img"))
        assert HOSTILE[0] in page.text or path.parent == folder.parent


def test_file_names_that_are_not_utf8_do_not_stop_the_page(make_run):
    folder = make_run(n=60, extra_info={"command": os.fsdecode(b"python train.py data.root=\xff")})

    assert "data.root=?" in Page(write_page(folder)).text


@pytest.mark.parametrize(
    ("given", "banner"),
    [
        ({"synthetic": True}, "Synthetic faces"),
        ({"state": "failed"}, "This run failed: data.root=<nowhere>: no such folder"),
        ({"state": "interrupted"}, "This run was interrupted"),
        ({"state": "running"}, "This run was still running"),
    ],
)
def test_banners_are_above_the_results(make_run, given, banner):
    page = Page(write_page(make_run(n=60, **given)))

    assert banner in page.text
    assert page.text.index(banner) < page.text.index("Provenance")


@pytest.mark.parametrize("kept", ["config.yaml", "run.json", "metrics.json"])
def test_page_needs_only_one_file(make_run, kept):
    folder = make_run(n=60)
    for path in folder.iterdir():
        if path.name != kept:
            path.unlink()

    assert Page(write_page(folder)).text


def test_failed_run_shows_its_learning_curves(make_run):
    folder = make_run(n=60)
    (folder / "metrics.json").unlink()

    page = Page(write_page(folder))

    assert page.all("img")[0]["alt"] == "learning curves"
    assert "Nothing was measured" in page.text


def test_offline_wandb_runs_show_view_and_upload_commands(make_run):
    folder = make_run("0 cnn", n=60)
    (folder / "wandb/offline-run-1").mkdir(parents=True)

    text = Page(write_page(folder)).text

    assert f"wandb leet '{folder}/wandb'" in text
    assert f"wandb sync '{folder}/wandb/offline-run-1'" in text


def test_errors_without_confidence_have_no_probability(make_run):
    folder = make_run(n=60)
    graded = Predictions.load(folder / "predictions_test.npz")
    certain = np.eye(7, dtype=np.float32)[graded.predicted]
    with_confidence = Page(write_page(folder)).text
    replace(graded, probs=certain).save(folder / "predictions_test.npz")

    text = Page(write_page(folder)).text

    assert "Most confident errors" in with_confidence
    assert "probability %" in with_confidence
    assert "Errors" in text
    assert "Most confident" not in text
    assert "probability" not in text


def write_calibration(folder, calibration):
    path = folder / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"calibration": calibration}))


def test_page_states_the_calibration_error_with_and_without_temperature(make_run):
    folder = make_run(n=60)
    measured = {"ece_before": 0.0422, "ece_after": 0.0279}
    write_calibration(folder, {"temperature": 0.8604, "fitted_on": "val", "test": measured})
    expected = (
        "With the temperature 0.86, chosen on val for predict and exports, the calibration error is "
        "2.79 points instead of 4.22."
    )
    assert expected in " ".join(Page(write_page(folder)).text.split())


@pytest.mark.parametrize(
    "calibration", [0.5, {}, {"temperature": "x"}, {"temperature": 1.0, "test": {"ece_after": [1]}}, [1]]
)
def test_altered_calibration_is_named(make_run, calibration):
    folder = make_run(n=60)
    write_calibration(folder, calibration)
    with pytest.raises(FERError, match=r"metrics.json: calibration is .*, expected a temperature"):
        write_page(folder)
