from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fer_lightning.core.errors import FERError
from fer_lightning.data import loader as loader_module
from fer_lightning.data.augment import Augment
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.data.loader import BatchLoader, batch_seed

# The loader


def loader(num=23, batch_size=5, shuffle=True, seed=0, rows=None):
    """Make a loader of 40 images whose pixels and labels equal their rows."""
    images = torch.arange(40, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    rows = torch.arange(10, 10 + num) if rows is None else rows
    return BatchLoader(images, torch.arange(40), rows, batch_size=batch_size, shuffle=shuffle, seed=seed)


def order(batches):
    return torch.cat([batch.rows for batch in batches]).tolist()


@pytest.mark.parametrize("num", [1, 4, 5, 6, 7, 10, 11, 23])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_row_occurs_once_per_epoch(num, shuffle):
    some = loader(num, shuffle=shuffle)
    batches = list(some)
    assert sorted(order(batches)) == list(range(10, 10 + num))
    assert len(batches) == len(some)


@pytest.mark.parametrize(
    ("num", "sizes"), [(1, [1]), (5, [5]), (6, [6]), (7, [5, 2]), (10, [5, 5]), (11, [5, 6]), (12, [5, 5, 2])]
)
def test_single_remaining_row_joins_the_previous_batch(num, sizes):
    assert [len(batch.labels) for batch in loader(num)] == sizes


def test_images_and_labels_are_those_of_the_rows():
    for batch in loader():
        assert batch.labels.tolist() == batch.rows.tolist()
        assert batch.images[:, 0, 0, 0].tolist() == batch.rows.tolist()
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape[1:] == (1, 2, 2)


def test_unshuffled_loader_keeps_the_row_order():
    rows = torch.tensor([30, 3, 7])
    assert order(loader(rows=rows, shuffle=False)) == [30, 3, 7]


def test_order_depends_only_on_seed_and_epoch():
    orders = {}
    for seed in (0, 1):
        for epoch in (0, 1):
            some = loader(seed=seed)
            some.set_epoch(epoch)
            torch.rand(seed + 3)  # the global random state must not matter
            orders[seed, epoch] = order(some)
            assert order(some) == orders[seed, epoch]  # nor how often it was asked
    assert len({tuple(rows) for rows in orders.values()}) == 4


def test_batch_seed_depends_on_seed_epoch_and_number():
    seeds = set()
    for seed in range(3):
        for epoch in range(3):
            some = loader(seed=seed)
            some.set_epoch(epoch)
            seeds |= {batch.seed for batch in some}
    assert len(seeds) == 3 * 3 * len(loader())
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_different_counters_give_different_batch_seeds():
    # numpy fills entropy up with zeros, so that (1, 2) and (1, 2, 0) would be one: an epoch's order and its
    # first batch would draw the same numbers.
    lists = [(1,), (1, 0), (1, 0, 0), (0, 1), (1, 2), (1, 2, 0), (2, 1), (0,), (0, 0)]
    assert len({batch_seed(*numbers) for numbers in lists}) == len(lists)


@pytest.mark.parametrize("stopped_after", [1, 2, 4])
def test_resumed_epoch_yields_exactly_the_remaining_batches(stopped_after):
    whole = loader()
    whole.set_epoch(3)
    batches = list(whole)

    stopped = loader()
    stopped.set_epoch(3)
    iterator = iter(stopped)
    for _ in range(stopped_after):
        next(iterator)
    resumed = loader()
    resumed.load_state_dict(stopped.state_dict())
    resumed.set_epoch(3)
    left = list(resumed)
    assert len(left) == len(batches) - stopped_after
    for one, other in zip(left, batches[stopped_after:], strict=True):
        assert torch.equal(one.rows, other.rows)
        assert one.seed == other.seed

    resumed.set_epoch(4)
    assert len(list(resumed)) == len(batches)  # the epoch after is whole


def test_finished_epoch_skips_no_batches():
    some = loader()
    assert some.state_dict() == {"batches": 0}
    list(some)
    assert some.state_dict() == {"batches": 0}


# The data module


def test_each_split_has_its_images(make_data):
    data = make_data()
    data.setup()
    assert {split: len(rows) for split, rows in data.rows.items()} == {"train": 70, "val": 28, "test": 28}
    for split in data.rows:
        assert all(face_id.startswith(f"{split}/") for face_id in data.faces.ids[data.split_rows(split)])
        assert data.class_counts(split) == [10 if split == "train" else 4] * 7
    assert data.split_rows("all").tolist() == list(range(126))
    assert data.class_counts("all") == [18] * 7


def test_protocol_and_val_fraction_define_the_splits(make_data):
    data = make_data(protocol="paper", val_fraction=0.2)
    data.setup()
    assert {split: len(rows) for split, rows in data.rows.items()} == {"train": 56, "val": 14, "test": 56}


def test_drop_leaks_removes_and_counts_duplicates(make_data, make_faces, monkeypatch):
    faces = make_faces(
        *[("train", 0, 1), ("train", 0, 1), ("train", 0, 2), ("train", 1, 3)],
        *[("val", 0, 4), ("val", 1, 5), ("val", 1, 6)],
        *[("test", 0, 1), ("test", 1, 5)],
    )
    monkeypatch.setattr(FERDataModule, "_load", lambda self: faces)
    data = make_data(drop_leaks=True)
    data.setup()
    assert {split: rows.tolist() for split, rows in data.rows.items()} == {
        "train": [2, 3],
        "val": [4, 6],
        "test": [7, 8],
    }
    assert data.dropped == {"train": 2, "val": 1}
    assert order(data.eval_loader("test")) == [7, 8]

    whole = make_data()
    whole.setup()
    assert (len(whole.rows["train"]), len(whole.rows["val"]), whole.dropped) == (4, 3, {})


def test_pixel_statistics_are_those_of_the_training_images(make_data):
    data = make_data()
    data.setup()
    pixels = data.faces.images[data.rows["train"]] / 255
    assert data.pixel_statistics() == pytest.approx((pixels.mean(), pixels.std()), abs=1e-12)
    everything = data.faces.images / 255
    assert data.pixel_statistics()[0] != pytest.approx(everything.mean(), abs=1e-9)


def test_blank_images_can_be_normalised(make_data, make_faces):
    data = make_data()
    data.faces, data.rows = make_faces(("train", 0, 0)), {"train": np.array([0])}
    assert data.pixel_statistics() == (0.0, 1e-3)


@pytest.mark.parametrize("split", ["train", "val", "test", "all"])
def test_eval_loader_covers_a_split_once_and_in_order(make_data, split):
    data = make_data()
    data.setup()
    for _ in range(2):
        batches = list(data.eval_loader(split))
        assert order(batches) == data.split_rows(split).tolist()
    assert max(len(batch.rows) for batch in batches) <= 9  # eval_batch_size, and a left-over row


def test_only_training_batches_are_shuffled(make_data):
    data = make_data()
    data.setup()
    train = order(data.train_dataloader())
    assert train != sorted(train) == data.rows["train"].tolist()
    assert order(data.val_dataloader()) == data.rows["val"].tolist()


def test_val_dataloader_is_empty_without_a_val_split(make_data):
    data = make_data(protocol="paper")
    data.setup()
    assert len(data.val_dataloader()) == 0


def test_processes_of_ddp_have_parts_of_each_split(make_data):
    parts = {"train": [], "val": [], "test": []}
    for rank in range(3):
        data = make_data()
        data.setup()
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        data.trainer = SimpleNamespace(world_size=3, global_rank=rank, strategy=strategy)
        for split, rows in parts.items():
            rows.append(order(getattr(data, f"{split}_dataloader")()))
    for split, rows in parts.items():
        assert max(map(len, rows)) - min(map(len, rows)) <= 1
        joined = sorted(row for part in rows for row in part)
        assert joined == sorted(data.rows[split].tolist())  # each image once


def test_second_setup_loads_the_same_images(make_data):
    one, other = make_data(), make_data()
    for data in (one, other):
        data.prepare_data()
        data.setup()
        data.setup("fit")
    assert one.faces.fingerprint == other.faces.fingerprint
    assert np.array_equal(one.faces.images, other.faces.images)


def test_images_are_found_by_their_ids(make_data):
    data = make_data()
    data.setup()
    rows = np.array([40, 3, 125])
    assert np.array_equal(data.images_of(data.faces.ids[rows]), data.faces.images[rows])


# Augmentation


def transferred(data, training, seed=0, epoch=0):
    data.trainer = SimpleNamespace(
        training=training,
        current_epoch=epoch,
        max_epochs=6,
        world_size=1,
        global_rank=0,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    batch = next(iter(data.train_dataloader()))._replace(seed=seed)
    return batch, data.on_after_batch_transfer(batch, 0)


def test_augmentation_follows_the_batch_seed(make_data):
    data = make_data(augment=Augment(flip=0.5, brightness=0.3))
    data.setup()
    before, after = transferred(data, training=True)
    assert not torch.equal(after.images, before.images.float())
    assert torch.equal(transferred(data, training=True)[1].images, after.images)
    assert not torch.equal(transferred(data, training=True, seed=1)[1].images, after.images)
    assert (after.labels is before.labels, after.rows is before.rows, after.seed) == (True, True, before.seed)


def test_side_of_training_batches_follows_the_epoch(make_data):
    data = make_data(augment=Augment(sides=[8, 12, 16]))
    data.setup()
    for epoch, side in ((0, 8), (2, 12), (5, 16)):
        _, augmented = transferred(data, training=True, epoch=epoch)
        assert augmented.images.shape[-2:] == (side, side)


def test_augmentation_and_dropout_draw_different_numbers(make_data, monkeypatch):
    data = make_data(augment=Augment(flip=0.5))
    data.setup()
    generators = []
    monkeypatch.setattr(
        Augment, "__call__", lambda self, images, generator, side: generators.append(generator) or images
    )
    transferred(data, training=True, seed=5)
    torch.manual_seed(5)
    assert not torch.equal(torch.rand(8, generator=generators[0]), torch.rand(8))


def test_validation_batches_are_not_augmented(make_data):
    data = make_data(augment=Augment(flip=0.5))
    data.setup()
    before, after = transferred(data, training=False)
    assert after is before


def test_disabled_augmentation_leaves_batches_unchanged(make_data):
    data = make_data()
    data.setup()
    before, after = transferred(data, training=True)
    assert after is before


# Mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 6}, "data.num_classes=6: data.classes names 7 different classes"),
        (
            {"classes": [*EXPRESSIONS[:6], "angry"]},
            "data.classes=.*: expected a list of at least two different names",
        ),
        (
            {"augment": Augment(sides=[8, 12])},
            r"data.augment.sides=\[8, 12\]: the last must be data.image_size=16",
        ),
        ({"batch_size": 0}, "data.batch_size=0: expected a whole number of at least 1"),
        ({"eval_batch_size": -1}, "data.eval_batch_size=-1: expected a whole number of at least 1"),
        ({"seed": -1}, "seed=-1: expected a whole number of at least 0"),
    ],
)
def test_invalid_data_setting_is_named(make_data, changes, message):
    with pytest.raises(FERError, match=message):
        make_data(**changes)


