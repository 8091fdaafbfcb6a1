"""Data sets that are decoded in parts on the disk: the same result, kills, damage, space."""

import errno
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.data import cache, cache_files, decoded_parts
from fer_lightning.data.cache import load_faces
from fer_lightning.data.faces import SPLITS, Holdout, Record

ARRAYS = ("images", "labels", "splits", "hashes", "ids")


class Killed(BaseException):
    """Ends a process."""


class Drawn:
    """A source of 23 images that notes which it decodes, and may be killed at one of them."""

    name = "tiny"
    classes = ("happy", "sad")
    image_size = 4
    parallel = False

    def __init__(self, *, killed_at=None, bad=(), channels=1, key="key", num_images=23, holdout=None):
        self.killed_at, self.bad, self.channels, self.key = killed_at, bad, channels, key
        self.decoded = []
        self.num_images = num_images
        if holdout is not None:
            self.holdout = lambda: holdout

    def cache_key(self):
        return self.key

    def draw(self, number):
        if number == self.killed_at:
            raise Killed
        self.decoded.append(number)
        if number in self.bad:
            raise FERError("truncated image")
        shape = (4, 4) if self.channels == 1 else (4, 4, 3)
        return np.random.default_rng(number // 2).integers(
            0, 256, shape, dtype=np.uint8
        )  # pairs of duplicates

    def records(self):
        for number in range(23):
            split, label = SPLITS[number % 3], number % 2
            identity = f"{split}/{self.classes[label]}/{number}"
            yield Record(identity, split, label, f"faces.csv:{number}", partial(self.draw, number))


@pytest.fixture
def load(tmp_path, log, monkeypatch):
    """Load from windows of five images, on the disk from the first one on."""
    monkeypatch.setattr(cache, "_WINDOW", 5)
    monkeypatch.setattr(cache, "_NUM_TIMED", 0)
    monkeypatch.setattr(cache, "_decode_strategy", lambda window, source: ("serial", 1))
    monkeypatch.setattr(cache, "MIN_BYTES", 0)
    return partial(load_faces, cache_dir=tmp_path / "caches", log=log)


def in_memory(source, folder, log, monkeypatch, **settings):
    with monkeypatch.context() as patch:
        patch.setattr(cache, "MIN_BYTES", 1e9)
        return load_faces(source, cache_dir=folder, log=log, **settings)


def parts_of(tmp_path):
    return sorted(tmp_path.glob("caches/.decoding-*/*"))


@pytest.mark.parametrize("settings", [{}, {"channels": 3}, {"bad": (3, 11)}, {"num_images": 0}])
def test_result_is_that_of_decoding_in_memory(load, settings, tmp_path, log, monkeypatch):
    on_bad = "skip" if settings.get("bad") else "error"
    expected = in_memory(Drawn(**settings), tmp_path / "other", log, monkeypatch, on_bad=on_bad)
    found = load(Drawn(**settings), on_bad=on_bad)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        files = [next(tmp_path.glob(f"{folder}/tiny-*/{name}.npy")) for folder in ("caches", "other")]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert (found.fingerprint, found.skipped) == (expected.fingerprint, expected.skipped)
    assert parts_of(tmp_path) == []
    again = Drawn(**settings)
    load(again, on_bad=on_bad)
    assert again.decoded == []


def test_open_splits_are_made_as_in_memory(load, tmp_path, log, monkeypatch):
    holdout = Holdout({"val": 0.2, "test": 0.2}, 0, "tiny")
    expected = in_memory(Drawn(holdout=holdout), tmp_path / "other", log, monkeypatch)
    found = load(Drawn(holdout=holdout))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_pixels_are_mapped_from_the_disk_while_others_are_decoded(load, tmp_path, monkeypatch):
    kept = []
    arrange = cache.arrange
    monkeypatch.setattr(cache, "arrange", lambda faces, *rest: kept.extend(faces) or arrange(faces, *rest))
    load(Drawn())
    assert len(kept) == 23
    for face in kept:
        owner = face.pixels
        while getattr(owner, "base", None) is not None and not isinstance(owner, np.memmap):
            owner = owner.base
        assert isinstance(owner, np.memmap) or type(owner).__name__ == "mmap"


