import json
import re

import numpy as np
import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.evaluation.explanations import EmbeddingMap, Explanations
from fer_lightning.report import figures
from fer_lightning.report.run_page import write_page
from tests.report.conftest import add_explanations


@pytest.fixture
def run(make_run):
    folder = make_run(n=60)
    add_explanations(folder)
    return folder


def data_of(page):
    return json.loads(re.search(r'id="embeddings">(.*?)</script>', page).group(1))


@pytest.mark.usefixtures("fast_figures")
def test_page_shows_maps_and_embeddings_of_the_files(run):
    page = write_page(run).read_text()
    for part in ("What the network looks at", "Map of the embeddings", "60 of 65 images", "26 % and 21 %"):
        assert part in page
    assert (run / "figures/explanations_test.png").exists()
    data, found = data_of(page), EmbeddingMap.load(run / "embeddings_test.npz")
    assert data["ids"] == found.ids.tolist()
    assert (min(data["x"]), max(data["width"], data["height"])) == (0, 2000)
    spans = np.ptp(found.positions, axis=0)
    assert data["width"] / data["height"] == pytest.approx(spans[0] / spans[1], rel=0.01)
    assert np.argsort(data["y"], kind="stable")[0] == found.positions[:, 1].argmin()
    assert data["sheet"].startswith("data:image/jpeg;base64,/9j/")


@pytest.mark.usefixtures("fast_figures")
def test_page_without_the_files_lacks_their_sections(make_run):
    page = write_page(make_run(n=60)).read_text()
    assert "looks at" not in page
    assert "Map of the embeddings" not in page


@pytest.mark.usefixtures("fast_figures")
def test_names_from_files_cannot_leave_the_data_of_the_map(make_run):
    classes = ("</script><b>", "&amp;", "c")
    folder = make_run(n=60, classes=classes)
    add_explanations(folder)
    page = write_page(folder).read_text()
    assert "</script><b>" not in page
    assert data_of(page)["classes"] == list(classes)


@pytest.mark.parametrize("name", ["explanations_test.npz", "embeddings_test.npz"])
@pytest.mark.usefixtures("fast_figures")
def test_damaged_file_is_named(run, name):
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(FERError, match=f"{name}: not written by this project"):
        write_page(run)


def test_file_of_another_kind_is_refused(run, tmp_path):
    with pytest.raises(FERError, match="not written by this project"):
        Explanations.load(run / "embeddings_test.npz")
    found = EmbeddingMap.load(run / "embeddings_test.npz")
    for change in (
        {"labels": found.labels + 7},
        {"positions": found.positions * np.nan},
        {"sheet": found.sheet[1:]},
    ):
        values = {name: np.asarray(value) for name, value in (vars(found) | change).items()}
        np.savez(tmp_path / "other.npz", **values)
        with pytest.raises(FERError, match="other.npz: not written by this project"):
            EmbeddingMap.load(tmp_path / "other.npz")


def test_files_hold_what_was_saved(run, tmp_path):
    for kind, name in ((Explanations, "explanations_test.npz"), (EmbeddingMap, "embeddings_test.npz")):
        found = kind.load(run / name)
        found.save(tmp_path / name)
        assert (tmp_path / name).read_bytes() == (run / name).read_bytes()


def test_figure_shows_each_class_and_example(run):
    found = Explanations.load(run / "explanations_test.npz")
    (axes,) = figures.class_explanations(found).axes
    texts = [text.get_text() for text in axes.texts]
    assert set(found.classes) <= set(texts)
    assert texts.count("n = 8") == len(found.classes) - 1
    assert len(axes.images) == len(found.classes) - 1 + 2 * len(found.ids)
