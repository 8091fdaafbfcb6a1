"""Training throughput: ours against a bare loop, and against what is usual.

``python -m benchmarks training``
"""

import statistics
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import loops, measure
from benchmarks.measure import Figure, Options, ratio
from fer_lightning.models.build import build_backbone
from fer_lightning.report.architecture import layers_of


class Network(NamedTuple):
    """A network under its experiment, and the targets it is held to.

    Attributes:
        overrides: Of ``train.py``.
        limit: Ours over the bare loop, at least.
        usual: Ours over what is usual, at least.
        arithmetic: Achieved FLOP/s over the matrix product's, at least.
    """

    overrides: tuple[str, ...]
    limit: float
    usual: float
    arithmetic: float | None = None


NETWORKS = {
    "MLP": Network(("experiment=paper", "model=mlp"), limit=0.85, usual=6),
    "RNN": Network(("experiment=paper", "model=rnn"), limit=0.95, usual=3.5),
    "CNN": Network(("experiment=paper", "model=cnn"), limit=0.95, usual=3.3, arithmetic=0.28),
    "ResNet-34": Network(("experiment=paper", "model=resnet"), limit=0.95, usual=1.15),
    "improved ResNet-15": Network(("experiment=improved_resnet",), limit=0.95, usual=3, arithmetic=0.6),
}


def multiply_adds(config: dict[str, Any], side: int) -> int:
    """Count those of one image of some side."""
    network = build_backbone(config["model"]).train()
    # In training: in evaluation a network refuses images of another side than it is tested on.
    shape = (network.in_channels, side, side)
    network.image_size = side
    return sum(layer.multiply_adds for layer in layers_of(network, shape))


def measure_network(name: str, network: Network, options: Options, files: Path) -> list[Figure]:
    """Let the three loops take turns.

    Args:
        name: Of the network.
        network: What to train, and its targets.
        options: The command's.
        files: An empty folder for the usual loop's pictures, or one filled by a former call.
    """
    overrides = (*network.overrides, *options.overrides)
    config = loops.resolve(*overrides)
    data = loops.load(config)
    device, precision = config["trainer"]["accelerator"], config["trainer"]["precision"]
    sides = config["data"]["augment"]["sides"] or [data.image_size]
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32

    limits = {side: loops.Limit(config, data, side=side) for side in sides}
    largest = limits[sides[-1]]
    largest.run(3)
    images_per_s = statistics.median(largest.run(3) for _ in range(3))
    batch_size = config["data"]["batch_size"]
    num_steps = min(max(4, round(options.seconds * images_per_s / batch_size)), len(data.train_dataloader()))
    for limit in limits.values():
        limit.run(3)
    usual = loops.Usual(config, data, loops.files_of(data, files))
    ours = loops.Ours(overrides, num_steps=num_steps, sides=len(sides))

    by_side: dict[str, list[list[float]]] = {"limit": [], "ours": []}

    def turn_limit() -> float:
        by_side["limit"].append([limits[side].run(num_steps) for side in sides])
        return statistics.harmonic_mean(by_side["limit"][-1])

    def turn_ours() -> float:
        by_side["ours"].append(ours.run())
        return statistics.harmonic_mean(by_side["ours"][-1])

    contenders = {
        "limit": turn_limit,
        "matrix": lambda: measure.matrix_rate(dtype, device),
        "ours": turn_ours,
        "usual": lambda: usual.run(max(8, num_steps // 3)),  # a third of the speed, and less
    }
    values = measure.rounds(options.rounds, contenders)

    work = [6 * multiply_adds(config, side) for side in sides]  # FLOPs: two a multiply-add, three forwards
    flops = [
        sum(work) / sum(1 / rate for rate in turn)  # equal numbers of images at each side
        for turn in by_side["ours"]
    ]
    ceiling = statistics.median(a / b for a, b in zip(values["limit"], values["usual"], strict=True))
    note = f"the bare loop's is {ceiling:.2f}"
    if len(sides) > 1:
        note += (
            f"; ours on {', '.join(map(str, sides))} px by turns, as the recipe has it, usual on {sides[-1]}"
        )
    ends = [second for record in ours.records for second in record["epoch_end_seconds"]]
    return [
        Figure(f"{name}, {precision}, batches of {batch_size}: bare loop", values["limit"], "images/s"),
        Figure(f"{name}: ours", values["ours"], "images/s"),
        Figure(f"{name}: usual", values["usual"], "images/s"),
        ratio(f"{name}: ours / bare loop", values["ours"], values["limit"], at_least=network.limit),
        ratio(
            f"{name}: ours / usual",
            values["ours"],
            values["usual"],
            at_least=network.usual,
            note=note,
        ),
        Figure(f"{name}: an epoch's end (record, checkpoint, logging)", ends, "s"),
        Figure(f"{name}: achieved arithmetic", [value / 1e9 for value in flops], "GFLOP/s"),
        ratio(f"{name}: arithmetic / matrix product", flops, values["matrix"], at_least=network.arithmetic),
    ]


def run(options: Options) -> list[Figure]:
    """Measure every network."""
    loops.prepare_process(None)
    figures: list[Figure] = []
    with loops.scratch() as files:
        for name, network in NETWORKS.items():
            if options.only and name not in options.only:
                continue
            figures += measure_network(name, network, options, files)
    return figures
