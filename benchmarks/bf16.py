"""What bf16 gains over float32 in a bare training loop: whether ``trainer.precision=auto`` chose well."""

import torch

from benchmarks import loops, measure
from benchmarks.measure import Figure, Options
from benchmarks.training import NETWORKS

GAIN = 2.0  # to be had where a matrix unit multiplies bf16, such as AMX
NAMES = ("RNN", "CNN", "improved ResNet-15")


def run(options: Options) -> list[Figure]:
    """Let the two precisions take turns, for each network that bf16 should gain much."""
    loops.prepare_process(None)
    figures = []
    for name in NAMES:
        if options.only and name not in options.only:
            continue
        config = loops.resolve(*NETWORKS[name].overrides, *options.overrides)
        data = loops.load(config)
        limits = {
            precision: loops.Limit(config, data, precision=precision)
            for precision in ("bf16-mixed", "32-true")
        }
        for limit in limits.values():
            limit.run(2)
        rate = limits["32-true"].run(3)
        num_steps = max(3, round(options.seconds * rate / config["data"]["batch_size"]))
        values = measure.rounds(
            options.rounds,
            {
                precision: lambda limit=limit, num_steps=num_steps: limit.run(num_steps)
                for precision, limit in limits.items()
            },
        )
        chosen = config["trainer"]["precision"]
        figures.append(Figure(f"{name}: float32", values["32-true"], "images/s"))
        note = f"trainer.precision=auto chose {chosen}"
        if config["trainer"]["accelerator"] == "cpu" and not torch.cpu._is_amx_tile_supported():
            note += "; this processor has no AMX"
        figures.append(
            measure.ratio(
                f"{name}: bf16 / float32", values["bf16-mixed"], values["32-true"], at_least=GAIN, note=note
            )
        )
    return figures
