"""FERDataModule from plain Python: defaults, readers, built sources, and FER-2013 without a root."""

import logging
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from fer_lightning.config.resolve import register_resolvers
from fer_lightning.core.errors import FERError
from fer_lightning.data import locate as locate_module
from fer_lightning.data.augment import Augment
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.data.loader import Batch
from fer_lightning.data.locate import locate
from fer_lightning.data.readers.fer2013 import Fer2013, open_fer2013
from fer_lightning.data.readers.image_folder import ImageFolder
from fer_lightning.data.synthetic.source import SyntheticFaces
from tests.commands import ROOT

SMALL = partial(SyntheticFaces, num_train=14, num_val=7, num_test=7, class_balance="uniform")


@pytest.fixture
def make(tmp_path):
    return partial(FERDataModule, cache_dir=tmp_path / "cache")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A machine without FER-2013 and without a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FER2013_ROOT", raising=False)
    monkeypatch.setattr(locate_module, "_kaggle_copy", lambda: None)
    monkeypatch.setattr(locate_module, "_kaggle_answers", lambda: False)


def test_a_root_is_all_that_fer2013_needs(make, forms):
    data = make(root=forms.zip())
    data.setup()
    assert (data.name, data.classes, data.num_classes) == ("fer2013", EXPRESSIONS, 7)
    assert len(data.faces) == 28
    assert next(iter(data.train_dataloader())).images.shape == (14, 1, 48, 48)


def test_a_reader_class_reads_its_root(make, forms):
    data = make(root=forms.folder(), source=ImageFolder)
    assert data.name == "image_folder", "other data must not be audited as FER-2013"
    data.setup()
    assert data.class_counts("all") == [4] * 7


def test_settings_of_a_partial_reader_reach_it(make, forms):
    data = make(root=forms.folder(), source=partial(ImageFolder, val_ratio=0.5, test_ratio=0.0))
    assert data.source.ratios == {"test": 0.0, "val": 0.5}


def test_a_partial_with_a_root_needs_no_other(make, forms):
    assert make(source=partial(open_fer2013, root=forms.csv())).source.path.name == "fer2013.csv"


def test_a_reader_is_given_only_what_it_takes(make):
    def reader(classes, image_size):
        return SyntheticFaces(classes=classes, image_size=image_size, num_train=7)

    assert make(source=reader, image_size=32).source.image_size == 32
    with pytest.raises(FERError, match="data.channels=3: reader has no setting channels"):
        make(source=reader, channels=3)


def test_a_built_source_brings_its_classes_and_size(make):
    source = SyntheticFaces(classes=("happy", "sad"), image_size=32, channels=3, num_train=4)
    data = make(source=source)
    assert data.source is source
    assert (data.classes, data.num_classes, data.image_size, data.channels) == (("happy", "sad"), 2, 32, 3)
    with pytest.raises(FERError, match="data.image_size=24: the source was built with 32"):
        make(source=source, image_size=24)


def reader_with_settings(**settings):
    return ImageFolder(**settings)


@pytest.mark.parametrize("reader", [ImageFolder, partial(ImageFolder, val_ratio=0.2), reader_with_settings])
def test_a_missing_root_is_named_for_every_reader(make, reader):
    with pytest.raises(FERError, match="data.root: missing, .* needs the file or folder of the images"):
        make(source=reader)


@pytest.mark.parametrize(("source", "message"), [(5, "expected a reader"), (list, "expected a source")])
def test_what_is_no_source_is_refused(make, source, message):
    with pytest.raises(FERError, match=message):
        make(source=source, root="/")


def test_a_subclass_need_not_repeat_the_settings(tmp_path):
    class Mine(FERDataModule):
        def __init__(self, *, mine=True, **settings):
            super().__init__(**settings)
            self.mine = mine

    data = Mine(mine=False, source=SMALL, image_size=16, cache_dir=tmp_path)
    assert (data.mine, data.image_size) == (False, 16)


def test_fer2013_without_a_root_is_located_when_it_is_loaded(make, forms, elsewhere, monkeypatch):
    data = make()  # no error yet, and no download
    monkeypatch.setenv("FER2013_ROOT", str(forms.zip()))
    data.prepare_data()
    assert isinstance(data.source, Fer2013)
    assert data.root == str(forms.root / "archive.zip")


