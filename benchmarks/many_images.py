"""A data set far larger than memory should have to hold: takes an hour, no part of ``make bench``.

``python -m benchmarks.many_images FOLDER [--images 2000000] [--rounds 3]``

Makes JPEG files of 48 x 48 pixels in class folders, unless FOLDER holds them, decodes them once with a kill
on the way, and trains the MLP, which a slow loader would hold up most, on an eighth, a quarter, half and all
of them. The images are mapped from the disk (``data.in_memory_gb=0``).
"""

import argparse
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import loops, measure
from benchmarks.measure import Figure
from fer_lightning.config.instantiate import instantiate
from fer_lightning.core.parallel import available_cores
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.labels import EXPRESSIONS

SIDE, QUALITY = 48, 90
SHARES = (1, 2, 4, 8)  # of the images, as 1/8 ... 8/8
_AT_ONCE = 5000
_MAX_STEPS = 500  # of a measurement
_SETTINGS = ("data=image_folder", "model=mlp", "logger=none", "data.in_memory_gb=0")


def make_images(folder: Path, count: int) -> None:
    """Make smooth random images in ``split/class`` folders, none like another; a tenth is val and test."""
    for split in ("train", "val", "test"):
        for name in EXPRESSIONS:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
    starts = range(0, count, _AT_ONCE)
    with multiprocessing.Pool(available_cores()) as pool:
        jobs = [(folder, first, min(first + _AT_ONCE, count)) for first in starts]
        for done, _ in enumerate(pool.imap_unordered(_make, jobs), 1):
            print(f"\rmaking images: {done * _AT_ONCE:,} of {count:,}", end="", file=sys.stderr)
    print(file=sys.stderr)


def _make(job: tuple[Path, int, int]) -> None:
    folder, first, last = job
    rng = np.random.default_rng(first)
    for number in range(first, last):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
        image = coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        split = {0: "val", 1: "test"}.get(number % 20, "train")
        image.save(folder / split / EXPRESSIONS[number % 7] / f"{number:08d}.jpg", quality=QUALITY)


class MemoryWatch:
    """The peak of the private memory of a process and its children; mapped files are not counted."""

    def __init__(self, pid: int) -> None:
        self.peak_gb = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(pid,), daemon=True)
        self._thread.start()

    def _watch(self, pid: int) -> None:
        while not self._ended.wait(2):
            self.peak_gb = max(self.peak_gb, sum(map(own_memory_gb, _with_children(pid))))

    def end(self) -> float:
        """Stop watching; return the peak in GB."""
        self._ended.set()
        self._thread.join()
        return self.peak_gb


def own_memory_gb(pid: int) -> float:
    """Return the memory of a process in GB without mapped files; 0 of one that has ended.

    What it shares with forks counts in part for each of them.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    fields = dict(line.split(":", 1) for line in lines[1:])
    return int(fields["Pss_Anon"].split()[0]) / 1e6


def _with_children(pid: int) -> Iterator[int]:
    yield pid
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _with_children(int(child))
    except OSError:
        return


def decode(folder: Path, cache: Path, *, kill_after: float | None = None) -> tuple[float, float]:
    """Decode the images in a process of their own; return its seconds and the peak of its memory in GB."""
    code = "import sys; from benchmarks.many_images import load; load(*sys.argv[1:])"
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", code, str(folder), str(cache)])
    watch = MemoryWatch(process.pid)
    try:
        process.wait(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return time.monotonic() - started, watch.end()


def load(folder: str, cache: str) -> FERDataModule:
    """Decode the images, or map those that are in the cache."""
    data: FERDataModule = instantiate(_config(Path(folder), Path(cache))["data"])
    data.prepare_data()
    data.setup()
    return data


def _config(folder: Path, cache: Path) -> dict[str, Any]:
    return loops.resolve(
        *_SETTINGS, f"data.root={folder}", f"data.cache_dir={cache}", "trainer.max_epochs=2",
        "trainer.limit_val_batches=1",
    )  # fmt: skip


def throughput(folder: Path, cache: Path, rounds: int) -> list[Figure]:
    """Train on parts of the images in turn; return the throughput of the smallest part, and ratios to it."""
    config, whole = _config(folder, cache), load(str(folder), str(cache))
    rows, batch_size = whole.rows["train"], config["data"]["batch_size"]
    num_steps = min(_MAX_STEPS, len(rows) // max(SHARES) // batch_size)
    config["trainer"]["limit_train_batches"] = num_steps

    def images_per_s(share: int) -> float:
        data: FERDataModule = instantiate(config["data"])
        data._load = lambda: whole.faces
        data.setup()
        data.rows |= {"train": rows[:: max(SHARES) // share]}
        with loops.scratch() as place:
            return num_steps * batch_size / loops.train(config, data, place)["epoch_seconds"][1]

    contenders = {str(share): (lambda share=share: images_per_s(share)) for share in SHARES}
    values = measure.rounds(rounds, contenders)
    smallest = values[str(SHARES[0])]
    figures = [Figure(f"{len(rows) // 8:,} images from the disk", smallest, "images/s")]
    for share in SHARES[1:]:
        name = f"{len(rows) * share // 8:,} images"
        figures.append(measure.ratio(name, values[str(share)], smallest, at_least=0.9))
    return figures


def main() -> None:
    """Make, decode with a kill, train; print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_images", description=__doc__)
    parser.add_argument("folder", type=Path, help="of the images and the cache: 5 GB for a million images")
    parser.add_argument("--images", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kill-after", type=float, default=120, help="seconds of decoding; 0: no kill")
    given = parser.parse_args()
    folder, cache = given.folder / "images", given.folder / "cache"
    if not folder.is_dir():
        make_images(folder, given.images)
    loops.prepare_process(None)
    rows = []
    if given.kill_after:
        rows.append(("decode, killed", *decode(folder, cache, kill_after=given.kill_after)))
    rows.append(("decode the rest", *decode(folder, cache)))
    rows.append(("map the cache", *decode(folder, cache)))
    print("| step | seconds | memory, GB |\n| --- | --: | --: |")
    for name, seconds, memory in rows:
        print(f"| {name} | {seconds:.0f} | {memory:.2f} |")
    print(f"\n{measure.to_markdown(measure.describe(), throughput(folder, cache, given.rounds))}")


if __name__ == "__main__":
    os.environ["WANDB_MODE"] = "offline"
    main()
