"""The table of docs/techniques.md: what one change of a recipe is worth, from ``ablation.json``."""

import json
import math
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.evaluation.stats import holm, spread
from fer_lightning.report.paper.table import format_p_value
from results.records import HERE

FILE = "ablation.json"  # of `python -m benchmarks.ablation`
ABLATION = "ablation"  # the name of the table
HEADER = ("change", "PublicTest, mean (sd)", "difference, 95 % CI", "of each seed", "p (Holm)", "")
_NORMAL = NormalDist()


class Difference(NamedTuple):
    """A changed recipe and the recipe as it is, on the same images.

    Attributes:
        mean: Accuracy of the changed one minus that of the other, mean over seeds, in [-1, 1].
        interval: Its 95 % interval over images.
        by_seed: The difference of each seed.
        p_value: Of a paired z-test over images.
    """

    mean: float
    interval: tuple[float, float]
    by_seed: list[float]
    p_value: float


def ablation_table(where: Path = HERE) -> str:
    """Make the table as Markdown: the recipe as it is, then the changes, the largest gain first."""
    content: dict[str, Any] = json.loads((where / FILE).read_text(encoding="utf-8"))
    num_seeds = len(content["seeds"])
    base, *changes = ((each["name"], right_by_seed(each["correct"], num_seeds)) for each in content["rows"])
    tests = [paired_difference(right, base[1]) for _, right in changes]
    p_values = holm([test.p_value for test in tests])
    lines = [list(HEADER), ["---", *["--:"] * 4, "---"], [base[0], _accuracy(base[1]), "", "", "", ""]]
    found = zip(changes, tests, p_values, strict=True)
    for (name, right), test, p_holm in sorted(found, key=lambda one: -one[1].mean):
        low, high = test.interval
        cells = [name, _accuracy(right), f"{100 * test.mean:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"]
        cells.append(" ".join(f"{100 * each:+.1f}" for each in test.by_seed))
        lines.append([*cells, format_p_value(p_holm, equals=False), verdict(test, p_holm)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def right_by_seed(digits: str, num_seeds: int) -> NDArray[np.bool_]:
    """Return ``(seeds, N)`` whether each seed is right on each image, of a digit of octal per image."""
    numbers = np.frombuffer(digits.encode("ascii"), np.uint8) - ord("0")
    return np.stack([(numbers >> seed) & 1 for seed in range(num_seeds)]).astype(bool)


def paired_difference(changed: NDArray[np.bool_], base: NDArray[np.bool_]) -> Difference:
    """Compare the means over seeds image by image.

    The interval and the test are over images, for these seeds: the differences of the seeds themselves say
    how much training varies.

    Args:
        changed: ``(seeds, N)``, whether the changed recipe is right.
        base: The same of the recipe as it is, with the same seeds and images.
    """
    assert changed.shape == base.shape, (changed.shape, base.shape)
    by_image = changed.mean(axis=0) - base.mean(axis=0)
    mean = float(by_image.mean())
    error = float(by_image.std(ddof=1)) / math.sqrt(len(by_image))
    reach = _NORMAL.inv_cdf(0.975) * error
    p_value = 2 * _NORMAL.cdf(-abs(mean) / error) if error else float(mean == 0)
    by_seed = [float(each) for each in changed.mean(axis=1) - base.mean(axis=1)]
    return Difference(mean, (mean - reach, mean + reach), by_seed, p_value)


def verdict(test: Difference, p_holm: float) -> str:
    """Say better or worse only where the test is significant and every seed agrees."""
    if p_holm < 0.05 and all(each > 0 for each in test.by_seed):
        return "better"
    if p_holm < 0.05 and all(each < 0 for each in test.by_seed):
        return "worse"
    return "undecided"


def _accuracy(right: NDArray[np.bool_]) -> str:
    mean, sd, _ = spread([float(each) for each in right.mean(axis=1)])
    return f"{100 * mean:.2f} ({'-' if sd is None else f'{100 * sd:.2f}'})"