@pytest.mark.parametrize(("killed_at", "decoded_again"), [(0, 23), (7, 18), (12, 13), (22, 3)])
def test_a_killed_build_goes_on_with_the_part_it_was_at(
    load, killed_at, decoded_again, tmp_path, log, monkeypatch
):
    expected = in_memory(Drawn(), tmp_path / "other", log, monkeypatch)
    with pytest.raises(Killed):
        load(Drawn(killed_at=killed_at))
    second = Drawn()
    found = load(second)
    assert second.decoded == list(range(23 - decoded_again, 23))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.fingerprint == expected.fingerprint
    assert parts_of(tmp_path) == []


def test_bad_images_of_a_part_are_remembered(load, tmp_path):
    with pytest.raises(Killed):
        load(Drawn(killed_at=22, bad=(3,)), on_bad="skip")
    second = Drawn(bad=(3,))
    assert load(second, on_bad="skip").skipped == ("faces.csv:3: truncated image",)
    assert second.decoded == [20, 21, 22]


def alter_pixels(folder):
    path = folder / "000001.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def swap(folder):
    for suffix in ("npy", "json"):
        shutil.copy(folder / f"000000.{suffix}", folder / f"000001.{suffix}")


@pytest.mark.parametrize(
    "damage",
    [
        alter_pixels,
        swap,
        lambda folder: (folder / "000001.npy").unlink(),
        lambda folder: (folder / "000001.npy").write_bytes(b""),
        lambda folder: (folder / "000001.json").unlink(),
        lambda folder: (folder / "000001.json").write_text("{"),
        lambda folder: (folder / "000001.json").write_text("[]"),
        lambda folder: (folder / "000001.json").write_text('{"records": 3}'),
    ],
)
def test_a_damaged_part_is_decoded_again(load, damage, tmp_path, log, monkeypatch):
    expected = in_memory(Drawn(), tmp_path / "other", log, monkeypatch)
    with pytest.raises(Killed):
        load(Drawn(killed_at=12))
    (folder,) = tmp_path.glob("caches/.decoding-*")
    damage(folder)
    second = Drawn()
    found = load(second)
    assert second.decoded == [*range(5, 10), *range(10, 23)]
    np.testing.assert_array_equal(found.images, expected.images)


def test_parts_that_others_could_have_written_are_not_read(load, tmp_path):
    with pytest.raises(Killed):
        load(Drawn(killed_at=12))
    (folder,) = tmp_path.glob("caches/.decoding-*")
    folder.chmod(0o777)
    second = Drawn()
    load(second)
    assert second.decoded == list(range(23))


def test_an_error_leaves_no_parts(load, tmp_path):
    with pytest.raises(FERError, match="1 bad image in tiny"):
        load(Drawn(bad=(12,)))
    assert parts_of(tmp_path) == []


def test_a_full_disk_is_reported_and_leaves_no_parts(load, tmp_path, monkeypatch):
    def full(*_arguments, **_settings):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(decoded_parts.np, "save", full)
    with pytest.raises(
        FERError, match=r"data.cache_dir=.*caches: cannot be written \(No space left on device\)"
    ):
        load(Drawn())
    assert parts_of(tmp_path) == []


def test_parts_of_other_caches_are_kept_for_a_day(load, tmp_path, monkeypatch):
    with pytest.raises(Killed):
        load(Drawn(killed_at=12, key="other"))
    (folder,) = tmp_path.glob("caches/.decoding-*")
    load(Drawn())
    assert folder.is_dir()
    os.utime(folder, (0, 0))
    with cache_files.lock_of(Path(str(folder).replace(cache_files.DECODING, ""))).acquire(timeout=0):
        load(Drawn(key="third"))
    assert folder.is_dir()  # another process decodes it
    load(Drawn(key="fourth"))
    assert not folder.is_dir()
