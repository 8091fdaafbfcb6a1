"""How long a start takes, from a command to its first training step, and how much memory training takes."""

import json
import shutil
import zipfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from benchmarks import commands, loops, measure
from benchmarks.measure import Figure, Options
from fer_lightning.data.cache import load_faces
from fer_lightning.data.readers.fer2013 import open_fer2013


def run(options: Options) -> list[Figure]:
    """Measure every start."""
    loops.prepare_process(None)
    with loops.scratch() as folder:
        return [
            *_of_commands(options, folder),
            *_of_data(options, folder),
            _of_memory(options, folder),
        ]


def _of_commands(options: Options, folder: Path) -> list[Figure]:
    asked = {
        name: ("train.py", *flags)
        for name, flags in (("--help", ("--help",)), ("--cfg job", ("--cfg", "job")))
    }
    commands.run(asked["--help"], cwd=folder)
    values = measure.rounds(
        options.rounds,
        {
            name: lambda arguments=arguments: commands.run(arguments, cwd=folder).seconds
            for name, arguments in asked.items()
        },
    )
    figures = [Figure(f"train.py {name}", seconds, "s", at_most=1) for name, seconds in values.items()]
    first_steps = [  # the first fills the caches
        seconds_to_first_step(options.overrides, folder) for _ in range(options.rounds + 1)
    ]
    return [*figures, Figure("from the command to the first training step", first_steps[1:], "s", at_most=8)]


def seconds_to_first_step(overrides: Sequence[str], folder: Path) -> float:
    """Run ``train.py`` for one step, and return the seconds from its start to the end of that step."""
    place = folder / "first"
    finished = commands.run(
        (
            *("train.py", "trainer.max_epochs=1", "trainer.limit_train_batches=1"),
            *("trainer.limit_val_batches=1", "trainer.limit_predict_batches=1"),
            *(f"hydra.run.dir={place}", *overrides),
        ),
        cwd=folder,
    )
    record = json.loads((place / "run.json").read_text(encoding="utf-8"))
    shutil.rmtree(place)
    return datetime.fromisoformat(record["first_step"]).timestamp() - finished.started


def _of_data(options: Options, folder: Path) -> list[Figure]:
    node = loops.resolve("data=auto", *options.overrides)["data"]
    if node["name"] != "fer2013":
        return []

    def load(root: str | Path, cache: Path) -> float:
        def action() -> None:
            source = open_fer2013(root=str(root), classes=node["classes"], image_size=node["image_size"])
            load_faces(source, cache_dir=cache, log=lambda _: None)

        return measure.timed(action)

    root = Path(node["root"])
    fresh = [folder / f"cache_{number}" for number in range(options.rounds)]
    decoding = [load(root, cache) for cache in fresh]
    figures = [
        Figure("35,887 pictures decoded once", decoding, "s", at_most=12),
        Figure("cached start", [load(root, cache) for cache in fresh], "s", at_most=0.1),
    ]
    archives = [root] if root.suffix == ".zip" else sorted(root.glob("*.zip"))
    if archives:
        unpacked = folder / "unpacked"
        with zipfile.ZipFile(archives[0]) as archive:
            archive.extractall(unpacked)
        load(unpacked, fresh[0])
        cached = [load(unpacked, fresh[0]) for _ in range(options.rounds)]
        figures.append(Figure("cached start from a folder of pictures", cached, "s", at_most=0.4))
    return figures


def _of_memory(options: Options, folder: Path) -> Figure:
    peaks = []
    for number in range(min(options.rounds, 3)):  # memory hardly varies
        place = f"hydra.run.dir={folder / f'memory_{number}'}"
        settings = ("model=cnn", "trainer.max_epochs=1", "trainer.limit_train_batches=0.25")
        finished = commands.run(("train.py", *settings, place, *options.overrides), cwd=folder)
        peaks.append(finished.peak_gb)
    return Figure(
        "peak memory, CNN: a quarter of an epoch, validation, test and report", peaks, "GB", at_most=1.5
    )
