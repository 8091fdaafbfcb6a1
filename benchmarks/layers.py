"""What each layer of a network costs in a forward pass, and each kind of operation in a training step.

``python -m benchmarks.layers [--only "improved ResNet-15"] [--set OVERRIDE]``
"""

import argparse
import time
from collections import defaultdict
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import loops, measure
from benchmarks.training import NETWORKS
from fer_lightning.report.architecture import layers_of

NUM_STEPS = 10


def forward_seconds(limit: loops.Limit, num_steps: int) -> dict[str, float]:
    """Time each module without children in the forward passes of some training steps, by name."""
    seconds: dict[str, float] = defaultdict(float)
    started: dict[str, float] = {}
    leaves = [(name, module) for name, module in limit.network.named_modules() if not any(module.children())]

    def begin(name: str) -> Any:
        def note(*_: Any) -> None:
            measure.synchronise(limit.device)
            started[name] = time.perf_counter()

        return note

    def end(name: str) -> Any:
        def note(*_: Any) -> None:
            measure.synchronise(limit.device)
            seconds[name] += time.perf_counter() - started[name]

        return note

    hooks = [module.register_forward_pre_hook(begin(name)) for name, module in leaves]
    hooks += [module.register_forward_hook(end(name)) for name, module in leaves]
    limit.run(num_steps)
    for hook in hooks:
        hook.remove()
    return {name: total / num_steps for name, total in seconds.items()}


def show(name: str, overrides: tuple[str, ...]) -> None:
    """Print the two tables of a network."""
    config = loops.resolve(*overrides)
    data = loops.load(config)
    limit = loops.Limit(config, data)
    limit.run(3)
    seconds = forward_seconds(limit, NUM_STEPS)
    batch_size = config["data"]["batch_size"]
    shape = (limit.network.in_channels, data.image_size, data.image_size)
    work = {layer.name: 2 * layer.multiply_adds * batch_size for layer in layers_of(limit.network, shape)}
    kinds = {module: type(part).__name__ for module, part in limit.network.named_modules()}
    table = Table(title=f"{name}: forward, {batch_size} images", title_justify="left")
    for column in ("layer", "kind", "ms", "share", "GFLOP/s"):
        table.add_column(column, justify="left" if column in ("layer", "kind") else "right")
    total = sum(seconds.values())
    for layer, taken in seconds.items():
        rate = f"{work[layer] / taken / 1e9:,.0f}" if work.get(layer) else ""
        table.add_row(layer, kinds[layer], f"{1e3 * taken:.2f}", f"{taken / total:.0%}", rate)
    console = Console(width=110)
    console.print(table)

    with torch.profiler.profile() as profile:
        limit.run(NUM_STEPS)
    # Of operations in operations the inner ones alone have time of their own.
    totals = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    whole = sum(event.self_cpu_time_total for event in totals)
    table = Table(title=f"{name}: a training step", title_justify="left")
    for column in ("operation", "ms", "share"):
        table.add_column(column, justify="left" if column == "operation" else "right")
    for event in totals[:10]:
        taken = event.self_cpu_time_total
        table.add_row(event.key, f"{taken / 1e3 / NUM_STEPS:.2f}", f"{taken / whole:.0%}")
    console.print(table)


def main() -> None:
    """Show the networks that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layers", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(NETWORKS), metavar="NETWORK")
    parser.add_argument("--set", action="append", default=[], metavar="OVERRIDE")
    given = parser.parse_args()
    loops.prepare_process(None)
    print(measure.describe())
    for name in given.only or NETWORKS:
        show(name, (*NETWORKS[name].overrides, *given.set))


if __name__ == "__main__":
    main()