def test_fer2013_that_is_not_found_is_an_error_with_every_place(make, elsewhere):
    with pytest.raises(FERError, match="data.root is not set; FER2013_ROOT is not set.*forbids a download"):
        make(download=False).setup()


def test_auto_falls_back_to_synthetic_faces_with_a_warning(make, elsewhere, caplog):
    data = make(name="auto", image_size=16)
    with caplog.at_level(logging.WARNING):
        source = data.source
    assert isinstance(source, SyntheticFaces)
    assert (data.name, data.root) == ("synthetic", None)
    assert "using the built-in SYNTHETIC faces" in caplog.text


def test_a_located_node_gives_the_source_that_the_module_finds(make, forms, elsewhere, monkeypatch):
    monkeypatch.setenv("FER2013_ROOT", str(forms.csv()))
    node = {"name": "auto", "root": None, "classes": EXPRESSIONS, "image_size": 48, "download": False}
    located, direct = locate(node, log=print), make(name="auto", download=False)
    assert direct.source.path == open_fer2013(root=located["root"], classes=EXPRESSIONS).path
    assert direct.name == located["name"]


@pytest.mark.parametrize("option", ["auto", "fer2013", "synthetic"])
def test_hydra_instantiates_the_composed_node(option, tmp_path, forms, monkeypatch):
    monkeypatch.setenv("FER2013_ROOT", str(forms.folder()))
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        overrides = [f"data={option}", f"data.cache_dir={tmp_path}", "data.augment.flip=0.5"]
        overrides += ["data.batch_transforms=[{_target_: torchvision.transforms.v2.MixUp, num_classes: 7}]"]
        overrides += ["data.source.num_train=14"] if option == "synthetic" else []
        config = compose("train", overrides=overrides)
    data = instantiate(config.data)
    assert isinstance(data, FERDataModule)
    assert data.augment == Augment(flip=0.5, sides=data.augment.sides)
    assert [type(transform).__name__ for transform in data.batch_transforms] == ["MixUp"]
    if option != "synthetic":
        data.setup()
        assert (data.name, len(data.faces)) == ("fer2013", 28)


def test_augment_is_given_by_name(make):
    assert make(source=SMALL, augment={"flip": 0.5}).augment == Augment(flip=0.5)
    assert make(source=SMALL).augment == Augment()
    with pytest.raises(FERError, match=r"data.augment.flp=0.5: no such setting; it takes flip, "):
        make(source=SMALL, augment={"flp": 0.5})
    with pytest.raises(FERError, match="data.augment=0.5: expected its settings"):
        make(source=SMALL, augment=0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"predict_split": "dev"}, "data.predict_split=dev: expected train, val, test or all"),
        ({"download": 1}, "data.download=1: expected true or false"),
        ({"channels": 4}, r"data.channels=4: expected 1 \(grey\) or 3 \(colour\)"),
        ({"channels": True}, "data.channels=True: expected 1"),
        ({"classes": "happy"}, "data.classes=happy: expected a list"),
    ],
)
def test_invalid_settings_are_named(make, changes, message):
    with pytest.raises(FERError, match=message):
        make(source=SMALL, **changes)


class Recorder(pl.LightningModule):
    """A module that keeps the rows of every batch it gets."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(16 * 16, 7)
        self.rows = {}

    def keep(self, stage, batch):
        assert isinstance(batch, Batch)
        self.rows.setdefault(stage, []).extend(batch.rows.tolist())
        logits = self.layer(batch.images.float().flatten(1) / 255)
        return torch.nn.functional.cross_entropy(logits, batch.labels)

    def training_step(self, batch):
        return self.keep("train", batch)

    def validation_step(self, batch):
        self.keep("val", batch)

    def test_step(self, batch):
        self.keep("test", batch)

    def predict_step(self, batch):
        return self.keep("predict", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_trainer_gets_the_batches_of_every_split(make):
    data = make(source=SMALL, image_size=16, predict_split="val", batch_size=4)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, log_every_n_steps=1,
    )  # fmt: skip
    module = Recorder()
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data)
    trainer.predict(module, datamodule=data)
    assert sorted(module.rows["train"]) == data.rows["train"].tolist()
    assert module.rows["val"] == module.rows["predict"] == data.rows["val"].tolist()
    assert module.rows["test"] == data.rows["test"].tolist()
    module.rows.clear()
    trainer.validate(module, datamodule=data)
    assert module.rows == {"val": data.rows["val"].tolist()}