# Memory


def test_mapped_images_give_the_same_batches(make_data):
    in_memory, mapped = make_data(), make_data(in_memory_gb=0)
    for data in (in_memory, mapped):
        data.setup()
    assert isinstance(mapped.faces.images, np.memmap)
    assert mapped._images.data_ptr() == mapped.faces.images.ctypes.data
    assert not isinstance(in_memory.faces.images, np.memmap), "a cache cut short would end the process"
    for one, other in zip(in_memory.train_dataloader(), mapped.train_dataloader(), strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert one.seed == other.seed


@pytest.mark.parametrize("limit", [-1, "4", True])
def test_invalid_in_memory_gb_is_refused(make_data, limit):
    with pytest.raises(FERError, match=f"data.in_memory_gb={limit}: expected a number of at least 0"):
        make_data(in_memory_gb=limit)


def test_batches_indexed_together_equal_single_ones(monkeypatch):
    together = list(loader(num=29, batch_size=1))
    monkeypatch.setattr(loader_module, "_NUM_INDEXED", 1)
    for one, other in zip(together, loader(num=29, batch_size=1), strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.rows, other.rows)
        assert one.seed == other.seed


def test_batch_on_its_device_is_not_copied(make_data):
    data = make_data()
    data.setup()
    (batch, *_) = data.train_dataloader()
    assert data.transfer_batch_to_device(batch, torch.device("cpu"), 0) is batch
    assert data.transfer_batch_to_device(batch, torch.device("meta"), 0).images.device.type == "meta"
