"""What each technique of ``improved_resnet`` is worth on PublicTest, for docs/techniques.md.

Not a part of ``make bench``: ``python -m benchmarks.ablation FOLDER`` trains about fifty short runs with
FER-2013 in ``$FER2013_ROOT``, each in a process of its own, and writes ``results/ablation.json``. The same
command goes on with what is missing. ``--only`` trains some rows and writes nothing, so that several commands
can share the work; ``--score`` trains nothing and writes the rows whose seeds are all there.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import commands, loops, measure
from fer_lightning.core.signals import install_exit_handlers
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.evaluation.evaluate import predict_splits
from fer_lightning.runs.folder import read_record
from fer_lightning.training.checkpoint import load_classifier
from fer_lightning.training.views import TTA

SEEDS = (0, 1, 2)
OUT = Path(__file__).parent.parent / "results" / "ablation.json"
# A half of the channels and a fourth of the epochs of improved_resnet: minutes on one core instead of hours.
BASE = (
    "experiment=improved_resnet",
    "data.protocol=official",
    "model.width=0.5",
    "trainer.max_epochs=8",
)
MIXED = "{{_target_: torchvision.transforms.v2.{name}, num_classes: 7, alpha: {alpha}}}"
CHANGES: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "twice the epochs": ("trainer.max_epochs=16",),
    "no augmentation but mirror images": (
        "data.augment.shift=0",
        "data.augment.rotate=0",
        "data.augment.scale=0",
        "data.augment.brightness=0",
        "data.augment.contrast=0",
        "data.augment.erase=0",
    ),
    "no shift, rotation and scale": (
        "data.augment.shift=0",
        "data.augment.rotate=0",
        "data.augment.scale=0",
    ),
    "no brightness and contrast": ("data.augment.brightness=0", "data.augment.contrast=0"),
    "no erasing": ("data.augment.erase=0",),
    "the stronger augmentation of best_resnet": (
        "data.augment.shift=0.15",
        "data.augment.rotate=15",
        "data.augment.scale=0.2",
        "data.augment.brightness=0.15",
        "data.augment.contrast=0.3",
        "data.augment.erase=0.5",
    ),
    "48 pixels from the first epoch": ("data.augment.sides=[]",),
    "no label smoothing": ("loss.label_smoothing=0",),
    "no averaged weights": ("classifier.ema_decay=0",),
    "cosine schedule, rate 0.1": ("scheduler=cosine", "optimizer.lr=0.1"),
    "AdamW, rate 0.003": ("optimizer=adamw", "optimizer.lr=0.003"),
    "MixUp until 0.9 of the epochs": (
        f"data.batch_transforms=[{MIXED.format(name='MixUp', alpha=0.4)}]",
        "data.batch_transforms_until=0.9",
    ),
    "CutMix until 0.9 of the epochs": (
        f"data.batch_transforms=[{MIXED.format(name='CutMix', alpha=1.0)}]",
        "data.batch_transforms_until=0.9",
    ),
    "squeeze-and-excitation": ("model.squeeze_excitation=true",),
    "stochastic depth 0.1": ("model.stochastic_depth=0.1",),
    "SAM": ("optimizer=sam", "optimizer.lr=0.2"),
    "three quarters of the channels": ("model.width=0.75",),
}
VIEWS: dict[str, TTA] = {  # of the networks trained as it is
    "one view in testing": "none",
    "ten crops in testing": "ten_crop",
}


def folder_of(runs: Path, name: str, seed: int) -> Path:
    """Return the run folder of one row and seed."""
    words = "".join(letter if letter.isalnum() else " " for letter in name).split()
    return (runs / f"{'_'.join(words)}_seed{seed}").absolute()


def is_finished(folder: Path) -> bool:
    """Return whether a folder has a run that was trained to its end."""
    record = read_record(folder)
    return record is not None and record["state"] == "finished"


def train(runs: Path, name: str, seed: int, more: Sequence[str]) -> None:
    """Train a run, or go on with it; one that is finished stays as it is."""
    folder = folder_of(runs, name, seed)
    if is_finished(folder):
        return
    settings = (*BASE, *CHANGES[name], f"seed={seed}", "logger=csv", *more)
    print(f"{name}, seed {seed}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    scratch = runs / ".output" / folder.name
    scratch.mkdir(parents=True, exist_ok=True)
    commands.run(("train.py", *settings, "resume=auto", f"hydra.run.dir={folder}"), cwd=scratch)


def correct_on_val(folder: Path, data: FERDataModule, tta: TTA | None = None) -> NDArray[np.bool_]:
    """Return ``(N,)`` whether the last epoch's network is right on each image of PublicTest."""
    classifier, metadata = load_classifier(folder / "last.ckpt")
    if tta is not None:
        classifier.tta = tta
    found = predict_splits(classifier, metadata, data, ["val"], metadata.config["trainer"])["val"]
    assert len(found) == len(data.rows["val"])
    return found.correct


def octal_digits(correct: Sequence[NDArray[np.bool_]]) -> str:
    """Write for each image a digit whose bits say which seeds are right, that of the first seed lowest."""
    digits = sum(right.astype(np.int64) << seed for seed, right in enumerate(correct))
    return "".join(map(str, np.asarray(digits).tolist()))


def main() -> None:
    """Train what is missing, test on PublicTest, and write the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the runs are kept")
    parser.add_argument("--only", type=int, nargs="+", metavar="ROW", help="train these rows, counted from 0")
    parser.add_argument("--score", action="store_true", help="train nothing: write what is there")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="train these seeds")
    parser.add_argument(
        "--set", action="append", default=[], metavar="OVERRIDE", help="such as num_threads=1"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    names = list(CHANGES)
    chosen = names if given.only is None else [names[row] for row in given.only]
    for name in () if given.score else chosen:
        for seed in given.seeds:
            train(given.folder, name, seed, given.set)
    if given.only is None:
        write(score(given.folder), given.out)


def score(runs: Path) -> dict[str, dict[str, Any]]:
    """Test every row whose runs are finished on PublicTest; return the rows by name."""
    loops.prepare_process(None)
    data = loops.load(loops.resolve(*BASE))
    (base, *_), found = CHANGES, dict[str, dict[str, Any]]()
    contenders: list[tuple[str, list[str], str, TTA | None]]
    contenders = [(name, list(changes), name, None) for name, changes in CHANGES.items()]
    contenders += [(name, [f"predictor.tta={tta}"], base, tta) for name, tta in VIEWS.items()]
    for name, changes, trained, tta in contenders:
        folders = [folder_of(runs, trained, seed) for seed in SEEDS]
        if not all(map(is_finished, folders)):
            print(f"{name}: not all runs are finished")
            continue
        commits = {(read_record(each) or {})["git"]["commit"] for each in folders}
        correct = octal_digits([correct_on_val(each, data, tta) for each in folders])
        found[name] = {"name": name, "changes": changes, "commits": sorted(commits), "correct": correct}
    return found


def write(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Add rows to the file; a row of the same name is replaced, and all are if the recipe has changed."""
    recipe = {"base": list(BASE), "seeds": list(SEEDS)}
    old: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    kept = old["rows"] if {key: old.get(key) for key in recipe} == recipe else []
    about = {"machine": measure.describe()}
    rows = {row["name"]: row for row in kept} | {name: row | about for name, row in found.items()}
    ordered = [rows[name] for name in (*CHANGES, *VIEWS) if name in rows]
    text = json.dumps(recipe | {"rows": ordered}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    install_exit_handlers()  # Lightning's own handler would swallow a SIGTERM
    main()
