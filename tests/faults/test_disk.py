"""Disks that are full and folders that are not what they were; the disks are small real ones."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from fer_lightning.training.checkpoint import read_checkpoint
from tests import videos
from tests.commands import ROOT, TINY, environment, run, succeed
from tests.forked import Forked

SMALL = ("model=mlp", "model.hidden=[16]", *TINY, "data.image_size=16", "logger=none")


def mount(folder, size):
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path):
    """A disk of 200 kB, empty, and a function that makes it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(folder, "200k")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def enlarge(folder):
    subprocess.run(["mount", "-o", "remount,size=20m", folder], check=True)


def fill(folder, *, leave):
    """Leave so many bytes of a disk free."""
    size = shutil.disk_usage(folder).free - leave
    (folder / "ballast").write_bytes(bytes(size))


@pytest.mark.slow
def test_full_disk_during_a_save_keeps_the_previous_checkpoint(disk, fault_row, cache, tmp_path):
    command = ("train.py", *SMALL, "trainer.max_epochs=3", "trainer.deterministic=true")
    succeed(*command, "hydra.run.dir=whole", cwd=tmp_path, cache=cache)
    size = (tmp_path / "whole/last.ckpt").stat().st_size
    fill(disk, leave=int(2.6 * size))  # for best and last, but not for a second last
    done = run(*command, "hydra.run.dir=disk/run", cwd=tmp_path, cache=cache)
    fault_row.check(done)
    kept, origin = read_checkpoint(disk / "run/last.ckpt")
    assert origin.epoch == 0
    assert all(value.isfinite().all() for value in kept["state_dict"].values())
    assert not list(disk.rglob(".last.ckpt.*"))

    enlarge(disk)
    succeed("train.py", "resume=disk/run", cwd=tmp_path, cache=cache)
    whole, continued = (
        torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "disk/run")
    )
    assert all(torch.equal(whole[key], continued[key]) for key in whole)
    for name in ("metrics.csv", "metrics.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (disk / "run" / name).read_bytes()


@pytest.mark.slow
def test_full_disk_while_metrics_are_written_is_reported(disk, fault_row, cache, tmp_path):
    command = ("train.py", *SMALL, "trainer.max_epochs=2", "trainer.deterministic=true")
    succeed(*command, "hydra.run.dir=whole", cwd=tmp_path, cache=cache)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text('{"schema": 1, "state": "running"}')  # of a start that was killed
    for file in (disk / "metrics.csv", folder / "metrics.csv"):
        file.touch()
    fill(disk, leave=0)
    subprocess.run(["mount", "--bind", disk / "metrics.csv", folder / "metrics.csv"], check=True)
    try:
        fault_row.check(run(*command, "hydra.run.dir=run", "resume=auto", cwd=tmp_path, cache=cache))
    finally:
        subprocess.run(["umount", folder / "metrics.csv"], check=True)
    record = json.loads((folder / "run.json").read_text())
    assert (record["state"], "metrics.csv" in record["reason"]) == ("failed", True)

    succeed("train.py", "resume=run", cwd=tmp_path, cache=cache)
    for name in ("metrics.csv", "metrics.json"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_full_disk_while_results_are_written_keeps_the_training(disk, fault_row, cache, tmp_path):
    command = ("train.py", *SMALL, "trainer.max_epochs=1", "data.source.num_test=700")
    succeed(*command, "hydra.run.dir=whole", cwd=tmp_path, cache=cache)
    checkpoints = sum((tmp_path / "whole" / name).stat().st_size for name in ("best.ckpt", "last.ckpt"))
    fill(disk, leave=checkpoints + 60_000)  # and the predictions take 90 kB
    done = run(*command, "hydra.run.dir=disk/run", cwd=tmp_path, cache=cache)
    fault_row.check(done)
    assert read_checkpoint(disk / "run/best.ckpt")[1].epoch == 0
    assert not (disk / "run/predictions_test.npz").exists()
    enlarge(disk)
    succeed("train.py", "resume=disk/run", cwd=tmp_path, cache=cache)
    assert (tmp_path / "whole/metrics.json").read_bytes() == (disk / "run/metrics.json").read_bytes()


def test_uncreatable_run_folder_is_reported_before_any_work(fault_row, cache, tmp_path):
    (tmp_path / "file").write_text("")
    fault_row.check(run("train.py", *SMALL, "hydra.run.dir=file/run", cwd=tmp_path, cache=cache))


def test_read_only_disk_is_reported_before_any_work(disk, fault_row, cache, tmp_path):
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    fault_row.check(run("train.py", *SMALL, "hydra.run.dir=disk/run", cwd=tmp_path, cache=cache))


@pytest.mark.slow
def test_disk_that_became_read_only_is_reported_on_resume(disk, fault_row, cache, tmp_path):
    enlarge(disk)
    succeed("train.py", *SMALL, "trainer.max_epochs=1", "hydra.run.dir=disk/run", cwd=tmp_path, cache=cache)
    record = json.loads((disk / "run/run.json").read_text()) | {"state": "running"}
    (disk / "run/run.json").write_text(json.dumps(record))
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    fault_row.check(run("train.py", "resume=disk/run", cwd=tmp_path, cache=cache))


def test_uncreatable_sweep_folder_is_reported(fault_row, cache, tmp_path):
    (tmp_path / "file").write_text("")
    command = ("train.py", "-m", *SMALL, "seed=0,1", "hydra.sweep.dir=file/sweep")
    fault_row.check(run(*command, cwd=tmp_path, cache=cache))


def test_two_jobs_are_never_in_one_folder(fault_row, cache, tmp_path):
    command = (*SMALL, "trainer.max_epochs=2000", "hydra.run.dir=run")
    first = Forked([str(ROOT / "train.py"), *command], cwd=tmp_path, env=environment(cache))
    while not (tmp_path / "run/last.ckpt").exists():
        assert first.poll() is None, first.output()
    before = json.loads((tmp_path / "run/run.json").read_text())
    for resume in ("null", "auto", "run"):
        fault_row.check(run("train.py", *command, f"resume={resume}", cwd=tmp_path, cache=cache))
    assert json.loads((tmp_path / "run/run.json").read_text()) == before
    assert first.poll() is None
    first.send_signal(9)
    first.wait()


@pytest.fixture(scope="module")
def unfinished(cache, tmp_path_factory):
    """A run that failed after its first epoch: its second one's checkpoint had no room."""
    cwd = tmp_path_factory.mktemp("cwd")
    command = (*SMALL, "trainer.max_epochs=300", "hydra.run.dir=run")
    first = Forked([str(ROOT / "train.py"), *command], cwd=cwd, env=environment(cache))
    while not (cwd / "run/last.ckpt").exists():
        assert first.poll() is None, first.output()
    first.send_signal(9)
    first.wait()
    return cwd / "run"


@pytest.mark.slow
def test_a_run_folder_that_was_moved_goes_on_and_is_evaluated_where_it_is(
    unfinished, fault_row, cache, tmp_path
):
    moved = tmp_path / "élan vital (1)"
    shutil.copytree(unfinished, moved)
    config = yaml.safe_load((moved / "config.yaml").read_text())
    config["trainer"]["max_epochs"] = 2
    (moved / "config.yaml").write_text(yaml.safe_dump(config))
    fault_row.check(run("train.py", f'resume="{moved}"', cwd=tmp_path, cache=cache))
    assert json.loads((moved / "run.json").read_text())["state"] == "finished"
    succeed("eval.py", f'checkpoint="{moved}"', "hydra.run.dir=eval", cwd=tmp_path, cache=cache)
    metrics = (json.loads((folder / "metrics.json").read_text()) for folder in (moved, tmp_path / "eval"))
    assert next(metrics)["test"] == next(metrics)["test"]


def test_a_run_of_another_version_says_what_its_config_lacks(unfinished, fault_row, cache, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(unfinished, old)
    config = yaml.safe_load((old / "config.yaml").read_text())
    del config["keep_epochs"], config["trainer"]["limit_val_batches"]
    (old / "config.yaml").write_text(yaml.safe_dump(config))
    fault_row.check(run("train.py", f"resume={old}", cwd=tmp_path, cache=cache))
    assert (old / "last.ckpt").read_bytes() == (Path(unfinished) / "last.ckpt").read_bytes()


def photographs(folder, num_images):
    """Write images of noise; return what predicts each as a face."""
    rng = np.random.default_rng(0)
    for number in range(num_images):
        pixels = rng.integers(0, 256, (48, 48), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    names = [f"{number:02d}.png" for number in range(num_images)]
    return ("-m", "fer_lightning.predict", *names, "--detector", "none")


def test_full_disk_while_rows_of_faces_are_written(disk, fault_row, cache, tmp_path):
    command = photographs(tmp_path, 60)
    fill(disk, leave=8192)  # two pages; a row has about 150 bytes
    done = run(*command, "--csv", "disk/faces.csv", cwd=tmp_path, cache=cache)
    fault_row.check(done)
    assert 20 < (disk / "faces.csv").read_text().count("\n") < 60


def test_full_disk_while_annotated_images_are_written(disk, fault_row, cache, tmp_path):
    command = photographs(tmp_path, 12)
    fill(disk, leave=120_000)
    fault_row.check(run(*command, "--save", "disk/drawn", cwd=tmp_path, cache=cache))
    saved = sorted((disk / "drawn").iterdir())
    assert saved
    for path in saved:
        with Image.open(path) as image:
            image.load()


@pytest.mark.slow
def test_full_disk_while_an_annotated_video_is_written(disk, fault_row, cache, tmp_path):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (240, 320, 3), dtype=np.uint8) for _ in range(20)]
    videos.write(tmp_path / "clip.avi", frames)
    command = ("-m", "fer_lightning.predict", "clip.avi", "--detector", "none", "--csv", "faces.csv")
    fault_row.check(run(*command, "--save", "disk/drawn", cwd=tmp_path, cache=cache))
    assert list((disk / "drawn").iterdir()) == []
    assert len((tmp_path / "faces.csv").read_text().splitlines()) == 1 + 11
