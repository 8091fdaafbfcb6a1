"""Whether bf16 costs accuracy: three seeds of short runs in both precisions; no part of ``make bench``.

``python -m benchmarks.precision FOLDER [--models cnn,rnn] [--epochs 3] [--seeds 0,1,2]``
"""

import argparse
import json
import statistics
from pathlib import Path

from benchmarks import commands, loops

PRECISIONS = ("32-true", "bf16-mixed")


def main() -> None:
    """Train what is missing, and print each pair with its difference."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the runs are kept")
    parser.add_argument("--models", default="cnn,rnn")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--set", action="append", default=[], metavar="OVERRIDE")
    given = parser.parse_args()
    loops.quiet()
    given.folder.mkdir(parents=True, exist_ok=True)
    print(f"| run | {' | '.join(PRECISIONS)} | difference | speed |\n| --- | --: | --: | --: | --: |")
    for model in given.models.split(","):
        differences = []
        for seed in given.seeds.split(","):
            accuracy, speed = {}, {}
            for precision in PRECISIONS:
                place = (given.folder / f"{model}_{seed}_{precision}").absolute()
                if not (place / "metrics.json").exists():
                    settings = ("experiment=paper", f"model={model}", f"seed={seed}", "logger=none")
                    settings += (f"trainer.precision={precision}", f"trainer.max_epochs={given.epochs}")
                    arguments = ("train.py", *settings, f"hydra.run.dir={place}", *given.set)
                    commands.run(arguments, cwd=given.folder)
                metrics = json.loads((place / "metrics.json").read_text(encoding="utf-8"))
                record = json.loads((place / "run.json").read_text(encoding="utf-8"))
                accuracy[precision], speed[precision] = metrics["test"]["acc"], record["images_per_s"]
            differences.append(accuracy["bf16-mixed"] - accuracy["32-true"])
            cells = [f"{100 * accuracy[precision]:.2f} %" for precision in PRECISIONS]
            faster = speed["bf16-mixed"] / speed["32-true"]
            cells += [f"{100 * differences[-1]:+.2f}", f"{faster:.2f} x"]
            print(f"| {model}, seed {seed} | {' | '.join(cells)} |", flush=True)
        mean, spread = statistics.mean(differences), statistics.stdev(differences)
        print(f"| {model}, mean of {len(differences)} | | | {100 * mean:+.2f}, sd {100 * spread:.2f} | |")


if __name__ == "__main__":
    main()
