"""Wall time until a run first reaches each accuracy of Table 1: takes hours, no part of ``make bench``.

``python -m benchmarks.time_to_accuracy FOLDER [--experiment paper] [--models mlp,cnn] [--score]``

Every epoch's weights are kept while the network trains and scored afterwards, so that no run looks at test
images while it trains; which epoch is first is thus known only afterwards, and is no way to choose one. A run
that was interrupted goes on (its clock stands still meanwhile), or is scored as far as it came (``--score``).
"""

import argparse
import statistics
from collections.abc import Iterator
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

from benchmarks import commands, loops
from fer_lightning.core.signals import install_exit_handlers
from fer_lightning.evaluation.evaluate import predict_splits
from fer_lightning.report.paper.reference import FAMILIES, TABLE_1
from fer_lightning.runs.folder import read_record
from fer_lightning.training.checkpoint import load_classifier


def ends_of_epochs(record: dict[str, Any]) -> list[float]:
    """Return when each epoch of a run ended, in seconds since its command was given.

    Args:
        record: Its ``run.json``. What an epoch's end took is known of all but those before an interruption,
            for which the others' median stands.
    """
    start = datetime.fromisoformat(record["first_step"]) - datetime.fromisoformat(record["started"])
    typical = statistics.median(record["epoch_end_seconds"] or [0.0])
    return [
        start.total_seconds() + seconds + number * typical
        for number, seconds in enumerate(accumulate(record["epoch_seconds"]), 1)
    ]


def accuracies(run: Path) -> Iterator[float]:
    """Yield each epoch's accuracy on the test split."""
    data = None
    for path in sorted((run / "epochs").glob("*.ckpt")):
        classifier, metadata = load_classifier(path)
        if data is None:
            data = loops.load(metadata.config)
        predictions = predict_splits(classifier, metadata, data, ["test"], metadata.config["trainer"])["test"]
        yield float((predictions.predicted == predictions.labels).mean())


def main() -> None:
    """Train what is missing, score everything, print one row a run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.time_to_accuracy", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the runs are kept")
    parser.add_argument("--experiment", choices=("paper", "improved"), default="paper")
    parser.add_argument("--models", default="mlp,rnn,cnn,resnet")
    parser.add_argument("--set", action="append", default=[], metavar="OVERRIDE", help="of a new run")
    parser.add_argument("--score", action="store_true", help="train nothing: score what is there")
    given = parser.parse_args()
    loops.prepare_process(None)
    given.folder.mkdir(parents=True, exist_ok=True)
    rows = sorted(TABLE_1.items(), key=lambda row: row[1])
    names = " | ".join(f"{FAMILIES[name]} {100 * accuracy:.2f} %" for name, accuracy in rows)
    print(f"| run | {names} | epochs |\n| --- |{' --: |' * (len(rows) + 1)}", flush=True)
    for model in given.models.split(","):
        place = (given.folder / f"{given.experiment}_{model}").absolute()
        record = read_record(place)
        if not given.score and (record is None or record["state"] != "finished"):
            chosen = (f"experiment=improved_{model}",)
            if given.experiment == "paper":
                chosen = ("experiment=paper", f"model={model}")
            arguments = (*chosen, "keep_epochs=true", *given.set)
            where = f"hydra.run.dir={place}" if record is None else f"resume={place}"
            commands.run(("train.py", *(arguments if record is None else ()), where), cwd=given.folder)
        record = read_record(place)
        if record is None or not record.get("epoch_seconds"):
            parser.error(f"{place}: no run that ended an epoch")
        scored = list(zip(ends_of_epochs(record), accuracies(place), strict=False))
        cells = []
        for _, wanted in rows:
            reached = [
                (number, end) for number, (end, accuracy) in enumerate(scored, 1) if accuracy >= wanted
            ]
            cells.append(f"{reached[0][1]:,.0f} s (epoch {reached[0][0]})" if reached else "not")
        print(f"| {given.experiment}, {model} | {' | '.join(cells)} | {len(scored)} |", flush=True)


if __name__ == "__main__":
    install_exit_handlers()  # Lightning's own handler would swallow a SIGTERM
    main()
