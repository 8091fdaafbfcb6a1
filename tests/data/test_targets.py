"""Soft targets from a reader to the batch: checked, cached, part of the fingerprint."""

from functools import partial

import numpy as np
import pytest
import torch

from fer_lightning.core.errors import FERError
from fer_lightning.data import cache
from fer_lightning.data.cache import load_faces
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.faces import SPLITS, Record

CLASSES = ("happy", "sad", "fear")


class Voted:
    """A source of twelve 4 x 4 images with votes for three classes; ``change`` edits the records."""

    name, image_size, parallel = "voted", 4, True

    def __init__(self, classes=CLASSES, change=lambda records: records, votes=(0, 3, 1)):
        self.classes, self.change = classes, change
        self.votes = dict(zip(CLASSES, votes, strict=True))

    def cache_key(self):
        return str(self.votes)

    def records(self):
        records = []
        for number in range(12):
            votes = np.array([self.votes[name] for name in self.classes], np.float32)
            pixels = partial(np.full, (4, 4), number, np.uint8)
            split = SPLITS[number % 3]
            records.append(Record(f"{split}/x/{number}", split, 0, f"votes.csv:{number}", pixels, votes))
        return iter(self.change(records))


@pytest.fixture
def load(tmp_path):
    return partial(load_faces, cache_dir=tmp_path, log=lambda _: None)


def test_targets_sum_to_one_and_give_the_label(load):
    faces = load(Voted())
    assert faces.targets.dtype == np.float32
    assert np.array_equal(faces.targets, np.tile(np.float32([0, 0.75, 0.25]), (12, 1)))
    assert faces.labels.tolist() == [1] * 12


def test_the_first_of_equal_votes_is_the_label(load):
    assert load(Voted(votes=(2, 2, 1))).labels.tolist() == [0] * 12


def test_the_cache_keeps_the_targets(load, monkeypatch):
    first = load(Voted())
    monkeypatch.setattr(cache, "_build", lambda *_: pytest.fail("the cache was not used"))
    again = load(Voted())
    assert np.array_equal(again.targets, first.targets)
    assert not again.targets.flags.writeable
    assert again.fingerprint == first.fingerprint


def test_a_damaged_file_of_targets_is_built_again(load, tmp_path):
    load(Voted())
    (file,) = tmp_path.glob("*/targets.npy")
    file.write_bytes(file.read_bytes()[:-4])
    assert load(Voted()).targets.shape == (12, 3)


def test_the_fingerprint_depends_on_targets_but_not_on_the_class_order(load):
    def without(records):
        return [record._replace(target=None, label=1) for record in records]

    fingerprint = load(Voted()).fingerprint
    assert load(Voted(CLASSES[::-1])).fingerprint == fingerprint
    assert load(Voted(votes=(0, 6, 2))).fingerprint == fingerprint
    others = {
        load(Voted(votes=(1, 3, 0))).fingerprint,
        load(Voted(change=without, votes=(9, 9, 9))).fingerprint,
    }
    assert len({fingerprint, *others}) == 3


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([1, 2], r"votes.csv:5: a target of shape \(2,\), expected \(3,\)"),
        ([[1, 2, 3]], r"votes.csv:5: a target of shape \(1, 3\), expected \(3,\)"),
        ([1, -1, 3], r"votes.csv:5: a target of \[1, -1, 3\], expected finite numbers of at least 0"),
        ([1, np.nan, 3], r"a target of \[1, nan, 3\], expected finite"),
        ([1, np.inf, 3], r"a target of \[1, inf, 3\], expected finite"),
        ([0, 0, 0], r"a target of \[0, 0, 0\], expected .* one above 0"),
    ],
)
@pytest.mark.parametrize("on_bad", ["error", "skip"])
def test_an_invalid_target_is_named(load, target, message, on_bad):
    def change(records):
        records[5] = records[5]._replace(target=np.array(target))
        return records

    with pytest.raises(FERError, match=message):
        load(Voted(change=change), on_bad=on_bad)


def test_records_with_and_without_targets_are_refused(load):
    def change(records):
        records[5] = records[5]._replace(target=None)
        return records

    with pytest.raises(
        FERError, match="11 of 12 images have a soft target and .* such as test/x/5, have none"
    ):
        load(Voted(change=change))


def test_pixels_of_another_shape_or_type_are_refused(load):
    for pixels in (np.zeros((4, 4), np.float32), np.zeros((4, 5), np.uint8), np.zeros((4, 4, 3), np.uint8)):
        change = lambda records, pixels=pixels: [records[0]._replace(pixels=lambda: pixels), *records[1:]]  # noqa: E731
        with pytest.raises(FERError, match=r"expected \(4, 4\) and uint8 in \[0, 255\]"):
            load(Voted(change=change))


def test_batches_have_the_targets_of_their_rows(tmp_path):
    def change(records):
        votes = [np.array([0, number, 12 - number], np.float32) for number in range(12)]
        return [record._replace(target=vote) for record, vote in zip(records, votes, strict=True)]

    data = FERDataModule(source=Voted(change=change), cache_dir=tmp_path, batch_size=3)
    data.setup()
    for loader in (data.train_dataloader(), data.test_dataloader()):
        for batch in loader:
            assert torch.equal(batch.targets, torch.from_numpy(data.faces.targets[batch.rows.numpy()]))
            assert torch.equal(batch.targets.argmax(1), batch.labels)
    moved = data.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert moved.targets.device.type == "meta"


def test_batches_without_targets_have_none(make_data):
    data = make_data()
    data.setup()
    assert next(iter(data.train_dataloader())).targets is None


def test_labels_can_be_replaced_by_those_of_a_network(tmp_path):
    data = FERDataModule(source=Voted(), cache_dir=tmp_path)
    data.setup()
    fingerprint = data.faces.fingerprint
    data.take_labels(np.arange(12) % 2, ("x", "y"))
    batch = next(iter(data.eval_loader("all")))
    assert batch.targets is None
    assert batch.labels.tolist() == [0, 1] * 6
    assert (data.classes, data.num_classes, data.faces.classes) == (("x", "y"), 2, ("x", "y"))
    assert data.faces.fingerprint == fingerprint
