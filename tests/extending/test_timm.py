"""Networks of timm, and what is said without timm."""

import sys

import pytest
import torch

from fer_lightning.core.errors import FERError
from fer_lightning.models.timm import TimmModel
from fer_lightning.training.checkpoint import load_classifier
from tests.in_process import fit
from tests.slow import slow_except

RUN = ("model=timm", "logger=none", "trainer.max_epochs=1", "+trainer.max_steps=1", "data.batch_size=16")


@pytest.mark.parametrize(
    ("name", "size"),
    slow_except(
        [("resnet10t", 32)], [("resnet10t", 32), ("vit_tiny_patch16_224", 48), ("convnext_atto", 32)]
    ),
)
def test_network_of_timm_trains_loads_and_starts_another(name, size, tmp_path):
    pytest.importorskip("timm")
    recipe = (*RUN, f"model.name={name}", f"data.image_size={size}")
    run, _, module = fit(*recipe, folder=tmp_path)
    loaded, _ = load_classifier(run.folder / "best.ckpt")
    images = torch.randint(0, 256, (2, 1, size, size), dtype=torch.uint8)
    torch.testing.assert_close(loaded(images), module.eval()(images))
    other = (f"init_from={run.folder}", "data.classes=[happy,sad]", "data.num_classes=2")
    _, _, tuned = fit(*recipe, *other, "optimizer.lr=0.0", folder=tmp_path)
    body, head = "backbone.body.", "backbone.head.weight"
    for key, value in tuned.state_dict().items():
        if key.startswith(body) and "running" not in key and "num_batches" not in key:
            assert torch.equal(value, module.state_dict()[key]), key
    assert tuned.state_dict()[head].shape[0] == 2


def test_name_that_timm_does_not_know_is_corrected():
    pytest.importorskip("timm")
    with pytest.raises(FERError, match="model.name=resnt18: timm .* did you mean resnet18"):
        TimmModel(name="resnt18", num_classes=7, image_size=48)


def test_without_timm_the_way_to_install_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        FERError, match="model.name=resnet18: networks of timm need that package: pip install timm"
    ):
        TimmModel(name="resnet18", num_classes=7, image_size=48)
