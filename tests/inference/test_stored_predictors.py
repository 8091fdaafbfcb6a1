"""Which images trained a network whose file does not hold them."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fer_lightning.data.splits import make_splits, without_leaks
from fer_lightning.evaluation.checkpoint_predictor import CheckpointPredictor
from fer_lightning.inference import stored_predictors
from fer_lightning.inference.described_weights import describe_images
from fer_lightning.inference.stored_predictors import with_training_images
from fer_lightning.training.checkpoint import read_checkpoint

ROWS = [
    ("train", 0, 10),
    ("train", 1, 20),
    ("train", 0, 30),
    ("train", 1, 40),
    ("val", 0, 10),
    ("test", 1, 20),
]


@pytest.fixture
def metadata(make_checkpoint):
    return read_checkpoint(make_checkpoint()[0])[1]


@pytest.mark.parametrize("selected_by", ["val/acc", "last"])
@pytest.mark.parametrize("drop_leaks", [True, False])
@pytest.mark.parametrize("protocol", ["official", "paper"])
def test_images_are_those_of_the_remembered_split(
    protocol, drop_leaks, selected_by, metadata, make_faces, monkeypatch
):
    faces = make_faces(*ROWS)
    rows, _ = make_splits(faces, protocol=protocol, val_fraction=0.0, seed=3)
    if drop_leaks:
        rows = without_leaks(faces, rows)
    node = {"protocol": protocol, "val_fraction": 0.0, "drop_leaks": drop_leaks}
    selected = rows["val"] if selected_by != "last" else rows["val"][:0]
    trained = replace(
        metadata,
        config={**metadata.config, "data": node},
        selected_by=selected_by,
        trained_on=np.unique(faces.hashes[rows["train"]]),
        selected_on=np.unique(faces.hashes[selected]),
    )
    described = {"training_images": describe_images(trained)}
    nothing = np.empty(0, np.uint64)
    stored = replace(trained, trained_on=nothing, selected_on=nothing)
    monkeypatch.setattr(stored_predictors, "read_description", lambda path: described)
    predictor = CheckpointPredictor(Path("a.safetensors"), None, stored)
    found, unknown = with_training_images(predictor, SimpleNamespace(faces=faces))
    assert unknown == ""
    assert len(found.metadata.selected_on) == len(np.unique(selected))
    expected = {("official", False): 4, ("official", True): 2, ("paper", False): 4, ("paper", True): 2}
    assert len(found.metadata.trained_on) == expected[protocol, drop_leaks]
    others = SimpleNamespace(faces=replace(faces, fingerprint="other"))
    assert "not of the data set" in with_training_images(predictor, others)[1]
