"""Training on a GPU: the numbers of a CPU, nothing left on the host, no step that waits."""

import math

import numpy as np
import pytest
import torch

from fer_lightning.core.errors import FERError, as_user_error, release_frames
from fer_lightning.evaluation.evaluate import predict_splits
from fer_lightning.training.callbacks import StopOnNonFiniteLoss, non_finite
from fer_lightning.training.checkpoint import load_classifier
from tests.config.test_conf import PAPER_MODELS
from tests.in_process import epochs, fit
from tests.slow import slow_except
from tests.training.test_golden_losses import FIVE_STEPS, SLOW

# Another version of a library than the one this project is tested with may warn.
pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning"),
]

TRAINER = {"cpu": "trainer=cpu", "cuda": "trainer=gpu"}
RECIPES = ("plain", "improved")
# A GPU draws other random numbers than a CPU, so nothing is dropped.
COMPARABLE = {
    "mlp": ("model.dropout=0",),
    "cnn": ("model.conv_dropout=0", "model.dropout=0"),
    "rnn": ("model.dropout=0",),
    "resnet": ("model.depth=18",),
}
# Relative difference of two losses in 32-true: linear layers multiply in TF32, which has 10 bits, and Adam's
# first steps amplify small differences. An H200 is 3.3e-3 apart at the fifth step of the CNN.
SAME = 5e-3
SIMILAR = 5e-2  # of a loss in bf16, which has 8 bits, and one in float32


def recipe_of(model, recipe):
    if recipe == "plain":
        return (f"model={model}",)
    return (f"experiment=improved_{model}", "data.protocol=official")


@pytest.mark.parametrize("recipe", [pytest.param("plain", marks=pytest.mark.slow), "improved"])
@pytest.mark.parametrize("model", slow_except(["mlp"], PAPER_MODELS))
def test_two_epochs_train_on_the_device(model, recipe, device, tmp_path):
    settings = (
        *recipe_of(model, recipe),
        TRAINER[device],
        "trainer.max_epochs=2",
        "trainer.limit_train_batches=2",
    )
    run, data, _ = fit(*settings, "data.batch_size=35", folder=tmp_path)
    assert all(math.isfinite(value) for epoch in epochs(run) for value in epoch.values())
    assert len(epochs(run)) == 2
    batch = next(iter(data.train_dataloader()))
    assert {part.device.type for part in (batch.images, batch.labels, batch.rows)} == {device}


@pytest.mark.parametrize("model", slow_except(["mlp"], PAPER_MODELS))
def test_five_steps_have_the_losses_of_a_cpu(model, device, tmp_path):
    def losses(on, precision):
        settings = (TRAINER[on], f"trainer.precision={precision}", *SLOW.get(("plain", model), ()))
        run, _, _ = fit(f"model={model}", *COMPARABLE[model], *FIVE_STEPS, *settings, folder=tmp_path)
        return [epoch["train/loss"] for epoch in epochs(run)]

    torch.backends.cudnn.allow_tf32 = False  # the `cuda` fixture restores it
    on_cpu = losses("cpu", "32-true")
    if device == "cuda":
        assert losses(device, "32-true") == pytest.approx(on_cpu, rel=SAME)
    if device == "cuda" or model != "rnn" or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        assert losses(device, "bf16-mixed") == pytest.approx(on_cpu, rel=SIMILAR)


@pytest.mark.parametrize("model", slow_except(["cnn"], ["cnn", "rnn"]))
def test_evaluation_repeats_the_accuracy_of_training(model, device, tmp_path):
    run, data, _ = fit(f"model={model}", TRAINER[device], "trainer.max_epochs=2", folder=tmp_path)
    classifier, metadata = load_classifier(run.folder / "best.ckpt")
    node = metadata.config["trainer"]
    predicted = predict_splits(classifier, metadata, data, ["val"], node)["val"]
    accuracy = (predicted.probs.argmax(axis=1) == predicted.labels).mean()
    assert accuracy == pytest.approx(epochs(run)[metadata.epoch]["val/acc"], abs=1e-6)
    again = predict_splits(classifier, metadata, data, ["val"], node)["val"]
    np.testing.assert_array_equal(again.probs, predicted.probs)


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("model", slow_except(["mlp"], PAPER_MODELS))
def test_no_step_waits_for_the_gpu(model, recipe, cuda, tmp_path, monkeypatch):
    """Only the losses are read back, 16 steps at a time: 35 steps take 3 reads."""
    reads, read = [], non_finite.read_losses

    def counted(losses):
        torch.cuda.set_sync_debug_mode("default")
        reads.append(len(losses))
        values = read(losses)
        if sum(reads) % 35:
            torch.cuda.set_sync_debug_mode("error")
        return values

    def forbid_waiting(watcher, trainer, module, batch, batch_idx):
        if batch_idx == 1:  # the first step of a process prepares libraries and constants
            torch.cuda.set_sync_debug_mode("error")

    monkeypatch.setattr(non_finite, "read_losses", counted)
    monkeypatch.setattr(StopOnNonFiniteLoss, "on_train_batch_start", forbid_waiting)
    settings = (*recipe_of(model, recipe), TRAINER["cuda"], "trainer.max_epochs=2")
    fit(*settings, "data.batch_size=4", "optimizer.lr=0.001", folder=tmp_path)
    assert reads == [16, 16, 3] * 2


@pytest.mark.gpu
def test_what_waits_for_the_gpu_is_an_error(cuda):
    """The debug mode on which the test above relies."""
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match="synchronizing"):
        torch.ones(3, device="cuda").sum().item()


@pytest.mark.gpu
def test_too_little_memory_names_the_batch_size_and_is_released(cuda, tmp_path):
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 0.7e9 / total))
    settings = ("model=resnet", "model.stem=small", "data.batch_size=140", TRAINER["cuda"])
    with pytest.raises(RuntimeError) as caught:
        fit(*settings, folder=tmp_path)
    reported = as_user_error(
        caught.value, tmp_path, {"batch_size": 140, "eval_batch_size": 64, "image_size": 48}
    )
    assert isinstance(reported, FERError)
    assert "out of memory (" in str(reported)
    assert "lower data.batch_size=140" in str(reported)
    release_frames(caught.value)
    assert torch.cuda.memory_allocated() < 50e6


@pytest.mark.gpu
def test_a_compiled_network_trains(cuda, tmp_path):
    run, _, _ = fit("model=mlp", TRAINER["cuda"], "compile=true", "trainer.max_epochs=1", folder=tmp_path)
    assert math.isfinite(epochs(run)[0]["train/loss"])
