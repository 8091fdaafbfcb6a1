import pickle
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils._python_dispatch import TorchDispatchMode

from fer_lightning.core.errors import FERError
from fer_lightning.data.augment import Augment
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.data.loader import Batch
from fer_lightning.evaluation.evaluate import predict_splits
from fer_lightning.models.mlp import MLP
from fer_lightning.training.checkpoint import CheckpointMetadata
from fer_lightning.training.classifier import FERClassifier
from fer_lightning.training.ema import EMA, inference_state_dict
from fer_lightning.training.epoch_outputs import EpochOutputs
from fer_lightning.training.losses import EFFECTIVE_BETA, CrossEntropy, compute_class_weights
from fer_lightning.training.metrics import scalar_metrics
from fer_lightning.training.overhead import seed_device


class Pixels(nn.Module):
    """A backbone that hands its input on: the first pixels are the logits."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.num_classes = num_classes
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return self.scale * images.flatten(1)[:, : self.num_classes]


def classifier(backbone=None, classes=("a", "b", "c"), mean=0.0, std=1.0, **settings):
    return FERClassifier(backbone=backbone or Pixels(), classes=classes, mean=mean, std=std, **settings)


def with_counts(module, counts):
    """Set a module up for training images of which each class has so many."""
    data = SimpleNamespace(pixel_statistics=lambda: (0.0, 1.0), class_counts=lambda split: counts)
    module._trainer = SimpleNamespace(datamodule=data)
    module.setup("fit")
    module._trainer = None
    return module


def batch(num=5, seed=0, size=4):
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        images=torch.randint(0, 256, (num, 1, size, size), dtype=torch.uint8, generator=generator),
        labels=torch.arange(num) % 3,
        rows=torch.arange(num),
        seed=seed,
    )


# Normalisation


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_backbone_sees_faces_less_the_mean_over_the_deviation(dtype):
    module = classifier(mean=0.5, std=0.25)
    images = torch.tensor([0.0, 51.0, 255.0, 9.0]).reshape(1, 1, 2, 2).to(dtype)
    torch.testing.assert_close(module(images), torch.tensor([[-2.0, -1.2, 2.0]]))


COLOUR = {"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.2, 0.1)}


def test_colour_images_are_normalised_channel_by_channel():
    images = torch.randint(0, 256, (2, 3, 1, 1), dtype=torch.uint8)
    mean, std = (torch.tensor(COLOUR[key]).view(1, 3) for key in ("mean", "std"))
    expected = (images.flatten(1) / 255 - mean) / std
    torch.testing.assert_close(classifier(**COLOUR)(images), expected)


@pytest.mark.parametrize("assign", [False, True])
def test_normalisation_of_colour_travels_with_the_weights(assign):
    state = classifier(**COLOUR).state_dict()
    assert state["mean"].shape == state["std"].shape == (3, 1, 1)
    other = classifier()
    other.load_state_dict(state, assign=assign)
    torch.testing.assert_close(other.mean, state["mean"])
    images = torch.randint(0, 256, (2, 3, 1, 1), dtype=torch.uint8)
    torch.testing.assert_close(other(images), classifier(**COLOUR)(images))
    other.load_state_dict(classifier(mean=0.5, std=0.25).state_dict(), assign=assign)
    assert other.mean.shape == ()


def test_setup_takes_the_statistics_of_colour_from_the_data():
    module = classifier()
    data = SimpleNamespace(
        pixel_statistics=lambda: (COLOUR["mean"], COLOUR["std"]), class_counts=lambda split: [1, 1, 1]
    )
    module._trainer = SimpleNamespace(datamodule=data)
    module.setup("fit")
    module._trainer = None
    torch.testing.assert_close(module.mean, classifier(**COLOUR).mean)


def test_normalisation_travels_with_the_weights():
    state = classifier(mean=0.5, std=0.25).state_dict()
    assert (state["mean"].item(), state["std"].item()) == (0.5, 0.25)
    other = classifier()
    other.load_state_dict(state)
    assert (other.mean.item(), other.std.item()) == (0.5, 0.25)


def test_checkpoint_holds_only_the_network_and_its_normalisation():
    module = with_counts(classifier(loss=CrossEntropy(class_weights="balanced")), [1, 2, 3])
    assert module.state_dict().keys() == {"backbone.scale", "mean", "std"}


# The moving average of the weights, and mirror images


def test_the_average_follows_the_steps_and_predicts_in_their_place():
    module = classifier(ema_decay=0.75)
    with torch.no_grad():
        module.backbone.scale.fill_(5.0)
    EMA(module.averaged, module.backbone, 0.75).update(1000)
    images = torch.full((1, 1, 2, 2), 255.0)
    assert module.train()(images)[0, 0].item() == 5.0
    assert module.eval()(images)[0, 0].item() == 2.0
    assert not any(parameter.requires_grad for parameter in module.averaged.parameters())


def test_ema_of_a_short_run_forgets_the_initial_weights():
    module = classifier(ema_decay=0.998)
    with torch.no_grad():
        module.backbone.scale.fill_(5.0)
    ema = EMA(module.averaged, module.backbone, 0.998)
    for step in range(30):
        ema.update(step)
    assert module.averaged.scale.item() == pytest.approx(5, abs=1e-3)


def test_the_average_takes_over_what_batch_normalisation_counts():
    average, current = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    current(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    EMA(average, current, 0.5).update(1000)
    assert average.num_batches_tracked.item() == 1
    torch.testing.assert_close(average.running_mean, current.running_mean / 2)


def test_a_classifier_with_an_average_can_be_sent_to_another_process():
    module = classifier(ema_decay=0.9)
    assert pickle.loads(pickle.dumps(module)).averaged is not None


def test_only_the_backbone_is_optimised():
    optimizer = classifier(ema_decay=0.9, optimizer=torch.optim.SGD).configure_optimizers()
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]


def test_what_predicts_is_the_average_under_the_names_of_the_backbone():
    module = classifier(ema_decay=0.9)
    with torch.no_grad():
        module.backbone.scale.fill_(7.0)
    state = inference_state_dict(module.state_dict())
    assert state.keys() == {"backbone.scale", "mean", "std"}
    assert state["backbone.scale"].item() == 1.0
    assert inference_state_dict(classifier().state_dict()).keys() == {"backbone.scale", "mean", "std"}


def test_a_face_and_its_mirror_image_are_averaged_except_in_training():
    images = torch.arange(8.0).reshape(1, 1, 2, 4) * 36
    plain, both = classifier().eval(), classifier(flip_test=True)
    expected = (plain(images) + plain(images.flip(-1))) / 2
    torch.testing.assert_close(both.eval()(images), expected)
    torch.testing.assert_close(both.train()(images), plain(images))
    assert not torch.equal(expected, plain(images))


@pytest.mark.parametrize(
    ("name", "value"), [("ema_decay", 1.0), ("ema_decay", -0.1), ("ema_decay", True), ("flip_test", 1)]
)
def test_averages_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(FERError, match=f"classifier.{name}={value}: expected"):
        classifier(**{name: value})


# The weights of the classes


def test_balanced_weights_give_every_class_the_same_share_of_the_loss():
    weights = compute_class_weights("balanced", [10, 30, 60])
    np.testing.assert_allclose(weights, [100 / 30, 100 / 90, 100 / 180], rtol=1e-6)
    assert (weights * torch.tensor([10, 30, 60])).sum().item() == pytest.approx(100)


def test_effective_class_weights_follow_the_effective_number_of_samples():
    counts = np.array([436, 7215])
    expected = (1 - EFFECTIVE_BETA) / (1 - EFFECTIVE_BETA**counts)
    weights = compute_class_weights("effective", counts.tolist())
    np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-6)
    assert weights.dtype == torch.float32
    assert weights.mean().item() == pytest.approx(1)
    assert 1 < (weights[0] / weights[1]).item() < 7215 / 436  # milder than balanced


def test_equal_counts_weigh_nothing_in_either_scheme():
    for scheme in ("balanced", "effective"):
        np.testing.assert_allclose(compute_class_weights(scheme, [50, 50, 50]), 1, rtol=1e-6)


def test_no_weights_need_no_counts():
    assert compute_class_weights("none", None) is None


def test_unknown_weighting_scheme_raises_with_the_known_ones():
    with pytest.raises(FERError, match=r"class_weights=inverse: expected none, balanced or effective"):
        CrossEntropy(class_weights="inverse")


@pytest.mark.parametrize("scheme", ["balanced", "effective"])
def test_a_class_without_a_training_face_cannot_be_weighed(scheme):
    with pytest.raises(FERError, match=f"class_weights={scheme}: .*no training image"):
        compute_class_weights(scheme, [3, 0, 2])


# The loss


@pytest.mark.parametrize("smoothing", [-0.1, 1, 1.5, float("nan")])
def test_label_smoothing_outside_its_range_is_refused(smoothing):
    with pytest.raises(FERError, match=f"label_smoothing={smoothing}: expected a number in"):
        CrossEntropy(label_smoothing=smoothing)


def test_the_loss_is_the_weighted_smoothed_cross_entropy():
    some = batch()
    loss = CrossEntropy(class_weights="balanced", label_smoothing=0.2)
    module = with_counts(classifier(loss=loss), [10, 30, 60])
    expected = F.cross_entropy(
        module(some.images), some.labels, torch.tensor([100 / 30, 100 / 90, 100 / 180]), label_smoothing=0.2
    )
    torch.testing.assert_close(module.training_step(some, 0), expected)


def test_class_weights_move_with_the_module_but_are_not_saved():
    module = with_counts(classifier(loss=CrossEntropy(class_weights="balanced")), [10, 30, 60])
    assert dict(module.named_buffers())["loss.weight"].shape == (3,)


def test_a_seeded_device_draws_what_torch_s_own_seeding_gives():
    torch.manual_seed(2**63 - 5)
    expected = torch.rand(9)
    seed_device(2**63 - 5, torch.device("cpu"))
    assert torch.equal(torch.rand(9), expected)


def test_dropout_depends_only_on_the_seed_of_the_batch():
    module = classifier(nn.Sequential(Pixels(), nn.Dropout(0.5))).train()
    torch.manual_seed(1)
    one = module.training_step(batch(seed=7), 0)
    torch.manual_seed(2)
    torch.rand(3)
    assert torch.equal(module.training_step(batch(seed=7), 0), one)
    other = module.training_step(batch(seed=7)._replace(seed=8), 1)
    assert not torch.equal(other, one)


def test_predictions_are_probabilities_with_their_row_numbers():
    module, some = classifier().eval(), batch()
    with torch.inference_mode():
        rows, probs = module.predict_step(some)
    assert torch.equal(rows, some.rows)
    assert probs.dtype == torch.float32
    torch.testing.assert_close(probs, module(some.images).softmax(1))


# An epoch's outputs


def batches(sizes, num_classes=3):
    generator = torch.Generator().manual_seed(0)
    for size in sizes:
        logits = torch.randn(size, num_classes, generator=generator)
        labels = torch.randint(num_classes, (size,), generator=generator)
        yield logits, labels, F.cross_entropy(logits, labels)


def add_all(outputs, batches, first=0):
    for number, batch in enumerate(batches, first):
        outputs.add(*batch, number)


def filled(sizes):
    outputs = EpochOutputs()
    add_all(outputs, batches(sizes))
    return outputs


@pytest.mark.parametrize("sizes", [[4, 4, 1], [700] * 3 + [5], [3] * 37])
def test_the_metrics_of_an_epoch_are_those_of_all_its_images_at_once(sizes):
    probs, labels, loss = filled(sizes).collect()
    logits = torch.cat([logits for logits, _, _ in batches(sizes)])
    assert torch.equal(labels, torch.cat([labels for _, labels, _ in batches(sizes)]))
    torch.testing.assert_close(probs, logits.softmax(1))
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))  # the short batch counts by its images

    by_batch = scalar_metrics(3)
    for some_logits, some_labels, _ in batches(sizes):
        by_batch.update(some_logits.softmax(1), some_labels)
    at_once = scalar_metrics(3)
    at_once.update(probs, labels)
    torch.testing.assert_close(at_once.compute(), by_batch.compute())


def test_outputs_keep_no_graph():
    logits = torch.ones(2, 3, requires_grad=True)
    outputs = EpochOutputs()
    outputs.add(logits * 2, torch.tensor([0, 1]), (logits * 2).sum(), 0)
    assert not any(kept.requires_grad for kept in outputs.state_dict().values())


def test_an_epoch_begins_with_nothing_and_in_the_memory_of_the_one_before():
    outputs = filled([4, 2])
    place = outputs.collect()[1].data_ptr()
    outputs.clear()
    assert outputs.state_dict() == {}
    add_all(outputs, batches([3]))
    assert outputs.collect()[1].data_ptr() == place
    for one, other in zip(outputs.collect(), filled([3]).collect(), strict=True):
        assert torch.equal(one, other)


def test_epoch_resumed_from_a_checkpoint_reports_all_its_images(tmp_path):
    *first, last = batches([4, 4, 2])
    half, resumed = EpochOutputs(), EpochOutputs()
    add_all(half, first)
    torch.save(half.state_dict(), tmp_path / "half.pt")
    assert (tmp_path / "half.pt").stat().st_size < 10_000  # the rows in use, not their buffer
    resumed.load_state_dict(torch.load(tmp_path / "half.pt", weights_only=True))
    resumed.add(*last, 2)
    for one, other in zip(resumed.collect(), filled([4, 4, 2]).collect(), strict=True):
        assert torch.equal(one, other)


def test_before_its_first_batch_an_epoch_has_nothing_to_keep():
    outputs = EpochOutputs()
    assert outputs.state_dict() == {}
    outputs = filled([2])
    outputs.load_state_dict({})
    assert outputs.state_dict() == {}


def test_restored_cpu_outputs_join_those_on_the_device():
    resumed, device = EpochOutputs(), torch.device("meta")  # as good as a GPU: it mixes with no other
    resumed.load_state_dict(filled([2]).state_dict())
    resumed.add(
        torch.ones(3, 3, device=device), torch.ones(3, device=device), torch.ones((), device=device), 1
    )
    probs, labels, loss = resumed.collect()
    assert probs.device == labels.device == loss.device == device
    assert (len(probs), len(labels)) == (5, 5)


# A step


class Syncs(TorchDispatchMode):
    """Counts how often a value is read back from its device."""

    num = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.num += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_what_reads_a_value_back_would_be_counted():
    with Syncs() as syncs:
        torch.ones(()).item()
        bool(torch.ones(()) > 0)
    assert syncs.num == 2


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_no_step_waits_for_the_device(make_data, ema_decay):
    counted = []
    for batch_size in (35, 5):  # 2 steps an epoch, and 14
        data = make_data(batch_size=batch_size, augment=Augment(flip=0.5, shift=0.1, erase=0.5))
        module = classifier(
            backbone=MLP(num_classes=7, image_size=16, hidden=[8], dropout=0.5),
            classes=EXPRESSIONS,
            optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9, fused=True),
            scheduler=partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1),
            loss=CrossEntropy(label_smoothing=0.1),
            ema_decay=ema_decay,
        )
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=2,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        with Syncs() as syncs:
            trainer.fit(module, datamodule=data)
        counted.append(syncs.num)
    assert counted[0] == counted[1]


def test_weights_are_predicted_with_in_inference_mode(make_data):
    class Asking(FERClassifier):
        def predict_step(self, batch):
            assert torch.is_inference_mode_enabled()
            return super().predict_step(batch)

    data = make_data()
    data.setup()
    backbone = MLP(num_classes=7, image_size=16, hidden=[8], dropout=0.5)
    module = Asking(backbone=backbone, classes=EXPRESSIONS, mean=0.5, std=0.2)
    metadata = CheckpointMetadata(
        config={}, classes=EXPRESSIONS, fingerprint="", trained_on=data.faces.hashes[:0],
        selected_on=data.faces.hashes[:0], selected_by="last", epoch=0, score=None, precision="32-true",
        channels_last=False,
    )  # fmt: skip
    settings = {"accelerator": "cpu", "precision": "32-true", "deterministic": False}
    settings["limit_predict_batches"] = 1.0
    assert len(predict_splits(module, metadata, data, ["test"], settings)["test"]) == 28


def test_new_weights_bring_their_own_normalisation_even_after_use():
    module, other = classifier(mean=0.5, std=0.25), classifier(mean=0.1, std=0.5)
    images = batch().images
    before = module(images)
    module.load_state_dict(other.state_dict())
    assert not torch.equal(module(images), before)
    torch.testing.assert_close(module(images), other(images))


# The optimiser


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_before_a_fused_step(make_data, precision, algorithm):
    backbone = MLP(num_classes=7, image_size=16, hidden=[8], dropout=0.0)
    before = [weights.detach().clone() for weights in backbone.parameters()]
    sgd = partial(torch.optim.SGD, lr=1.0, fused=True)
    module = classifier(backbone=backbone, classes=EXPRESSIONS, optimizer=sgd)
    trainer = Trainer(
        accelerator="cpu", precision=precision, max_epochs=1, limit_train_batches=1, limit_val_batches=0,
        gradient_clip_val=1e-3, gradient_clip_algorithm=algorithm, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=make_data())
    changes = [(one - other).detach() for one, other in zip(before, backbone.parameters(), strict=True)]
    if algorithm == "norm":
        assert torch.cat([change.flatten() for change in changes]).norm() == pytest.approx(1e-3, rel=1e-2)
    else:
        assert max(change.abs().max() for change in changes) == pytest.approx(1e-3, rel=1e-2)


def test_a_schedule_by_epochs_is_made_from_the_optimiser():
    module = classifier(
        optimizer=partial(torch.optim.SGD, lr=1.0),
        scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1),
    )
    made = module.configure_optimizers()
    assert made["lr_scheduler"]["scheduler"].optimizer is made["optimizer"]
    assert made["lr_scheduler"]["interval"] == "epoch"


def test_without_a_schedule_there_is_the_optimiser_alone():
    made = classifier(optimizer=partial(torch.optim.SGD, lr=1.0)).configure_optimizers()
    assert isinstance(made, torch.optim.SGD)
    assert made.param_groups[0]["lr"] == 1.0


def test_without_an_optimizer_there_is_the_paper_s():
    made = classifier().configure_optimizers()
    assert isinstance(made, torch.optim.Adam)
    assert made.param_groups[0]["lr"] == 1e-3
