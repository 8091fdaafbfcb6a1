"""The package from Python: public names, plain Lightning, and Hydra's instantiate."""

import inspect
import subprocess
import sys
import warnings
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from hydra.utils import instantiate
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fer_lightning
from fer_lightning import CNN, MLP, RNN, FERClassifier, FERDataModule, ImageFolder, ResNet, Trainer, build
from fer_lightning.config.resolve import compose_config
from fer_lightning.core.errors import FERError
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.data.synthetic.source import SyntheticFaces
from fer_lightning.training.checkpoint import load_classifier, read_checkpoint
from tests.commands import ROOT, TINY, run, succeed
from tests.data.conftest import Forms, make_faces

QUIET = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


def data_module(folder, **changes):
    source = partial(SyntheticFaces, num_train=64, num_val=14, num_test=21, class_balance="uniform")
    settings = {
        "name": "synthetic",
        "source": source,
        "image_size": 16,
        "batch_size": 16,
        "cache_dir": folder,
    }
    return FERDataModule(**settings | changes)


def small_mlp(num_classes=7):
    return MLP(num_classes=num_classes, image_size=16, hidden=[16])


def fit(folder, *, max_epochs=2, **settings):
    """Train with Lightning's Trainer alone; return trainer, module and data."""
    data = data_module(folder / "cache")
    module = FERClassifier(backbone=small_mlp(), classes=data.classes)
    trainer = pl.Trainer(max_epochs=max_epochs, default_root_dir=folder, **QUIET | settings)
    trainer.fit(module, datamodule=data)
    return trainer, module, data


# The public names


def test_importing_the_package_imports_no_torch():
    code = "import sys, fer_lightning; sys.exit('torch' in sys.modules or 'hydra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_every_public_name_exists_and_is_listed():
    for name in fer_lightning.__all__:
        assert getattr(fer_lightning, name).__name__ == name
        assert name in dir(fer_lightning)
    with pytest.raises(AttributeError, match="no attribute 'FERPredicter'"):
        fer_lightning.FERPredicter  # noqa: B018


@pytest.mark.parametrize("kind", [MLP, CNN, RNN, ResNet])
def test_defaults_of_a_network_are_those_of_its_yaml(kind):
    node = compose_config("train", [f"model={kind.__name__.lower()}"]).model
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    for name, value in defaults.items():
        shown = node[name]
        assert (tuple(shown) if isinstance(value, tuple) else shown) == value, name


# Plain Lightning


def test_fit_validate_test_and_predict_with_lightnings_trainer(here):
    trainer, module, data = fit(here)
    (validated,) = trainer.validate(module, datamodule=data, verbose=False)
    (tested,) = trainer.test(module, datamodule=data, verbose=False)
    assert {"val/acc", "val/loss", "val/f1_macro"} <= validated.keys()
    assert {"test/acc", "test/loss", "test/f1_macro"} <= tested.keys()
    rows, probs = trainer.predict(module, datamodule=data)[0]
    right = probs.argmax(1).numpy() == data.faces.labels[rows]
    assert tested["test/acc"] == pytest.approx(right.mean())


@pytest.mark.slow
def test_checkpoint_of_lightnings_trainer_loads_in_eval_and_predict(here, cache):
    trainer, module, data = fit(here)
    checkpoint = trainer.checkpoint_callback.best_model_path
    (tested,) = trainer.test(module, datamodule=data, verbose=False)
    done = succeed("eval.py", f"checkpoint='{checkpoint}'", "hydra.run.dir=evaluated", cwd=here, cache=cache)
    assert f"{100 * tested['test/acc']:.2f} %" in done.stdout
    (here / "face.png").write_bytes((ROOT / "docs/faces.png").read_bytes())
    predicted = succeed(
        "-m",
        "fer_lightning.predict",
        "face.png",
        "--detector",
        "none",
        "--checkpoint",
        checkpoint,
        cwd=here,
        cache=cache,
    )
    assert "face.png" in predicted.stdout


