"""The table and the figure of docs/which_network.md: accuracy against time, from ``predictors.json``."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_lightning.evaluation.stats import wilson_interval
from fer_lightning.report.figures.style import BLUE, ORANGE, WIDTH, font_size
from results.records import HERE

FILE = "predictors.json"  # of `python -m benchmarks.predictors`, by device
PACKAGES = "packages.json"  # other programs, measured by hand: EXPERIMENTS.md
NAME = "predictors"  # of the table and of the figure


def predictors(where: Path = HERE) -> dict[str, Any]:
    """Return the numbers by device, ``cpu`` and perhaps ``cuda``."""
    content: dict[str, Any] = json.loads((where / FILE).read_text(encoding="utf-8"))
    return content


def predictor_table(where: Path = HERE) -> str:
    """Make the table as Markdown, the most accurate network first."""
    measured = predictors(where)
    on_gpu = {each["name"]: each for each in measured.get("cuda", {"networks": []})["networks"]}
    header = ["network", "parameters", "PrivateTest, 95 % CI", "leak-free", "one face", "64 at a time"]
    lines = [[*header, *(["one face, GPU", "64, GPU"] if on_gpu else [])]]
    lines.append(["---", *["--:"] * (len(lines[0]) - 1)])
    for each in sorted(measured["cpu"]["networks"], key=_accuracy, reverse=True):
        cells = [each["name"], _parameters(each), _with_interval(each), _leak_free(each), *_times(each)]
        if on_gpu:
            cells += _times(on_gpu[each["name"]]) if each["name"] in on_gpu else ["-", "-"]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def accuracy_and_time(where: Path = HERE) -> Figure:
    """Draw the accuracy on PrivateTest against the milliseconds of one face on one core."""
    figure = Figure(figsize=(WIDTH + 2.5, 4.4), layout="constrained")
    axes = figure.add_subplot()
    ours, others = predictors(where)["cpu"]["networks"], other_packages(where)
    for each in ours:
        _draw(axes, each, BLUE, "o", is_above=_is_above_its_neighbour(each, [*ours, *others]), side="left")
    for each in others:
        _draw(axes, each, ORANGE, "s", is_above=_is_above_its_neighbour(each, [*ours, *others]), side="right")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.margins(x=0.3, y=0.08)
    axes.set_xlabel("milliseconds for one face on one CPU core (the network alone)")
    axes.set_ylabel("accuracy on PrivateTest, %")
    axes.grid(which="major")
    return figure


def other_packages(where: Path = HERE) -> Sequence[dict[str, Any]]:
    """Return what was measured of other programs."""
    path = where / PACKAGES
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["packages"]
    return found


def _is_above_its_neighbour(each: dict[str, Any], everyone: Sequence[dict[str, Any]]) -> bool:
    """Return where a label is out of the way of the point that is next to it, if there is one."""
    near = [
        (abs(_accuracy(each) - _accuracy(other)), _accuracy(other), -_milliseconds(other))
        for other in everyone
        if other is not each
        and abs(math.log(_milliseconds(each) / _milliseconds(other))) < math.log(3)
        and abs(_accuracy(each) - _accuracy(other)) < 0.03
    ]
    return not near or (_accuracy(each), -_milliseconds(each)) > min(near)[1:]


def _milliseconds(each: dict[str, Any]) -> float:
    return float(median(each["ms_in_batches_of_1"]))


def _draw(axes: Axes, each: dict[str, Any], color: str, marker: str, *, is_above: bool, side: str) -> None:
    time = _milliseconds(each)
    low, high = (100 * bound for bound in wilson_interval(_accuracy(each), each["n"]))
    axes.vlines(time, low, high, color=color, linewidth=1.4)
    axes.plot(time, 100 * _accuracy(each), marker, color=color, markersize=6)
    axes.annotate(
        each["name"],
        (time, 100 * _accuracy(each)),
        xytext=(6 if side == "left" else -6, 6 if is_above else -13),
        textcoords="offset points",
        horizontalalignment=side,
        fontsize=font_size(8),
    )


def _accuracy(each: dict[str, Any]) -> float:
    return float(each["correct"] / each["n"])


def _parameters(each: dict[str, Any]) -> str:
    return "-" if each["num_parameters"] is None else f"{each['num_parameters'] / 1e6:.2f} M"


def _with_interval(each: dict[str, Any]) -> str:
    low, high = wilson_interval(_accuracy(each), each["n"])
    return f"**{100 * _accuracy(each):.2f}** ({100 * low:.1f}-{100 * high:.1f})"


def _leak_free(each: dict[str, Any]) -> str:
    return f"{100 * each['leak_free_correct'] / each['leak_free_n']:.2f}"


def _times(each: dict[str, Any]) -> list[str]:
    return [f"{median(each[f'ms_in_batches_of_{size}']):.3g} ms" for size in (1, 64)]
