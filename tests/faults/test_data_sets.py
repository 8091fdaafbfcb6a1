"""Faults of published data sets and of CSVs of images."""

import csv

import numpy as np
import pytest
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.data.cache import load_faces
from fer_lightning.data.readers.csv_images import CSVImages
from tests.commands import run


def refusal_of(source, folder):
    """Load a source; return what a command prints of its fault."""
    with pytest.raises(FERError) as caught:
        load_faces(source, cache_dir=folder / "cache", near_duplicates="ignore", log=print)
    return f"error: {caught.value}"


ROWS = [["a.png", "happy", "train"], ["b.png", "sad", "train"], ["c.png", "sad", "train"]]
BOX = ("left", "top", "width", "height")
# Header, rows, settings.
TABLES = {
    "name": (("path", "label"), [["a.png", "happy"], ["b.png", "bored"]], {}),
    "number": (("path", "label"), [["a.png", "0"], ["b.png", "1"]], {}),
    "path": (("path", "label", "split"), ROWS, {"path": "file"}),
    "label": (("path", "emotion", "split"), ROWS, {}),
    "split": (("path", "label", "split"), [*ROWS[:2], ["c.png", "sad", "dev"]], {}),
    "twice": (("path", "label", "split"), [*ROWS, ROWS[0]], {}),
    "class": (("path", "label", "split"), [ROWS[0], ["b.png", "sad", "test"]], {}),
    "box": (("path", "label", *BOX), [["a.png", "sad", 1, 1, 0, 4]], {}),
    "missing": (("path", "label", "split"), [*ROWS, ["d.png", "sad", "test"]], {}),
    "outside": (("path", "label", *BOX), [["a.png", "sad", 90, 0, 4, 4], ["c.png", "happy", 0, 0, 4, 4]], {}),
}


@pytest.mark.parametrize("kind", TABLES)
def test_csv_fault_is_one_sentence(kind, fault_row, tmp_path):
    header, rows, settings = TABLES[kind]
    with (tmp_path / "faces.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    for number, row in enumerate(rows):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        if not (kind == "missing" and row[0] == "b.png"):
            Image.fromarray(pixels).save(tmp_path / row[0])
    source = CSVImages(root=tmp_path / "faces.csv", classes=("happy", "sad"), image_size=8, **settings)
    fault_row.check_text(refusal_of(source, tmp_path))


def test_csv_that_is_a_folder_is_refused(fault_row, cache, tmp_path):
    (tmp_path / "images").mkdir()
    command = ("train.py", "model=mlp", "data=csv", "data.root=images")
    fault_row.check(run(*command, cwd=tmp_path, cache=cache))
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
