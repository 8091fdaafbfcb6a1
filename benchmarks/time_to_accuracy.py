"""Wall time until a run first reaches each accuracy of Table 1: takes hours, no part of ``make bench``.

``python -m benchmarks.time_to_accuracy FOLDER [--experiment paper] [--models mlp,cnn] [--set OVERRIDE]``

Every epoch's weights are kept while the network trains and scored afterwards, so that no run looks at test
images while it trains; which epoch is first is thus known only afterwards, and is no way to choose one. A run
that was interrupted is started anew: its clock has stood still. A finished one is only scored.
"""

import argparse
import json
from datetime import datetime
from pathlib import Path

from benchmarks import commands, loops
from fer_lightning.checkpoint import load_classifier
from fer_lightning.evaluation import predict_split
from fer_lightning.report.reference import FAMILIES, TABLE_1


def epochs_of(run: Path) -> list[tuple[float, float]]:
    """Score each epoch of a finished run.

    Returns:
        For each epoch its end, in seconds since the run's start, and its accuracy on the test split.
    """
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    started = datetime.fromisoformat(record["started"]).timestamp()
    scores, data = [], None
    for path in sorted((run / "epochs").glob("*.ckpt")):
        classifier, origin = load_classifier(path)
        if data is None:
            data = loops.load(origin.config)
        predictions = predict_split(classifier, origin, data, "test", origin.config["trainer"])
        accuracy = float((predictions.predicted == predictions.labels).mean())
        scores.append((path.stat().st_mtime - started, accuracy))
    return scores


def main() -> None:
    """Train what is missing, score everything, print one row a run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.time_to_accuracy", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the runs are kept")
    parser.add_argument("--experiment", choices=("paper", "improved"), default="paper")
    parser.add_argument("--models", default="mlp,rnn,cnn,resnet")
    parser.add_argument("--set", action="append", default=[], metavar="OVERRIDE")
    given = parser.parse_args()
    loops.prepare_process(None)
    given.folder.mkdir(parents=True, exist_ok=True)
    rows = sorted(TABLE_1.items(), key=lambda row: row[1])
    print(
        "| run | "
        + " | ".join(f"{FAMILIES[name]} {100 * accuracy:.2f} %" for name, accuracy in rows)
        + " | epochs |"
    )
    print("| --- |" + " --: |" * (len(rows) + 1))
    for model in given.models.split(","):
        place = (given.folder / f"{given.experiment}_{model}").absolute()
        if not (place / "metrics.json").exists():
            commands.run(
                (
                    *("train.py", f"experiment={given.experiment}", f"model={model}", "keep_epochs=true"),
                    *(f"hydra.run.dir={place}", *given.set),
                ),
                cwd=given.folder,
            )
        scores = epochs_of(place)
        cells = []
        for _, wanted in rows:
            reached = [
                (number, seconds) for number, (seconds, score) in enumerate(scores, 1) if score >= wanted
            ]
            cells.append(f"{reached[0][1]:,.0f} s (epoch {reached[0][0]})" if reached else "not")
        print(f"| {given.experiment}, {model} | " + " | ".join(cells) + f" | {len(scores)} |", flush=True)


if __name__ == "__main__":
    main()
