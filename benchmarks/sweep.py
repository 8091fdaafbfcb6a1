"""What a sweep costs beyond its jobs."""

import json
from datetime import datetime

from benchmarks import commands, loops
from benchmarks.measure import Figure, Options

# Enough of each family's steps that a job lasts about half a minute.
SETTINGS = (
    *("-m", "model=mlp,cnn,rnn,resnet", "trainer.max_epochs=3", "trainer.limit_train_batches=40"),
    *("trainer.limit_val_batches=4", "trainer.limit_predict_batches=4"),
)


def run(options: Options) -> list[Figure]:
    """Run the sweep, and compare its wall time with its jobs' own."""
    values = []
    with loops.scratch() as folder:
        for number in range(min(options.rounds, 3)):  # a minute and a half each
            place = folder / f"sweep_{number}"
            arguments = ("train.py", *SETTINGS, f"hydra.sweep.dir={place}", *options.overrides)
            finished = commands.run(arguments, cwd=folder)
            records = [json.loads(path.read_text(encoding="utf-8")) for path in place.glob("*/run.json")]
            assert len(records) == 4, records
            jobs = sum(record["durations"]["total_s"] for record in records)
            first = min(datetime.fromisoformat(record["started"]).timestamp() for record in records)
            values.append(finished.seconds / (jobs + first - finished.started))
    return [
        Figure(
            "four jobs: the sweep / its jobs' durations and the first start",
            values,
            "x",
            at_most=1.03,
            note=f"the last: {finished.seconds:.1f} s, its jobs {jobs:.1f} s",
        )
    ]
