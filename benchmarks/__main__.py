"""Measure, print the tables, and end with exit code 1 where a target is missed beyond noise."""

import argparse
import importlib
import sys
import time
from pathlib import Path

import torch

from benchmarks import measure
from benchmarks.measure import Options
from fer_lightning.core.signals import install_exit_handlers

PARTS = {
    "training": "Training",
    "bf16": "bf16",
    "start": "Start and memory",
    "evaluation": "Evaluation",
    "sweep": "Sweep",
    "growth": "Growth",
    "overhead": "Lightning's overhead",
    "gpu": "GPU",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the parts that are named, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; none: all but gpu")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--seconds", type=float, default=2.5, help="about how long a turn of training is")
    parser.add_argument("--only", action="append", default=[], metavar="NETWORK", help="such as MLP")
    parser.add_argument(
        "--set", action="append", default=[], metavar="OVERRIDE", help="such as data=synthetic"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="where to write the tables, too")
    parser.add_argument("--device", choices=["gpu", "cpu"], default="gpu", help="of the part gpu")
    parser.add_argument("--quick", action="store_true", help="let the part gpu only show that it runs")
    given = parser.parse_args(arguments)
    if unknown := set(given.parts) - PARTS.keys():
        parser.error(f"{', '.join(sorted(unknown))}: expected {', '.join(PARTS)}")
    if given.rounds < 1 or given.seconds <= 0:
        parser.error("--rounds and --seconds: expected positive numbers")
    overrides = tuple(given.set)
    options = Options(given.rounds, given.seconds, tuple(given.only), overrides, given.device, given.quick)
    parts = given.parts or [part for part in PARTS if part != "gpu"]
    if "gpu" in parts and given.device == "gpu" and not torch.cuda.is_available():
        parser.error("gpu: torch sees no CUDA device here; --device cpu --quick runs the same code on a CPU")

    print(measure.describe(), flush=True)
    started, missed, pages = time.perf_counter(), [], [f"{measure.describe()}\n"]
    for part in parts:
        begun = time.perf_counter()
        figures = importlib.import_module(f"benchmarks.{part}").run(options)
        minutes = (time.perf_counter() - begun) / 60
        measure.show(f"{PARTS[part]} ({minutes:.1f} minutes)", figures)
        pages.append(measure.to_markdown(PARTS[part], figures))
        missed += [figure.name for figure in figures if figure.verdict == "missed"]
    if given.markdown:
        given.markdown.parent.mkdir(parents=True, exist_ok=True)
        given.markdown.write_text("\n".join(pages), encoding="utf-8")
    print(f"measured in {(time.perf_counter() - started) / 60:.1f} minutes")
    for name in missed:
        print(f"missed: {name}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    install_exit_handlers()  # Lightning's own handler would swallow a SIGTERM
    sys.exit(main())
