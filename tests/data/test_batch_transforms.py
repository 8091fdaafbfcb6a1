"""Transforms of training batches: what they get, what they return, where their randomness comes from."""

from types import SimpleNamespace

import pytest
import torch
from torchvision.transforms import v2

from fer_lightning.core.errors import FERError
from fer_lightning.data.batch_transforms import transform_batch
from fer_lightning.data.loader import Batch

MIXUP = v2.MixUp(num_classes=7, alpha=0.5)
CUTMIX = v2.CutMix(num_classes=7)


def make_batch(seed=3, targets=None, channels=1):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, channels, 16, 16), dtype=torch.uint8, generator=generator)
    return Batch(images, torch.arange(8) % 7, torch.arange(8), seed, targets)


def apply(*transforms, **settings):
    return transform_batch(transforms, make_batch(**settings), num_classes=7)


@pytest.mark.parametrize("transform", [MIXUP, CUTMIX])
@pytest.mark.parametrize("channels", [1, 3])
def test_torchvision_mixes_images_and_labels(transform, channels):
    before, after = make_batch(channels=channels), apply(transform, channels=channels)
    assert after.images.shape == before.images.shape
    assert after.images.dtype == torch.float32
    assert not torch.equal(after.images, before.images.float())
    assert after.targets.shape == (8, 7)
    assert torch.allclose(after.targets.sum(1), torch.ones(8))
    assert torch.equal(after.labels, before.labels), "metrics need the labels of the images"


def test_mixing_follows_the_batch_seed_alone():
    torch.manual_seed(1)
    first = apply(MIXUP, CUTMIX)
    torch.manual_seed(2)
    again = apply(MIXUP, CUTMIX)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.images, apply(MIXUP, CUTMIX, seed=4).images)


def test_the_global_generator_is_as_before():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    apply(MIXUP)
    with pytest.raises(FERError):
        apply(lambda images, labels: torch.rand(1))
    assert torch.equal(torch.rand(3), expected)


def test_transforms_draw_other_numbers_than_dropout():
    drawn = []

    def draw(images, labels):
        drawn.append(torch.rand(4))
        return images, labels

    apply(draw, seed=7)
    torch.manual_seed(7)
    assert not torch.equal(drawn[0], torch.rand(4))


def test_labels_of_a_transform_replace_the_labels():
    after = apply(lambda images, labels: (images.roll(1, 0), labels.roll(1)))
    assert torch.equal(after.labels, make_batch().labels.roll(1))
    assert after.targets is None


def test_a_transform_gets_the_targets_of_the_data_set():
    targets = torch.full((8, 7), 1 / 7)
    after = apply(MIXUP, targets=targets)
    assert torch.allclose(after.targets, targets)


def test_a_transform_that_takes_labels_only_is_named():
    def one_hot(images, labels):
        if labels.ndim != 1:
            raise ValueError("labels must be 1-d")
        return images, torch.nn.functional.one_hot(labels, 7).float()

    assert apply(one_hot).targets.shape == (8, 7)
    message = (
        r"data.batch_transforms\[1\]: one_hot refused shape \(8, 7\) and type float32 \(labels must be 1-d\)"
    )
    with pytest.raises(FERError, match=message):
        apply(MIXUP, one_hot)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda images, labels: images, "returned shape"),
        (lambda images, labels: (images, labels, 0), "returned 3 values"),
        (lambda images, labels: (images[:3], labels), r"returned images of shape \(3, 1, 16, 16\)"),
        (lambda images, labels: (images.byte(), labels), "returned images of .* type uint8"),
        (lambda images, labels: (images, labels[:3]), r"returned labels of shape \(3,\)"),
        (
            lambda images, labels: (images, labels.float()),
            r"returned labels of shape \(8,\) and type float32",
        ),
        (lambda images, labels: (images, torch.zeros(8, 5)), r"returned labels of shape \(8, 5\)"),
        (lambda images, labels: (images, None), "returned labels of type NoneType"),
        (lambda images: images, "refused"),
        (v2.MixUp(num_classes=3), "refused"),
    ],
)
def test_anything_else_is_refused(transform, message):
    with pytest.raises(FERError, match=rf"data.batch_transforms\[0\]: \S+ {message}"):
        apply(transform)


@pytest.mark.parametrize("transforms", [MIXUP, "mixup", [MIXUP, 3]])
def test_transforms_are_a_list_of_callables(make_data, transforms):
    with pytest.raises(FERError, match="data.batch_transforms=.*: expected a list of transforms, such as"):
        make_data(batch_transforms=transforms)


def test_only_training_batches_are_transformed(make_data):
    data = make_data(batch_transforms=[MIXUP], augment={"flip": 0.5})
    data.setup()
    batch = next(iter(data.eval_loader("test")))
    for training in (True, False):
        data.trainer = SimpleNamespace(training=training, current_epoch=0, max_epochs=1)
        after = data.on_after_batch_transfer(batch, 0)
        assert (after is batch) is not training
        assert (after.targets is None) is not training


def test_transforms_do_not_change_the_data_set(make_data):
    def erase(images, labels):
        return images.zero_(), labels

    data = make_data(batch_transforms=[erase])
    data.setup()
    before = data._images.clone()
    batch = next(iter(data.eval_loader("test")))
    data.trainer = SimpleNamespace(training=True, current_epoch=0, max_epochs=1)
    data.on_after_batch_transfer(batch, 0)
    assert torch.equal(data._images, before)


@pytest.mark.parametrize(("until", "transformed"), [(1.0, 10), (0.9, 9), (0.25, 3), (0, 0)])
def test_the_last_epochs_can_do_without_transforms(make_data, until, transformed):
    data = make_data(batch_transforms=[MIXUP], batch_transforms_until=until)
    data.setup()
    batch = next(iter(data.eval_loader("test")))
    found = []
    for epoch in range(10):
        data.trainer = SimpleNamespace(training=True, current_epoch=epoch, max_epochs=10)
        found.append(data.on_after_batch_transfer(batch, 0).targets is not None)
    assert found == [True] * transformed + [False] * (10 - transformed)


@pytest.mark.parametrize("until", [-0.1, 1.1, "x", True, float("nan")])
def test_a_part_of_the_epochs_is_between_0_and_1(make_data, until):
    with pytest.raises(FERError, match=r"data\.batch_transforms_until=.*: expected a number in \[0, 1\]"):
        make_data(batch_transforms_until=until)
