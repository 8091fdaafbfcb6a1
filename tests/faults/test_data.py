"""Faults of data sets and of the data cache."""

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_lightning.core.parallel import available_cores
from tests.commands import ROOT, TINY, environment, run, succeed
from tests.faults.test_disk import disk, fill  # noqa: F401 - disk is a fixture
from tests.forked import Forked

SMALL = ("model=mlp", "model.hidden=[16]", *TINY, "data.image_size=16", "logger=none", "trainer=smoke")


@pytest.fixture
def home(tmp_path):
    """Make an empty home folder for one test."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Finish one run; return its folder, which holds a home folder with the data cache."""
    place = tmp_path_factory.mktemp("finished")
    (place / "home").mkdir()
    succeed("train.py", *SMALL, "hydra.run.dir=first", cwd=place, cache=place / "home")
    return place


@pytest.fixture
def cached(finished, home, tmp_path):
    """Copy the finished run and its data cache for one test; return the folder of the cache."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (folder,) = home.glob(".cache/fer_lightning/synthetic-*")
    return folder


def same_as_first(folder):
    return (folder / "metrics.json").read_bytes() == (folder.parent / "first/metrics.json").read_bytes()


@pytest.mark.slow
def test_full_disk_while_caching_only_costs_time(
    disk,  # noqa: F811
    fault_row,
    home,
    tmp_path,
):
    fill(disk, leave=20_000)
    done = run("train.py", *SMALL, "data.cache_dir=disk/cache", cwd=tmp_path, cache=home)
    fault_row.check(done)
    assert not [path for path in disk.glob("cache/*") if path.is_dir()], "half a cache"


@pytest.mark.slow
def test_file_size_limit_while_caching_only_costs_time(fault_row, home, tmp_path):
    faces = ("data.image_size=48", "data.source.num_train=420", "trainer.max_epochs=1")
    process = Forked([str(ROOT / "train.py"), *SMALL, *faces], cwd=tmp_path, env=environment(home))
    # The effect of `ulimit -f` and of some quotas; images.npy would have 1.1 MB.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    fault_row.check(process.completed())
    assert not [path for path in home.glob(".cache/fer_lightning/*") if path.is_dir()], "half a cache"


@pytest.mark.slow
def test_read_only_cache_is_read_and_not_written(
    disk,  # noqa: F811
    fault_row,
    home,
    tmp_path,
):
    command = ("train.py", *SMALL, "data.cache_dir=disk/made/where/needed", "trainer.max_epochs=1")
    succeed(*command, cwd=tmp_path, cache=home)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    again = succeed(*command, cwd=tmp_path, cache=home)
    assert "decod" not in again.stdout + again.stderr
    fault_row.check(run(*command, "data.source.num_test=49", cwd=tmp_path, cache=home))


@pytest.mark.slow
def test_cache_folder_that_is_a_file_only_costs_time(fault_row, home, tmp_path):
    (tmp_path / "file").write_text("")
    fault_row.check(run("train.py", *SMALL, "data.cache_dir=file", cwd=tmp_path, cache=home))


def test_flipped_bit_in_the_cache_is_detected(cached, fault_row, home, tmp_path):
    images = bytearray((cached / "images.npy").read_bytes())
    images[-1000] ^= 4
    (cached / "images.npy").write_bytes(images)
    fault_row.check(run("train.py", *SMALL, "hydra.run.dir=again", cwd=tmp_path, cache=home))
    assert same_as_first(tmp_path / "again")


@pytest.mark.slow
def test_cache_of_another_version_is_rebuilt(cached, fault_row, home, tmp_path):
    meta = json.loads((cached / "meta.json").read_text())
    (cached / "meta.json").write_text(json.dumps(meta | {"schema": 99}))
    fault_row.check(run("train.py", *SMALL, "hydra.run.dir=again", cwd=tmp_path, cache=home))
    assert same_as_first(tmp_path / "again")


@pytest.mark.slow
def test_cache_deleted_under_a_run_changes_nothing(cached, fault_row, home, tmp_path):
    command = (*SMALL, "trainer.max_epochs=12")
    succeed("train.py", *command, "hydra.run.dir=whole", cwd=tmp_path, cache=home)
    process = Forked(
        [str(ROOT / "train.py"), *command, "hydra.run.dir=run"], cwd=tmp_path, env=environment(home)
    )
    while not (tmp_path / "run/last.ckpt").exists():
        assert process.poll() is None, process.output()
    (cached / "images.npy").write_bytes(b"")
    shutil.rmtree(cached.parent)
    fault_row.check(process.completed())
    for name in ("metrics.csv", "metrics.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_truncated_cache_of_mapped_images_ends_the_run(cached, fault_row, home, tmp_path):
    command = (*SMALL, "trainer.max_epochs=12", "trainer.deterministic=true", "save_every_steps=1")
    succeed("train.py", *command, "hydra.run.dir=whole", cwd=tmp_path, cache=home)
    process = Forked(
        [str(ROOT / "train.py"), *command, "data.in_memory_gb=0", "hydra.run.dir=run"],
        cwd=tmp_path,
        env=environment(home),
    )
    while not (tmp_path / "run/last.ckpt").exists():
        assert process.poll() is None, process.output()
    os.truncate(cached / "images.npy", 0)
    fault_row.check(process.completed())
    goes_on = succeed("train.py", "resume=run", cwd=tmp_path, cache=home)
    assert "damaged cache (images.npy has 0 bytes" in goes_on.stdout + goes_on.stderr
    for name in ("metrics.csv", "metrics.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


MANY = (*SMALL, "data.image_size=48", "data.source.num_train=700", "trainer.max_epochs=1")


def start_building(folder, *, cwd, home):
    """Start a run and return it while it builds its cache, which takes a second or more."""
    process = Forked(
        [str(ROOT / "train.py"), *MANY, f"hydra.run.dir={folder}"], cwd=cwd, env=environment(home)
    )
    while "decoding the images" not in "".join(process.output()):
        assert process.poll() is None, process.output()
        time.sleep(0.01)
    return process


@pytest.mark.slow
def test_two_simultaneous_runs_decode_once(fault_row, home, tmp_path):
    first = start_building("first", cwd=tmp_path, home=home)
    first.send_signal(signal.SIGSTOP)
    try:
        second = Forked(
            [str(ROOT / "train.py"), *MANY, "hydra.run.dir=second"], cwd=tmp_path, env=environment(home)
        )
        while "Waiting for another process" not in "".join(second.output()):
            assert second.poll() is None, second.output()
            time.sleep(0.01)
    finally:
        first.send_signal(signal.SIGCONT)
    assert first.wait() == 0, first.output()
    done = second.completed()
    fault_row.check(done)
    assert "decod" not in done.stdout + done.stderr
    assert same_as_first(tmp_path / "second")


@pytest.mark.slow
def test_run_killed_while_caching_leaves_no_cache(fault_row, home, tmp_path):
    process = start_building("first", cwd=tmp_path, home=home)
    process.send_signal(signal.SIGKILL)
    fault_row.check(process.completed())
    caches = home / ".cache/fer_lightning"
    assert not list(caches.glob("synthetic-*"))
    (caches / ".building-synthetic-0").mkdir(
        exist_ok=True
    )  # what a run leaves that is killed while it writes
    succeed("train.py", *MANY, "hydra.run.dir=first", "resume=auto", cwd=tmp_path, cache=home)
    assert not list(caches.glob(".building-*"))
    assert len(list(caches.glob("synthetic-*"))) == 1


@pytest.mark.slow
def test_killed_decoding_processes_only_cost_time(fault_row, home, tmp_path):
    process = start_building("first", cwd=tmp_path, home=home)
    killed = 0
    while "decoded" not in "".join(process.output()):
        assert process.poll() is None, process.output()
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
                killed += 1
    fault_row.check(process.completed())
    assert killed or available_cores() == 1  # there are no forks on one core
    succeed("train.py", *MANY, "data.cache_dir=other", "hydra.run.dir=again", cwd=tmp_path, cache=home)
    assert same_as_first(tmp_path / "again")


@pytest.mark.slow
def test_resume_names_a_missing_data_set(fault_row, home, tmp_path):
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
    fault_row.check(run("train.py", "resume=run", cwd=tmp_path, cache=home))
    assert (tmp_path / "run/last.ckpt").read_bytes() == checkpoint


@pytest.mark.slow
def test_monitor_without_val_split_selects_the_last_epoch(fault_row, home, tmp_path):
    setting = ("data.protocol=paper", "monitor=val/f1_macro", "hydra.run.dir=run")
    fault_row.check(run("train.py", *SMALL, *setting, cwd=tmp_path, cache=home))
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["selected_by"] == "last"
    assert "val" not in metrics


VIDEOS = (
    *("train.py", "model=mlp", "model.hidden=[16]", "data=image_folder", "data.root=videos"),
    *("data.classes=[happy,sad]", "data.num_classes=2", "data.image_size=24", "logger=none", "trainer=smoke"),
    *("hydra.run.dir=run", "num_threads=1"),
)


@pytest.fixture
def videos(tmp_path):
    """Write the frames of four videos of each class: slightly changed images."""
    random = np.random.default_rng(0)
    for label, name in enumerate(("happy", "sad")):
        (tmp_path / "videos" / name).mkdir(parents=True)
        for video in range(4):
            coarse = Image.fromarray(random.integers(0, 256, (6, 6), np.uint8)).resize((24, 24))
            for frame in range(8):
                changed = np.asarray(coarse, float) * (1 - 0.02 * frame) + random.normal(0, 3, (24, 24))
                image = Image.fromarray(changed.clip(0, 255).astype(np.uint8))
                image.save(tmp_path / "videos" / name / f"v{video}{label}_{frame}.png")
    return tmp_path / "videos"


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param("data.source.group='x([0-9])'", id="no match"),
        pytest.param("data.source.group='v('", id="not a pattern", marks=pytest.mark.slow),
        pytest.param("data.source.group='(v)'", id="one group", marks=pytest.mark.slow),
        pytest.param("data.source.group='(happy|sad)'", id="few groups"),
        pytest.param("data.source.group={csv: people.csv, column: person}", id="no row"),
        pytest.param(
            "data.source.group={csv: people.csv, column: subject}", id="no column", marks=pytest.mark.slow
        ),
        pytest.param("data.near_duplicates=apart", id="no such setting", marks=pytest.mark.slow),
    ],
)
def test_groups_that_cannot_be_used_are_named(videos, fault_row, home, tmp_path, setting):
    (tmp_path / "people.csv").write_text("file,person\nv00_0.png,anna\n")
    fault_row.check(run(*VIDEOS, setting, cwd=tmp_path, cache=home))


@pytest.mark.slow
def test_frames_of_videos_across_splits_are_a_warning(videos, fault_row, home, tmp_path):
    fault_row.check(run(*VIDEOS, "data.near_duplicates=ignore", cwd=tmp_path, cache=home))
    test = json.loads((tmp_path / "run/metrics.json").read_text())["test"]
    assert test["leak_free"]["n"] == test["n"] > test["leak_free_near"]["n"]
    together = succeed(*VIDEOS, "hydra.run.dir=together", cwd=tmp_path, cache=home)
    warnings = [line for line in together.stdout.splitlines() if line.startswith("WARNING")]
    assert {line.partition(" (")[0] for line in warnings} == {"WARNING: limited run"}
    test = json.loads((tmp_path / "together/metrics.json").read_text())["test"]
    assert test["leak_free_near"]["n"] == test["n"] == 16


def test_images_that_are_all_alike_are_split_with_a_note(videos, fault_row, home, tmp_path):
    for path in videos.glob("*/v[1-3]*"):  # one video of each class is left
        path.unlink()
    fault_row.check(run(*VIDEOS, cwd=tmp_path, cache=home))
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert "near-duplicates could not all be kept together" in record["data"]["notes"][0]
    assert record["data"]["notes"][0] in (tmp_path / "run/report.html").read_text()
