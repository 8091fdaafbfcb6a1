"""The Python blocks of the documents run, and give what the text around them says."""

import ast
import re
import warnings
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from fer_lightning import Predictions
from tests.commands import ROOT, TINY
from tests.data.conftest import Forms, make_faces
from tests.docs.documents import DOCUMENTS, blocks_of

QUIET = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


def python_blocks(name, containing=""):
    return [block for block in blocks_of(ROOT / name, "python") if containing in block]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def random_predictions(seed):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet([0.3] * 3, size=60).astype(np.float32)
    return Predictions(
        ids=np.array([f"test/happy/{number}" for number in range(60)]),
        labels=np.arange(60) % 3,
        probs=probs,
        status=np.full(60, "ok"),
        leaked=np.arange(60) < 5,
        classes=("happy", "sad", "surprise"),
    )


def test_every_page_with_python_is_executed_by_a_test():
    found = {
        path.relative_to(ROOT).as_posix()
        for path in DOCUMENTS
        if path.suffix == ".md" and blocks_of(path, "python")
    }
    elsewhere = {"CONTRIBUTING.md", "docs/extending.md"}  # tests/test_documents.py, tests/extending/
    assert found - elsewhere == {
        "docs/figures.md",
        "docs/predict.md",
        "docs/python.md",
        "docs/your_own_faces.md",
    }


# From Python


def test_lines_for_a_notebook_train_test_and_predict(here):
    Forms(here, make_faces() * 3).zip()
    (lines,) = python_blocks("docs/python.md", "CNN(")
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Lightning, about a few batches and no workers
        exec(lines.replace("max_epochs=5", f"max_epochs=1, **{QUIET}"), names)
    assert names["probs"].shape == (7, 7)
    images = torch.from_numpy(names["data"].faces.images[names["rows"].numpy()]).unsqueeze(1)
    torch.testing.assert_close(names["again"](images).softmax(1), names["probs"], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_lines_with_build_train_in_a_run_folder(here):
    (lines,) = python_blocks("docs/python.md", "build(")
    built = {"SMALL": TINY}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(lines.replace('"logger=csv"', '"logger=csv", "trainer=smoke", *SMALL'), built)
    folder = here / built["trainer"].default_root_dir
    assert {"best.ckpt", "last.ckpt", "metrics.csv", "csv"} <= {path.name for path in folder.iterdir()}


def test_lines_for_metrics_compare_two_runs(here, capsys):
    for seed, name in enumerate(("first_run", "second_run")):
        (here / name).mkdir()
        random_predictions(seed).save(here / name / "predictions_test.npz")
    (lines,) = python_blocks("docs/python.md", "compare_pairs")
    names = {}
    exec(lines, names)
    assert (names["test"].first, names["test"].n) == ("first_run", 60)
    accuracy = (random_predictions(0).predicted == np.arange(60) % 3).mean()
    assert f"first_run: {accuracy:.2%}, 95 % CI" in capsys.readouterr().out


# Photographs


@pytest.mark.parametrize("page", ["docs/predict.md", "docs/python.md"])
def test_lines_for_photographs_find_a_happy_face(page, here, capsys):
    pytest.importorskip("cv2")
    Image.fromarray(pytest.importorskip("skimage.data").astronaut()).save(here / "photo.jpg")
    (lines,) = python_blocks(page, "FERPredictor.load()")
    names = {}
    exec(lines, names)
    if page == "docs/python.md":
        assert "happy" in capsys.readouterr().out
    else:
        assert [face.expression for face in names["faces"]] == ["happy"]
        assert names["seen"][0].heat.ndim == 2


def test_lines_for_own_images_give_predictions(here):
    for name in ("happy", "angry"):
        (here / "my_images" / name).mkdir(parents=True)
        Image.fromarray(np.arange(48 * 48, dtype=np.uint8).reshape(48, 48)).save(
            here / f"my_images/{name}/001.png"
        )
    (lines,) = python_blocks("docs/your_own_faces.md")
    names = {}
    exec(lines, names)
    predictions = names["predictions"]
    assert [predictions.classes[label] for label in predictions.labels] == ["happy", "angry"]


# Figures


@pytest.fixture
def figures_page(here):
    """The folder in which docs/figures.md runs: a run's predictions, and the style file of the page."""
    folder = here / "outputs/DATE/RUN"
    folder.mkdir(parents=True)
    random_predictions(0).save(folder / "predictions_test.npz")
    (style,) = [
        block for block in blocks_of(ROOT / "docs/figures.md", "text") if block.startswith("# mine.mplstyle")
    ]
    (here / "mine.mplstyle").write_text(style)
    return here


def run_cells(blocks):
    """Execute blocks like cells; return the names, and the value of each line that is an expression."""
    names, values = {}, []
    for block in blocks:
        for node in ast.parse(block).body:
            if isinstance(node, ast.Expr):
                values.append((ast.unparse(node.value.func), eval(ast.unparse(node), names)))
            else:
                exec(ast.unparse(node), names)
    return SimpleNamespace(**{name: value for name, value in names.items() if name != "__builtins__"}), values


def test_lines_for_figures_draw_one_each(figures_page):
    names, values = run_cells(python_blocks("docs/figures.md"))
    drawn = [name for name, value in values if name.startswith("figures.")]
    assert all(isinstance(value, Figure) for name, value in values if name.startswith("figures."))
    assert len(drawn) == len(set(drawn)) + 1 >= 12  # the confusion matrix twice, and in German within a block
    assert {name.rpartition(".")[2] for name in drawn} >= set(names.figures.__all__) - {
        "MAX_SERIES", "STYLE", "change_style", "style_context",  # the style
        "AccuracyRow", "LANGUAGES", "change_language",  # no figures
        "architecture", "audit_examples", "class_explanations",  # take what other functions return
        "confusion_panels", "per_class_panels", "parallel_coordinates",  # as their neighbours
    }  # fmt: skip
    assert (figures_page / "curves.pdf").stat().st_size > 1000
    assert names.figure.axes[0].get_lines()[0].get_color() in ("000000", "#000000")  # of mine.mplstyle
    assert mpl.rcParams["font.family"] == ["sans-serif"]


def test_the_page_names_every_option_of_the_command():
    text = (ROOT / "docs/figures.md").read_text()
    code = (ROOT / "fer_lightning/cli/report.py").read_text()
    options = set(re.findall(r'"(--(?:figures|dpi|width|style|out))"', code))
    assert options == {"--figures", "--dpi", "--width", "--style", "--out"}
    assert all(f"`{option}" in text for option in options)
