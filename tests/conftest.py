"""Fixtures that several test files share: small data sets, and a checkpoint of a small network."""

import os
from functools import partial

import numpy as np
import pytest
import torch

from fer_lightning.data.augment import Augment
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.faces import SPLITS, Faces, pixel_digest, pixel_hash
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.data.synthetic.source import SyntheticFaces
from fer_lightning.models.mlp import MLP
from fer_lightning.training.checkpoint import KEY, CheckpointMetadata
from fer_lightning.training.checkpoint_io import save_atomically
from fer_lightning.training.classifier import FERClassifier

torch.set_num_threads(1)  # the networks are too small to gain from two


def pytest_configure(config):
    """Hide the GPUs except for ``pytest -m gpu``: parallel tests would share them."""
    if "gpu" not in config.option.markexpr.replace("not gpu", ""):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_ignore_collect(collection_path, config):
    """Collect only tests/gpu for ``pytest -m gpu``: a GPU machine may lack what other tests import."""
    if config.option.markexpr == "gpu" and collection_path.is_file():
        return "gpu" not in collection_path.parts
    return None


@pytest.fixture(scope="session")
def drawn_faces(tmp_path_factory):
    """Cache folder of the synthetic faces of ``make_data``."""
    return tmp_path_factory.mktemp("faces")


@pytest.fixture
def make_data(drawn_faces):
    """Build a data module of 70 + 28 + 28 synthetic faces of 16 x 16 pixels; any argument can be changed."""

    def make(**changes):
        source = partial(SyntheticFaces, num_train=70, num_val=28, num_test=28, class_balance="uniform")
        settings = {
            "name": "synthetic",
            "source": source,
            "classes": EXPRESSIONS,
            "num_classes": len(EXPRESSIONS),
            "image_size": 16,
            "protocol": "official",
            "val_fraction": 0.0,
            "batch_size": 16,
            "eval_batch_size": 8,
            "augment": Augment(),
            "on_bad": "error",
            "cache_dir": str(drawn_faces),
            "seed": 0,
        }
        return FERDataModule(**settings | changes)

    return make


@pytest.fixture
def make_faces():
    """Build a data set of 4 x 4 images and two classes from rows of (split, label, grey level).

    Images of the same grey level are duplicates; level 0 gives a blank image, all others get a mark.
    """

    def make(*rows, classes=("sad", "happy"), skipped=()):
        images = np.stack([np.full((4, 4), level, np.uint8) for _, _, level in rows])
        images[:, 0, 0] = np.where(images[:, 0, 0] > 0, 255, 0)
        labels = np.array([label for _, label, _ in rows])
        return Faces(
            images=images,
            labels=labels,
            splits=np.array([SPLITS.index(split) for split, _, _ in rows], np.uint8),
            hashes=np.array([pixel_hash(pixel_digest(image)) for image in images], np.uint64),
            ids=np.array([f"{s}/{classes[label]}/{i}" for i, (s, label, _) in enumerate(rows)]),
            classes=classes,
            fingerprint="0123456789abcdef",
            skipped=skipped,
        )

    return make


@pytest.fixture
def make_checkpoint(tmp_path):
    """Write a checkpoint of a small MLP; return its path and the module."""

    def make(
        name="best.ckpt",
        *,
        classes=EXPRESSIONS,
        hidden=(8,),
        mean=0.4,
        std=0.2,
        channels=1,
        change=lambda content: None,
    ):
        model = {
            "_target_": "fer_lightning.models.mlp.MLP",
            "num_classes": len(classes),
            "image_size": 16,
            "hidden": list(hidden),
            "dropout": 0.5,
        }
        if channels != 1:  # checkpoints of grey images may lack it
            model["in_channels"] = channels
        backbone = MLP(**{key: value for key, value in model.items() if key != "_target_"})
        module = FERClassifier(backbone=backbone, classes=classes, mean=mean, std=std).eval()
        metadata = CheckpointMetadata(
            config={"model": model, "seed": 3},
            classes=tuple(classes),
            fingerprint="0123456789abcdef",
            trained_on=np.array([1, 2**64 - 1], np.uint64),
            selected_on=np.array([5], np.uint64),
            selected_by="val/acc",
            epoch=4,
            score=0.5,
            precision="32-true",
            channels_last=False,
        )
        content = {"state_dict": module.state_dict(), KEY: metadata.to_plain()}
        change(content)
        save_atomically(content, tmp_path / name)
        return tmp_path / name, module

    return make
