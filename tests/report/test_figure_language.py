"""Figures in other languages: every text of a figure comes out of the language file."""

import re
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import yaml
from matplotlib.text import Text

from fer_lightning.cli.report import _make_parser, main
from fer_lightning.core.errors import FERError
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.evaluation.explanations import Explanations
from fer_lightning.report import figures
from fer_lightning.report.figures import language

FOLDER = Path(language.__file__).with_name("lang")
ENGLISH = yaml.safe_load((FOLDER / "en.yaml").read_text(encoding="utf-8"))
NAMES = ("λ", "β", "ψ")  # of classes and runs: what is left of Latin letters comes from the figure


def read(code):
    return yaml.safe_load((FOLDER / f"{code}.yaml").read_text(encoding="utf-8"))


def write(folder, content, name="mine.yaml"):
    path = folder / name
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path


@pytest.fixture
def pseudo(tmp_path):
    """Return a language in which every text is in brackets."""
    content = ENGLISH | {key: {name: f"⟦{text}⟧" for name, text in ENGLISH[key].items()}
                         for key in ("texts", "classes", "splits")}  # fmt: skip
    return write(tmp_path, content | {"decimal": ",", "thousands": "'"})


def every_figure():
    """Draw each figure; all names in them are Greek letters."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (6, 8, 8), dtype=np.uint8), np.arange(6) % 3
    probs = np.full((2000, 3), 0.25) + 0.25 * np.eye(3)[np.arange(2000) % 3]
    scores = {name: {"precision": 0.5, "recall": 0.5, "f1": 0.25, "n": 1234} for name in NAMES}
    history = {
        "epoch": [0, 1],
        **{f"{split}/{key}": [0.25, 0.55] for split in ("train", "val") for key in ("acc", "loss")},
    }
    counts = np.array([[1234, 1, 2, 1], [5, 6, 7, 0], [1, 2, 3, 0]])
    many = [f"ω{number}" for number in range(31)]
    faces = Explanations(
        classes=NAMES, method="grad-cam", counts=np.array([1, 1, 0]), mean_faces=images[:3],
        mean_maps=images[:3], ids=np.array(["λ", "β"]), labels=np.array([0, 1]),
        answers=np.array(["λ", "ψ"]), probs=np.array([0.5, 0.6], np.float32), right=np.array([True, False]),
        faces=images[:2], maps=images[:2],
    )  # fmt: skip
    row = figures.AccuracyRow([0.4, 0.5], (0.3, 0.6), 0.5, (0.4, 0.6))
    yield figures.accuracy_dots({"λ": [(0.5, 0.4, 0.6)]})
    yield figures.architecture([("λ", "β", "ψ", "1", "2")])
    yield figures.audit_examples({"λ": [(images[:1], ["β"])]})
    yield figures.class_distribution(
        {split: dict.fromkeys(NAMES, 1234) for split in ("train", "val", "test")}
    )
    yield figures.class_dots({"λ": scores, "β": scores})
    yield figures.class_explanations(faces)
    yield figures.confusion_matrix(counts, NAMES, normalise=True, title="δ")
    yield figures.confusion_matrix(counts, NAMES, normalise=False)
    yield figures.confusion_panels(dict.fromkeys(("λ", "β", "ψ"), counts[:, :3]), NAMES)
    yield figures.learning_curves(history, best_epoch=1)
    for confidence in ([0.5, 0.6], None):
        yield figures.misclassified_images(images[:2], ["λ", "β"], ["β", "ψ"], confidence)
    yield figures.overlaid_curves({"λ": [history]}, split="val", split_name="β")
    yield figures.parallel_coordinates({"λ": [0.5, 1.5], "β": [1, 2]}, [0.1, 0.2], ylabel="ψ")
    yield figures.per_class_bars(scores)
    yield figures.per_class_panels(dict.fromkeys(NAMES, scores))
    yield figures.published_accuracy({"λ": row})
    yield figures.ranking_curves(probs, np.arange(2000) % 3, NAMES)
    for ece in (0.123, None):
        yield figures.reliability_diagram(probs.max(axis=1), probs[:, 0] > 0.3, ece=ece)
    yield figures.samples_per_class(images, labels, NAMES)
    yield figures.samples_per_class(images, labels, many)
    yield figures.setting_scatter(
        {"λ": [0.5, 1.5], "β": [1, 2], "ψ": [1, 20]}, [0.1, 0.2], ["λ", "β"], ylabel="δ"
    )
    yield figures.search_history([0.5, 0.25, 0.75], [False, True, False], {"λ": 0.5}, ylabel="δ")


def texts_of(figure):
    """Return every text that a figure shows."""
    with mpl.rc_context(figures.STYLE):
        figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


def test_no_english_remains_in_a_figure_of_another_language(pseudo):
    with figures.change_language(str(pseudo)):
        drawn = [(figure, texts_of(figure)) for figure in every_figure()]

    for figure, texts in drawn:
        rest = [re.sub(r"⟦.*?⟧|^n = \d+$", "", text) for text in texts]
        assert [text for text in rest if re.search("[A-Za-z]", text)] == []
        assert [text for text in texts if re.search(r"\d[.]\d", text)] == [], figure.axes
    shown = "\n".join(text for _, texts in drawn for text in texts)
    assert "1'234" in shown
    assert "⟦calibration error 12,3 points, 2'000 images⟧" in shown
    assert "0,25" in shown  # a tick of an axis


def test_every_text_of_the_figures_is_in_every_language_and_is_used():
    sources = [path.read_text() for path in FOLDER.parent.glob("*.py")]
    sources.append((FOLDER.parent.parent / "marks.py").read_text())
    calls = "\n".join(re.findall(r"(?<!\.)\btext\((?:[^()]|\([^()]*\))*\)", "\n".join(sources)))
    used = set(re.findall("""["']([a-z0-9_]+)["']""", calls))

    assert used == set(ENGLISH["texts"])
    for code in figures.LANGUAGES:
        other = read(code)
        assert {part: set(texts) for part, texts in other.items() if isinstance(texts, dict)} == {
            part: set(texts) for part, texts in ENGLISH.items() if isinstance(texts, dict)
        }, code
        assert set(ENGLISH["classes"]) == set(EXPRESSIONS)
        language.read_language(code)  # the same names in braces


@pytest.mark.parametrize("code", sorted(set(figures.LANGUAGES) - {"en"}))
def test_languages_have_their_own_words_and_the_font_has_their_letters(code):
    other = read(code)
    equal = [key for key, text in other["texts"].items() if text == ENGLISH["texts"][key]]
    assert set(equal) <= {"f1", "f1_percent", "images", "macro", "percent", "roc", "titled", "training",
                          "validation", "num_images"}  # fmt: skip
    assert len({other["classes"][name] for name in EXPRESSIONS}) == len(EXPRESSIONS)
    font = mpl.ft2font.FT2Font(str(Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"))
    texts = [
        text for part in other.values() for text in (part.values() if isinstance(part, dict) else [part])
    ]
    letters = set("".join(texts))
    assert {letter for letter in letters if ord(letter) not in font.get_charmap()} == set()


def test_help_names_every_language():
    described = " ".join(_make_parser().format_help().split())

    assert f"language of the texts: {', '.join(figures.LANGUAGES)}, or a YAML file of your own" in described


def test_german_figure_has_german_classes_and_decimal_commas():
    counts = np.diag([1234] * 7)
    with figures.change_language("de"):
        axes = figures.confusion_matrix(counts, EXPRESSIONS, normalise=True).axes[0]
        roc = figures.ranking_curves(np.eye(2)[[0, 1]], np.array([0, 1]), ("happy", "other")).axes[0]

    assert axes.get_yticklabels()[0].get_text() == "Wut (1.234)"
    assert (axes.get_xlabel(), axes.get_title(loc="left")) == ("vorhergesagt", "% jeder wahren Klasse")
    names = [text.get_text() for text in roc.get_legend().get_texts()]
    assert names == ["Freude (1,000)", "other (1,000)", "Makro (1,000)", "Zufall (0,500)"]
    assert figures.confusion_matrix(counts, EXPRESSIONS, normalise=True).axes[0].get_xlabel() == "predicted"


BROKEN = {
    "no such text": (lambda texts: texts | {"losss": "x"}, "unknown keys in texts: losss"),
    "missing text": (
        lambda texts: {key: texts[key] for key in texts if key != "loss"},
        "missing keys.*: loss",
    ),
    "other names": (lambda texts: texts | {"macro": "macro {value}"}, r"texts.macro is 'macro {value}'"),
    "reaches inside": (
        lambda texts: texts | {"macro": "{area.__class__}"},
        r"texts.macro is .*, expected the names in braces",
    ),
    "single brace": (lambda texts: texts | {"loss": "{"}, "texts.loss is '{', expected the names in braces"),
    "number": (lambda texts: texts | {"loss": 5}, "expected a text for each key of texts"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_language_file_that_is_wrong_is_named(case, tmp_path):
    change, reason = BROKEN[case]
    path = write(tmp_path, ENGLISH | {"texts": change(ENGLISH["texts"])})

    with pytest.raises(FERError, match=f"mine.yaml: {reason}.*en.yaml is a language file to start from"):
        language.read_language(str(path))


@pytest.mark.slow
def test_command_draws_with_the_language_of_the_user(make_run, fast_figures, monkeypatch, tmp_path, capsys):
    own = write(tmp_path, ENGLISH | {"texts": ENGLISH["texts"] | {"loss": "mein Verlust"}})
    labels = []

    def save(figure, *paths, **look):
        labels.extend(axes.get_ylabel() for axes in figure.axes)

    monkeypatch.setattr("fer_lightning.report.drawing.save_figure", save)
    run = make_run(n=60)
    for given, expected in (("it", "perdita"), (str(own), "mein Verlust")):
        monkeypatch.setattr(sys, "argv", ["report", str(run), "--figures", "pdf", "--lang", given])
        assert main() == 0
        assert expected in labels
    monkeypatch.setattr(sys, "argv", ["report", str(run), "--figures", "pdf", "--lang", "klingon"])
    assert main() == 1
    assert "one of de, en, es, fr, it, pt, or a YAML file" in capsys.readouterr().err
