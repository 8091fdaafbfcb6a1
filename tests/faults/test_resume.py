"""What a resumed run trusts: the data, the checkpoints and the record that it finds in its folder."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tests.commands import run, succeed

SMALL = (
    *("model=mlp", "model.hidden=[8]", "data.image_size=16", "data.batch_size=16", "logger=none"),
    *("num_threads=1", "data.augment.sides=[]"),
)
CLASSES = ("angry", "happy", "sad")


@pytest.fixture
def images(tmp_path):
    """Class folders of train, val and test with a few random images."""
    random = np.random.default_rng(0)
    for split, num in (("train", 12), ("val", 4), ("test", 4)):
        for name in CLASSES:
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(num):
                Image.fromarray(random.integers(0, 256, (16, 16), np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "images"


def stopped(folder, cwd, cache, *more, epochs=2):
    """Train, and leave the folder as a kill at the end of the last epoch does."""
    arguments = ("data=image_folder", "data.root=images", f"data.classes=[{','.join(CLASSES)}]")
    arguments += ("data.num_classes=3", *SMALL, *more, f"hydra.run.dir={folder}")
    succeed("train.py", *arguments, f"trainer.max_epochs={epochs}", cwd=cwd, cache=cache)
    path = cwd / folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "running"}))
    return ("train.py", *arguments, "trainer.max_epochs=4", "resume=auto")


def test_run_does_not_continue_on_other_data(images, fault_row, cache, tmp_path):
    again = stopped("run", tmp_path, cache)
    before = (tmp_path / "run/last.ckpt").read_bytes()
    for name in CLASSES:
        for number in range(5):
            (images / f"train/{name}/{number}.png").rename(images / f"test/{name}/moved{number}.png")
    fault_row.check(run(*again, cwd=tmp_path, cache=cache))
    assert (tmp_path / "run/last.ckpt").read_bytes() == before


@pytest.mark.parametrize("place", ["resume=auto", pytest.param("resume=run", marks=pytest.mark.slow)])
def test_run_does_not_continue_with_other_soft_targets(place, images, fault_row, cache, tmp_path):
    stopped("teacher", tmp_path, cache, epochs=1)
    words = ("eval.py", "checkpoint=teacher", "split=train")
    succeed(*words, "hydra.run.dir=first", cwd=tmp_path, cache=cache)
    file = tmp_path / "first/predictions_train.npz"
    again = stopped("run", tmp_path, cache, f"data.soft_targets={file}")
    before, content = (tmp_path / "run/last.ckpt").read_bytes(), file.read_bytes()
    with np.load(file) as archive:
        arrays = dict(archive)
    np.savez(tmp_path / "other.npz", **arrays | {"probs": arrays["probs"][:, ::-1]})
    if place == "resume=auto":
        file.write_bytes((tmp_path / "other.npz").read_bytes())
    else:
        again = ("train.py", place, "data.soft_targets=other.npz", "trainer.max_epochs=4")
    fault_row.check(run(*again, cwd=tmp_path, cache=cache))
    assert (tmp_path / "run/last.ckpt").read_bytes() == before
    (tmp_path / "moved.npz").write_bytes(content)
    words = ("resume=run", "data.soft_targets=moved.npz", "trainer.max_epochs=3")
    succeed("train.py", *words, cwd=tmp_path, cache=cache)
    assert json.loads((tmp_path / "run/run.json").read_text())["state"] == "finished"


@pytest.mark.slow
def test_run_whose_data_set_was_moved_continues_with_one_setting(images, fault_row, cache, tmp_path):
    stopped("run", tmp_path, cache)
    images.rename(tmp_path / "moved")
    fault_row.check(run("train.py", "resume=run", cwd=tmp_path, cache=cache))
    words = ("resume=run", "data.root=moved", "trainer.max_epochs=4")
    succeed("train.py", *words, cwd=tmp_path, cache=cache)
    assert json.loads((tmp_path / "run/run.json").read_text())["state"] == "finished"
    assert f"root: {tmp_path}/moved" in (tmp_path / "run/config.yaml").read_text()
    succeed("eval.py", "checkpoint=run", "data.root=moved", cwd=tmp_path, cache=cache)


@pytest.mark.slow
def test_run_does_not_continue_on_other_training_images(images, fault_row, cache, tmp_path):
    again = stopped("run", tmp_path, cache)
    path = tmp_path / "run/last.ckpt"
    content = torch.load(path, weights_only=True)
    content["fer_lightning"]["trained_on"] = content["fer_lightning"]["trained_on"][1:]
    torch.save(content, path)
    fault_row.check(run(*again, cwd=tmp_path, cache=cache))


@pytest.mark.slow
def test_groups_of_a_csv_are_found_from_anywhere(images, cache, tmp_path):
    for split in ("val", "test"):
        shutil.rmtree(images / split)
    rows = [f"{file},{file.stem}" for file in sorted(images.glob("train/*/*.png"))]
    (tmp_path / "people.csv").write_text("\n".join(["", "file,person", *rows]))
    group = "data.source.group={csv: people.csv, column: person}"
    stopped("run", tmp_path, cache, group, "data.val_fraction=0")
    (tmp_path / "other").mkdir()
    words = ("train.py", "resume=../run", "trainer.max_epochs=3")
    succeed(*words, cwd=tmp_path / "other", cache=cache)
    succeed("eval.py", "checkpoint=../run", cwd=tmp_path / "other", cache=cache)
    path = tmp_path / "run/run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "interrupted"}))
    (tmp_path / "people.csv").rename(tmp_path / "who.csv")
    moved = "data.source.group.csv=who.csv"
    refused = run("train.py", "resume=run", moved, cwd=tmp_path, cache=cache)
    assert f"that of the run to continue is given with a +: +{moved}" in refused.stderr
    succeed("train.py", "resume=run", f"+{moved}", cwd=tmp_path, cache=cache)


@pytest.mark.slow
def test_best_checkpoint_of_another_run_is_not_reported(images, fault_row, cache, tmp_path):
    stopped("other", tmp_path, cache, "seed=5")
    again = stopped("run", tmp_path, cache, epochs=4)
    shutil.copy(tmp_path / "other/best.ckpt", tmp_path / "run/best.ckpt")
    fault_row.check(run(*again, cwd=tmp_path, cache=cache))


@pytest.mark.slow
def test_each_segment_keeps_its_commit_versions_and_machine(images, fault_row, cache, tmp_path):
    again = stopped("run", tmp_path, cache)
    path = tmp_path / "run/run.json"
    record = json.loads(path.read_text())
    record["segments"][0]["git"] = record["git"] = {"commit": "0123456789", "dirty": False}
    path.write_text(json.dumps(record))
    fault_row.check(run(*again, cwd=tmp_path, cache=cache))
    record = json.loads(path.read_text())
    first, second = record["segments"]
    assert record["git"]["commit"] == first["git"]["commit"] == "0123456789"
    assert second["git"]["commit"] != "0123456789"
    assert first["versions"] == second["versions"]
    assert {"started", "git", "versions", "machine"} <= second.keys()


@pytest.mark.slow
def test_lost_rows_of_earlier_epochs_are_said(images, fault_row, cache, tmp_path):
    again = stopped("run", tmp_path, cache)
    (tmp_path / "run/metrics.csv").unlink()
    fault_row.check(run(*again, cwd=tmp_path, cache=cache))
    assert len((tmp_path / "run/metrics.csv").read_text().splitlines()) == 1 + 2
