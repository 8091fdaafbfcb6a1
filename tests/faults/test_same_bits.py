"""Same in, same out: what a result may depend on, and what not."""

import csv
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.commands import ROOT, run_in_terminal, succeed
from tests.faults.test_kills import RECIPE, check_the_same

WORK = (*RECIPE, "trainer.max_epochs=2", "save_every_steps=null")
SMALL = ("experiment=improved_mlp", *WORK)
MODELS = ("mlp", "cnn", "rnn", "resnet")


@pytest.fixture(scope="module")
def reference(cache, tmp_path_factory):
    """A run with everything random in it: augmentation, dropout, averaged weights, a schedule."""
    cwd = tmp_path_factory.mktemp("cwd")
    succeed("train.py", *SMALL, "hydra.run.dir=run", cwd=cwd, cache=cache)
    return cwd / "run"


@pytest.mark.slow
def test_neither_terminal_nor_folder_nor_hash_seed_matters(reference, cache, tmp_path):
    other = {"PYTHONHASHSEED": "4711", "TERM": "xterm-256color", "COLUMNS": "80"}
    done = run_in_terminal(
        "train.py", *SMALL, "hydra.run.dir=run", cwd=tmp_path, cache=cache, fresh=True, **other
    )
    assert done.returncode == 0, done.stdout
    assert "\x1b[" in done.stdout, "it was no terminal"
    check_the_same(reference, tmp_path / "run")


@pytest.mark.slow
def test_another_seed_gives_other_weights(reference, cache, tmp_path):
    succeed("train.py", *SMALL, "seed=12", "hydra.run.dir=run", cwd=tmp_path, cache=cache)
    with pytest.raises(AssertionError):
        check_the_same(reference, tmp_path / "run")


@pytest.mark.slow
def test_the_number_of_threads_matters_to_the_last_digits_alone(cache, tmp_path):
    """In float32: with bf16's 8 bits the last digits are the second and third."""
    for threads in (1, 2):
        settings = ("trainer.precision=32-true", f"num_threads={threads}", f"hydra.run.dir=run_{threads}")
        succeed("train.py", *SMALL, "trainer.max_epochs=1", *settings, cwd=tmp_path, cache=cache)
    with (
        np.load(tmp_path / "run_1/predictions_test.npz") as one,
        np.load(tmp_path / "run_2/predictions_test.npz") as two,
    ):
        np.testing.assert_allclose(one["probs"], two["probs"], rtol=1e-4, atol=1e-6)
        assert one["ids"].tolist() == two["ids"].tolist()


@pytest.mark.slow
def test_parallel_jobs_equal_sequential_jobs_for_every_model(reference, cache, tmp_path):
    sweep = ("-m", f"experiment={','.join(f'improved_{model}' for model in MODELS)}", *WORK)
    succeed("train.py", *sweep, "hydra.sweep.dir=after", cwd=tmp_path, cache=cache)
    parallel = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=parallel")
    succeed("train.py", *sweep, *parallel, cwd=tmp_path, cache=cache)
    for number, model in enumerate(MODELS):
        check_the_same(tmp_path / f"after/{number}_{model}", tmp_path / f"parallel/{number}_{model}")
    check_the_same(reference, tmp_path / f"after/{MODELS.index('mlp')}_mlp")  # nor is a lone run another


CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
CODES = {"angry": 0, "disgust": 1, "fear": 2, "happy": 3, "sad": 4, "surprise": 5, "neutral": 6}
PARTS = (("train", "Training"), ("test", "PublicTest"), ("test", "PrivateTest"))


# Put on an interpreter's path, this lists folders from the end, as another disk may.
BACKWARDS = """
import os

scandir, listdir = os.scandir, os.listdir


class Backwards:
    def __init__(self, path="."):
        with scandir(path) as entries:
            self.entries = iter(sorted(entries, key=lambda entry: entry.name, reverse=True))

    def __iter__(self):
        return self.entries

    def __next__(self):
        return next(self.entries)

    def __enter__(self):
        return self

    def __exit__(self, *why):
        pass

    def close(self):
        pass


os.scandir = Backwards
os.listdir = lambda path=".": sorted(listdir(path), reverse=True)
"""


def write_forms(place):
    """The same 63 faces as a folder, a folder whose files were made in another order, a zip and a CSV."""
    rng = np.random.default_rng(0)
    faces = [
        (split, usage, name, number, rng.integers(0, 256, (48, 48), np.uint8))
        for split, usage in PARTS
        for name in CLASSES
        for number in range(3)
    ]
    for form, order in (("folder", faces), ("backwards", faces[::-1])):
        for split, usage, name, number, pixels in order:
            folder = place / form / split / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{usage}_{number}{CODES[name]}.png")
    with zipfile.ZipFile(place / "archive.zip", "w") as archive:
        for path in sorted((place / "folder").rglob("*.png")):
            archive.write(path, path.relative_to(place / "folder"))
    with (place / "fer2013.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("emotion", "pixels", "Usage"))
        for _, usage, name, _, pixels in faces:
            writer.writerow((CODES[name], " ".join(map(str, pixels.ravel().tolist())), usage))
    return ("folder", "backwards", "archive.zip", "fer2013.csv")


@pytest.mark.slow
def test_folder_zip_and_csv_of_the_same_faces_give_the_same_bits(cache, tmp_path):
    (tmp_path / "lists_backwards").mkdir()
    (tmp_path / "lists_backwards/sitecustomize.py").write_text(BACKWARDS)
    backwards = {"fresh": True, "PYTHONPATH": f"{tmp_path / 'lists_backwards'}{os.pathsep}{ROOT}"}
    trained = []
    for form in write_forms(tmp_path):
        folder = tmp_path / f"of_{form.partition('.')[0]}"
        succeed(
            "train.py", "experiment=improved_mlp", "model.hidden=[16]", "data.protocol=official",
            "data.batch_size=8", f"data.root={form}", "trainer=smoke", "trainer.limit_predict_batches=1.0",
            "num_threads=1", "trainer.deterministic=true", "logger=none", f"hydra.run.dir={folder.name}",
            cwd=tmp_path, cache=cache, **(backwards if form == "backwards" else {}),
        )  # fmt: skip
        trained.append(folder)
    for folder in trained[1:]:
        # Identities are those of the files, which a CSV has not: what is said of each face is the same.
        check_the_same(trained[0], folder, files=("metrics.csv", "metrics.json"))
        for split in ("val", "test"):
            one, other = (np.load(place / f"predictions_{split}.npz") for place in (trained[0], folder))
            assert all(np.array_equal(one[key], other[key]) for key in ("labels", "probs")), folder


def test_the_same_command_again_gives_the_same_bits(reference, cache, tmp_path):
    succeed("train.py", *SMALL, "hydra.run.dir=run", cwd=tmp_path, cache=cache)
    check_the_same(reference, tmp_path / "run")