def test_load_from_checkpoint_gives_the_same_answers(here):
    trainer, module, data = fit(here)
    again = FERClassifier.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)
    images = torch.from_numpy(data.faces.images[:5]).unsqueeze(1)
    assert not again.training
    torch.testing.assert_close(again(images), module.eval()(images))
    assert again.classes == data.classes
    _, metadata = read_checkpoint(next((here / "checkpoints").iterdir()))
    assert metadata.fingerprint == data.faces.fingerprint
    assert len(metadata.trained_on) == len(set(data.faces.hashes[data.rows["train"]].tolist()))


def test_checkpoint_selected_on_val_says_so(here):
    best = pl.callbacks.ModelCheckpoint(dirpath=here / "best", monitor="val/acc", mode="max")
    _, _, data = fit(here, callbacks=[best])
    _, metadata = load_classifier(here / "best" / best.best_model_path.rpartition("/")[2])
    assert metadata.selected_by == "val/acc"
    assert set(metadata.selected_on.tolist()) == set(data.faces.hashes[data.rows["val"]].tolist())


class Own(nn.Module):
    """A network that remembers nothing of its settings."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(256, 7)

    def forward(self, images):
        return self.head(images.flatten(1))


def test_network_built_in_python_is_given_to_load_from_checkpoint(here):
    data = data_module(here / "cache")
    module = FERClassifier(backbone=Own(), classes=data.classes)
    trainer = pl.Trainer(max_epochs=1, default_root_dir=here, **QUIET)
    trainer.fit(module, datamodule=data)
    path = trainer.checkpoint_callback.best_model_path
    with pytest.raises(FERError, match=r"names no model, .*load_from_checkpoint\(path, backbone=...\)"):
        FERClassifier.load_from_checkpoint(path)
    again = FERClassifier.load_from_checkpoint(path, backbone=Own())
    images = torch.from_numpy(data.faces.images[:5]).unsqueeze(1)
    torch.testing.assert_close(again(images), module.eval()(images))


def test_any_loader_of_images_and_labels_trains():
    images = torch.randint(0, 256, (24, 1, 16, 16), dtype=torch.uint8)
    loader = DataLoader(TensorDataset(images, torch.arange(24) % 7), batch_size=8)
    module = FERClassifier(backbone=small_mlp(), classes=EXPRESSIONS)
    trainer = pl.Trainer(max_epochs=1, enable_checkpointing=False, **QUIET)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Lightning, about workers
        trainer.fit(module, loader, loader)
        (tested,) = trainer.test(module, loader, verbose=False)
        probs = torch.cat(trainer.predict(module, loader))
    assert probs.shape == (24, 7)
    assert tested["test/acc"] == pytest.approx(
        (probs.argmax(1) == torch.arange(24) % 7).float().mean().item()
    )


def test_schedule_of_any_loader_covers_all_its_steps():
    images = torch.randint(0, 256, (24, 1, 16, 16), dtype=torch.uint8)
    loader = DataLoader(TensorDataset(images, torch.arange(24) % 7), batch_size=8)
    cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1)
    module = FERClassifier(
        backbone=small_mlp(), classes=EXPRESSIONS, optimizer=partial(torch.optim.SGD, lr=0.1), scheduler=cycle
    )
    trainer = pl.Trainer(max_epochs=2, enable_checkpointing=False, **QUIET)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, loader)
    assert trainer.lr_scheduler_configs[0].scheduler.total_steps == 6


BAD_PIXELS = {
    "floats in [0, 1]": (lambda images: images / 255, r"floats in \[0, 1\].*multiply them by 255"),
    "normalised": (lambda images: images / 128 - 1, "do not normalise them, since the module does"),
    "no channels": (lambda images: images[:, 0], r"expected \(N, C, S, S\), got \(8, 16, 16\)"),
    "channels last": (lambda images: images.permute(0, 2, 3, 1), r"expected \(N, 1, 16, 16\)"),
    "another size": (lambda images: images[..., :9, :9], r"expected \(N, 1, 16, 16\), got \(8, 1, 9, 9\)"),
    "integers": (lambda images: images.long(), "expected uint8 or float pixels .* got torch.int64"),
}


@pytest.mark.parametrize("kind", BAD_PIXELS)
@pytest.mark.parametrize("how", ["forward", "fit"])
def test_images_that_would_be_misread_are_refused(kind, how):
    change, message = BAD_PIXELS[kind]
    pixels = torch.randint(0, 256, (8, 1, 16, 16), generator=torch.Generator().manual_seed(0)).float()
    pixels[0, 0, 0, :2] = torch.tensor([0.0, 255.0])
    images = change(pixels)
    module = FERClassifier(backbone=small_mlp(), classes=EXPRESSIONS)
    loader = DataLoader(TensorDataset(images, torch.arange(8) % 7), batch_size=8)
    trainer = pl.Trainer(max_epochs=1, enable_checkpointing=False, **QUIET)
    read = partial(module, images) if how == "forward" else partial(trainer.fit, module, loader)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Lightning, about workers
        with pytest.raises(FERError, match=message):
            read()


def test_module_and_data_of_other_classes_do_not_train_together(here):
    module = FERClassifier(backbone=small_mlp(2), classes=("sad", "happy"))
    with pytest.raises(FERError, match="the module has sad, happy; the data module has angry"):
        pl.Trainer(max_epochs=1, **QUIET).fit(module, datamodule=data_module(here / "cache"))


def test_image_folder_reads_own_images(here):
    forms = Forms(here, make_faces())
    data = FERDataModule(root=forms.folder(), source=ImageFolder, name="own", cache_dir=here / "cache")
    data.setup()
    assert len(data.rows["train"]) > 0
    assert data.describe()["source"]["_target_"].endswith("ImageFolder")


# build, and Hydra's own instantiate


def test_build_gives_what_the_command_trains(here, cache):
    settings = ("model=mlp", *TINY, "data.image_size=16", "trainer.max_epochs=2", "logger=none", "seed=3")
    data, module, trainer = build(settings, folder=here / "built")
    trainer.fit(module, datamodule=data)
    succeed("train.py", *settings, "hydra.run.dir=trained", cwd=here, cache=cache)
    assert (here / "built/metrics.csv").read_bytes() == (here / "trained/metrics.csv").read_bytes()
    one, other = (
        read_checkpoint(here / name / "last.ckpt")[0]["state_dict"] for name in ("built", "trained")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+foo=1"], "foo=1: nothing reads this setting"),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0: expected a whole number"),
        (["data=synthetic", "model.dropout=7"], "model.dropout=7"),
    ],
)
def test_build_refuses_what_the_command_refuses(here, overrides, message):
    with pytest.raises(FERError, match=message):
        build(overrides)
    assert not list(here.iterdir())


def test_hydras_instantiate_builds_data_network_and_trainer(here):
    config = compose_config(
        "train", ["data=synthetic", "model=mlp", "data.source.num_train=70", "logger=csv"]
    )
    data, backbone, trainer = (instantiate(config[group]) for group in ("data", "model", "trainer"))
    assert isinstance(data, FERDataModule)
    assert isinstance(backbone, MLP)
    assert isinstance(trainer, Trainer)
    assert trainer.precision in ("32-true", "bf16-mixed")
    assert (config.run_dir, config.logger.csv.save_dir) == (None, None)


def test_trainer_of_this_package_takes_lightnings_arguments(here):
    trainer = Trainer(
        max_epochs=3, accelerator="cpu", logger=False, precision="32-true", default_root_dir=here
    )
    assert (trainer.max_epochs, trainer.precision) == (3, "32-true")
    with pytest.raises(TypeError, match="max_epoch"):
        Trainer(max_epoch=3)


def test_mistyped_setting_of_a_network_is_one_sentence_on_the_command_line(here, cache):
    done = run("train.py", "model=mlp", *TINY, "+model.droput=0.1", cwd=here, cache=cache)
    assert done.returncode == 1
    assert "model.droput=0.1: MLP has no such setting; did you mean model.dropout?" in done.stderr
