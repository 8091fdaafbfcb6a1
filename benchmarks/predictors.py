"""Accuracy on PrivateTest and milliseconds per face of trained networks, for docs/which_network.md.

Not a part of ``make bench``: ``python -m benchmarks.predictors "MLP=RUN" "int8=FILE.onnx" "both=RUN+RUN"``
with FER-2013 in ``$FER2013_ROOT``. A network is a run folder, a checkpoint, or a file of ``fer-lightning
export``; ``+`` makes an ensemble. Probabilities are computed as ``fer-lightning predict`` does (float32, one
thread on a CPU), from faces in memory as uint8, without a detector.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import loops, measure
from fer_lightning.cli.train import count_parameters
from fer_lightning.core.hardware import choose_device
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.inference.network import SHIPPED
from fer_lightning.inference.stored_predictors import OnnxPredictor, load_predictor, with_training_images
from fer_lightning.training.checkpoint import find_checkpoint

BATCHES = (1, 64)  # faces at a time
WARM_UP, SECONDS = 3, 1.0  # calls before the clock, and about how long a turn is
OUT = Path(__file__).parent.parent / "results" / "predictors.json"

Faces = NDArray[np.uint8]
Network = Callable[[Faces], NDArray[np.float32]]


class Contender(NamedTuple):
    """One network, or several whose probabilities are averaged.

    Attributes:
        networks: Each maps ``(N, 1, S, S)`` uint8 faces to ``(N, C)`` probabilities.
        trained_on: Hashes of the images that trained any of them, or chose it.
        num_parameters: Of all together; None if a file does not say.
    """

    networks: Sequence[Network]
    trained_on: NDArray[np.uint64]
    num_parameters: int | None

    def __call__(self, faces: Faces) -> NDArray[np.float32]:
        """Return the mean of the probabilities."""
        mean: NDArray[np.float32] = np.mean([network(faces) for network in self.networks], axis=0)
        return mean


def load(names: str, data: FERDataModule, device: str) -> Contender:
    """Load a network, or several that ``+`` joins; ``package`` is the network of the package."""
    networks, hashes, parameters = list[Network](), list[NDArray[np.uint64]](), list[int | None]()
    for name in names.split("+"):
        path = SHIPPED if name == "package" else find_checkpoint(Path(name).expanduser())
        loaded, unknown = with_training_images(load_predictor(path, num_threads=1), data)
        if unknown:
            raise SystemExit(f"{path}: {unknown}")
        hashes += [loaded.metadata.trained_on, loaded.metadata.selected_on]
        if isinstance(loaded, OnnxPredictor):
            networks.append(loaded.network)
            parameters.append(loaded.facts()["num_parameters"])
        else:
            classifier = loaded.classifier.eval().to(device)
            networks.append(partial(_probabilities, classifier, device))
            parameters.append(count_parameters(classifier.backbone))
    total = None if None in parameters else sum(count for count in parameters if count is not None)
    return Contender(networks, np.unique(np.concatenate(hashes)), total)


@torch.inference_mode()
def _probabilities(classifier: torch.nn.Module, device: str, faces: Faces) -> NDArray[np.float32]:
    probs: NDArray[np.float32] = (
        classifier(torch.from_numpy(faces).to(device)).float().softmax(dim=1).cpu().numpy()
    )
    return probs


def count_correct(contender: Contender, data: FERDataModule) -> dict[str, int]:
    """Count the images of PrivateTest that are right, of all and of those that no member has seen."""
    rows = data.rows["test"]
    faces, labels = data.faces.images[rows][:, None], data.faces.labels[rows]
    starts = range(0, len(rows), BATCHES[-1])
    probs = np.concatenate([contender(faces[start : start + BATCHES[-1]]) for start in starts])
    right = probs.argmax(axis=1) == labels
    unseen = ~np.isin(data.faces.hashes[rows], contender.trained_on)
    return {
        "n": len(rows),
        "correct": int(right.sum()),
        "leak_free_n": int(unseen.sum()),
        "leak_free_correct": int(right[unseen].sum()),
    }


def milliseconds(contender: Contender, faces: Faces) -> float:
    """Return the median of the milliseconds per face of many calls."""
    for _ in range(WARM_UP):
        contender(faces)
    times, begun = list[float](), time.perf_counter()
    while len(times) < 5 or time.perf_counter() - begun < SECONDS:
        times.append(measure.timed(lambda: contender(faces)))
    return 1e3 * float(np.median(times)) / len(faces)


def main() -> None:
    """Measure, print and write the networks of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predictors", description=__doc__)
    parser.add_argument("networks", nargs="+", metavar="NAME=PATH[+PATH...]")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each network")
    parser.add_argument("--date", default=time.strftime("%Y-%m-%d"))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--save-faces", type=Path, metavar="FILE", help="for benchmarks/other_packages.py")
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = choose_device("auto")
    data = loops.load(loops.resolve("data=fer2013"))
    if given.save_faces:
        save_faces(given.save_faces, data)
    contenders = {
        name: load(paths, data, device) for name, _, paths in (each.partition("=") for each in given.networks)
    }
    counts = {name: count_correct(contender, data) for name, contender in contenders.items()}
    faces = data.faces.images[data.rows["test"][: BATCHES[-1]]][:, None]
    timings = {
        size: measure.rounds(
            given.rounds,
            {name: partial(milliseconds, one, faces[:size]) for name, one in contenders.items()},
        )
        for size in BATCHES
    }
    found = [
        {
            "name": name,
            "num_parameters": contender.num_parameters,
            **counts[name],
            **{f"ms_in_batches_of_{size}": _rounded(timings[size][name]) for size in BATCHES},
        }
        for name, contender in contenders.items()
    ]
    write(given.out, device, given.date, found)


def save_faces(path: Path, data: FERDataModule) -> None:
    """Write PrivateTest for another environment; ``leaked`` are the images that are also in Training."""
    rows, hashes = data.rows["test"], data.faces.hashes
    leaked = np.isin(hashes[rows], hashes[data.rows["train"]])
    images, labels = data.faces.images[rows], data.faces.labels[rows]
    np.savez_compressed(path, images=images, labels=labels, leaked=leaked, classes=np.array(data.classes))


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def write(path: Path, device: str, date: str, found: Sequence[dict[str, Any]]) -> None:
    """Replace the numbers of one kind of device in the file, and print them."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    content[device] = {"machine": measure.describe(), "date": date, "networks": list(found)}
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for each in found:
        accuracy = 100 * each["correct"] / each["n"]
        medians = ", ".join(
            f"{np.median(each[f'ms_in_batches_of_{size}']):.3f} ms in batches of {size}" for size in BATCHES
        )
        print(f"{each['name']}: {accuracy:.2f} %, {medians}")


if __name__ == "__main__":
    main()
