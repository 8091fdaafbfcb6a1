"""What can be wrong with the data sets and the folder of ``fer-lightning benchmark``."""

import numpy as np
import pytest
from PIL import Image

from tests.commands import run

MISTAKES = {
    "name": ["--data", "fer2031"],
    "empty name": ["--data", "synthetic,,fer2013"],
    "no place": ["--data", "image_folder"],
    "missing place": ["--data", "image_folder:nowhere"],
    "twice": ["--data", "image_folder:cats,image_folder:./cats"],
    "no shared class": ["--data", "image_folder:cats"],
    "empty split": ["--data", "image_folder:cats", "--split", "val"],
    "file": ["--data", "image_folder:cats", "--save", "cats/test/cat/0.png"],
    "no data": [],
    "place missing elsewhere": ["--data", "ferplus"],
    "split": ["--data", "synthetic", "--split", "tests"],
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_a_benchmark_is_reported_in_one_sentence(mistake, trained, fault_row, cache, tmp_path):
    for name in ("cat", "dog", "happy"):
        (tmp_path / f"cats/test/{name}").mkdir(parents=True)
        Image.fromarray(np.full((16, 16), len(name), np.uint8)).save(tmp_path / f"cats/test/{name}/0.png")
    words = ("-m", "fer_lightning", "benchmark", str(trained), *MISTAKES[mistake])
    fault_row.check(run(*words, cwd=tmp_path, cache=cache))
    assert [path.name for path in tmp_path.iterdir()] == ["cats"]
