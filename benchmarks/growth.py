"""Training throughput as the data grows, in memory and mapped from the disk."""

from benchmarks import loops, measure
from benchmarks.measure import Figure, Options

NUM_FACES = 7000
TIMES = (1, 4, 16)


def run(options: Options) -> list[Figure]:
    """Train the MLP, which a slow loader would hold up most, on more and more drawn faces."""
    loops.prepare_process(None)
    figures = []
    for where, setting in (("in memory", "data.in_memory_gb=4"), ("from the disk", "data.in_memory_gb=0")):
        contenders = {}
        for times in TIMES:
            overrides = (
                *("data=synthetic", "model=mlp", "data.batch_size=64", setting, "data.protocol=paper"),
                f"data.source.num_train={times * NUM_FACES}",
            )
            ours = loops.Ours(overrides, num_steps=100, sides=1)
            ours.run()  # draws the faces, once
            contenders[times] = lambda ours=ours: ours.run()[0]
        values = measure.rounds(options.rounds, {str(times): action for times, action in contenders.items()})
        figures.append(Figure(f"{NUM_FACES:,} faces {where}", values["1"], "images/s"))
        figures += [
            measure.ratio(f"{times} x as many {where}", values[str(times)], values["1"], at_least=0.9)
            for times in TIMES[1:]
        ]
    return figures
