"""Faults of the data and of their cache."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.commands import ROOT, TINY, environment, run, succeed
from tests.faults.test_disk import disk, enlarge, fill  # noqa: F401 - disk is a fixture
from tests.forked import Forked

SMALL = ("model=mlp", "model.hidden=[16]", *TINY, "data.image_size=16", "logger=none", "trainer=smoke")


@pytest.fixture
def home(tmp_path):
    """A home folder of the test's own, in which nothing is cached."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def cached(home, tmp_path):
    """A finished run, and the folder in which its faces are cached."""
    succeed("train.py", *SMALL, "hydra.run.dir=first", cwd=tmp_path, cache=home)
    (folder,) = home.glob(".cache/fer_lightning/synthetic-*")
    return folder


def same_as_first(folder):
    return (folder / "metrics.json").read_bytes() == (folder.parent / "first/metrics.json").read_bytes()


def test_a_disk_that_is_full_while_faces_are_cached_only_costs_time(
    disk,  # noqa: F811
    promise,
    home,
    tmp_path,
):
    fill(disk, leave=20_000)
    done = run("train.py", *SMALL, "data.cache_dir=disk/cache", cwd=tmp_path, cache=home)
    promise.hold(done)
    assert not [path for path in disk.glob("cache/*") if path.is_dir()], "half a cache"


def test_a_cache_folder_that_is_a_file_only_costs_time(promise, home, tmp_path):
    (tmp_path / "file").write_text("")
    promise.hold(run("train.py", *SMALL, "data.cache_dir=file", cwd=tmp_path, cache=home))


def test_a_flipped_bit_in_the_cache_is_noticed(cached, promise, home, tmp_path):
    images = bytearray((cached / "images.npy").read_bytes())
    images[-1000] ^= 4
    (cached / "images.npy").write_bytes(images)
    promise.hold(run("train.py", *SMALL, "hydra.run.dir=again", cwd=tmp_path, cache=home))
    assert same_as_first(tmp_path / "again")


def test_a_cache_of_another_version_is_made_anew(cached, promise, home, tmp_path):
    meta = json.loads((cached / "meta.json").read_text())
    (cached / "meta.json").write_text(json.dumps(meta | {"schema": 99}))
    promise.hold(run("train.py", *SMALL, "hydra.run.dir=again", cwd=tmp_path, cache=home))
    assert same_as_first(tmp_path / "again")


def test_a_cache_that_vanishes_under_a_run_changes_nothing(cached, promise, home, tmp_path):
    command = (*SMALL, "trainer.max_epochs=60")
    succeed("train.py", *command, "hydra.run.dir=whole", cwd=tmp_path, cache=home)
    process = Forked(
        [str(ROOT / "train.py"), *command, "hydra.run.dir=run"], cwd=tmp_path, env=environment(home)
    )
    while not (tmp_path / "run/last.ckpt").exists():
        assert process.poll() is None, process.output()
    (cached / "images.npy").write_bytes(b"")
    shutil.rmtree(cached.parent)
    promise.hold(process.completed())
    for name in ("metrics.csv", "metrics.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_data_set_that_is_gone_when_a_run_goes_on_is_named(promise, home, tmp_path):
    for number, name in enumerate(("happy", "sad")):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for copy in range(12):
            pixels = np.full((16, 16), 10 + 30 * number + copy, np.uint8)
            pixels[0, 0] = 255
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            (tmp_path / "faces" / name / f"{copy}.png").write_bytes(buffer.getvalue())
    command = (
        *("train.py", "model=mlp", "model.hidden=[16]", "data=image_folder", "data.root=faces"),
        *("data.classes=[happy,sad]", "data.num_classes=2", "data.image_size=16", "trainer=smoke"),
        *("logger=none", "num_threads=1", "hydra.run.dir=run"),
    )
    succeed(*command, cwd=tmp_path, cache=home)
    record = json.loads((tmp_path / "run/run.json").read_text())
    (tmp_path / "run/run.json").write_text(json.dumps(record | {"state": "interrupted"}))
    (tmp_path / "faces").rename(tmp_path / "elsewhere")
    checkpoint = (tmp_path / "run/last.ckpt").read_bytes()
    promise.hold(run("train.py", "resume=run", cwd=tmp_path, cache=home))
    assert (tmp_path / "run/last.ckpt").read_bytes() == checkpoint


def test_a_monitor_without_a_validation_split_selects_nothing_and_says_so(promise, home, tmp_path):
    setting = ("data.protocol=paper", "monitor=val/f1_macro", "hydra.run.dir=run")
    promise.hold(run("train.py", *SMALL, *setting, cwd=tmp_path, cache=home))
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["selected_by"] == "last"
    assert "val" not in metrics
