"""Training throughput as the data grows, in memory and mapped from the disk."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import loops, measure
from benchmarks.measure import Figure, Options
from fer_lightning.config.instantiate import instantiate
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.faces import Faces

TIMES = (1, 4, 16)


def run(options: Options) -> list[Figure]:
    """Train the MLP, which a slow loader would hold up most, on the drawn faces once, 4 and 16 times over."""
    loops.prepare_process(None)
    figures = []
    overrides = ("data=synthetic", "model=mlp", "data.batch_size=64", "data.protocol=paper", "logger=none")
    with loops.scratch() as folder:
        config = loops.resolve(*overrides, "trainer.max_epochs=2", "trainer.limit_train_batches=100")
        drawn = loops.load(config).faces
        grown = {times: _repeat(drawn, times, folder / f"{times}.npy") for times in TIMES}
        for where, limit in (("in memory", 4), ("from the disk", 0)):
            config["data"]["in_memory_gb"] = limit
            contenders = {
                str(times): lambda faces=faces: _images_per_s(config, faces) for times, faces in grown.items()
            }
            values = measure.rounds(options.rounds, contenders)
            figures.append(Figure(f"{len(drawn):,} faces {where}", values["1"], "images/s"))
            figures += [
                measure.ratio(f"{times} x as many {where}", values[str(times)], values["1"], at_least=0.9)
                for times in TIMES[1:]
            ]
    return figures


def _repeat(faces: Faces, times: int, path: Path) -> Faces:
    """Repeat the faces in a file that is mapped into memory, as a cache is."""
    np.save(path, np.tile(faces.images, (times, 1, 1)))
    arrays = {name: np.tile(getattr(faces, name), times) for name in ("labels", "splits", "hashes", "ids")}
    return replace(faces, images=np.load(path, mmap_mode="r"), **arrays)


def _images_per_s(config: dict[str, Any], faces: Faces) -> float:
    data: FERDataModule = instantiate(config["data"])
    data._load = lambda: faces
    data.setup()
    with loops.scratch() as place:
        return 100 * config["data"]["batch_size"] / loops.train(config, data, place)["epoch_seconds"][1]
