"""Figures of interleaved rounds, the targets they are held to, and the table they make."""

import gc
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table

Verdict = Literal["met", "missed", "missed within noise", ""]


@dataclass(frozen=True)
class Options:
    """What a benchmark's command line says.

    Attributes:
        rounds: Turns of each contender.
        seconds: About how long a turn is, where its length can be chosen.
        only: Names of the networks to measure; empty for all.
        overrides: Of every command of the project, such as ``data=synthetic``.
        device: Where the part ``gpu`` trains: ``gpu`` or ``cpu``.
        quick: Whether the part ``gpu`` only shows that its code runs.
    """

    rounds: int = 5
    seconds: float = 2.5
    only: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    device: str = "gpu"
    quick: bool = False


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        name: What was measured.
        values: One a round.
        unit: Of the values; ``x`` for a ratio.
        at_least: The target, where more is better.
        at_most: The target, where less is better.
        note: What a reader should know.
    """

    name: str
    values: Sequence[float]
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.values)

    @property
    def verdict(self) -> Verdict:
        """Hold the median to the target.

        A target is missed beyond noise where every round misses it: were the true median on the target, five
        rounds would all lie on its wrong side once in 32 times.
        """
        bound = self.at_most if self.at_least is None else self.at_least
        if bound is None:
            return ""
        sign = 1 if self.at_least is None else -1
        if sign * self.median <= sign * bound:
            return "met"
        return (
            "missed" if all(sign * value > sign * bound for value in self.values) else "missed within noise"
        )

    @property
    def target(self) -> str:
        """The target in words."""
        if self.at_least is not None:
            return f"≥ {_digits(self.at_least)}"
        return "" if self.at_most is None else f"≤ {_digits(self.at_most)}"


def _digits(value: float) -> str:
    """Write three significant digits, and whole numbers whole."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3}f}"


def ratio(
    name: str,
    above: Sequence[float],
    below: Sequence[float],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    note: str = "",
) -> Figure:
    """Divide two figures round by round, so that a machine whose speed drifts does not matter."""
    values = [a / b for a, b in zip(above, below, strict=True)]
    return Figure(name, values, "x", at_least, at_most, note)


def rounds(number: int, contenders: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Let contenders take turns, in an order that is turned round each time.

    Args:
        number: Of turns each.
        contenders: Each returns its figure.
    """
    values: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(number):
        order = list(contenders) if turn % 2 == 0 else list(reversed(contenders))
        for name in order:
            gc.collect()
            values[name].append(contenders[name]())
    return values


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def synchronise(device: str) -> None:
    """Wait for what was asked of a device."""
    if device != "cpu":
        torch.get_device_module(device).synchronize()


def matrix_rate(dtype: torch.dtype, device: str, size: int = 2048) -> float:
    """Return the FLOP/s of one kind of matrix product, a multiply-add counted as two; about 0.2 s."""
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    times, begun = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begun < 0.2:
        synchronise(device)
        started = time.perf_counter()
        left @ right
        synchronise(device)
        times.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(times)


def describe(device: str = "auto") -> str:
    """Say in a line what this was measured on, and when."""
    from fer_lightning.core.hardware import available_cores, choose_device, describe_machine

    machine = describe_machine(choose_device(device))
    where = machine["accelerator"] or f"{available_cores()} cores of {machine['cpu']}"
    if not machine["accelerator"]:
        kinds = [name for name, has in _instructions().items() if has]
        where += f" ({', '.join(kinds)})" if kinds else ""
    memory = f", {machine['memory_gib']:.0f} GiB" if machine.get("memory_gib") else ""
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    return f"{time.strftime('%Y-%m-%d')}: {where}{memory}; {versions}"


def _instructions() -> dict[str, bool]:
    return {
        "AVX-512": torch.cpu._is_avx512_supported(),
        "AVX-512 bf16": torch.cpu._is_avx512_bf16_supported(),
        "AMX": torch.cpu._is_amx_tile_supported(),
    }


def show(title: str, figures: Sequence[Figure]) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left")
    for column in ("figure", "median", "lowest", "highest", "n", "target", "verdict"):
        table.add_column(column, justify="left" if column in ("figure", "target", "verdict") else "right")
    for figure in figures:
        style = {"met": "green", "missed": "bold red"}.get(figure.verdict)
        table.add_row(*_cells(figure), style=style)
    console = Console(width=None if Console().is_terminal else 120)
    console.print(table)
    for figure in figures:
        if figure.note:
            console.print(f"  {figure.name}: {figure.note}", highlight=False, markup=False)


def _cells(figure: Figure) -> tuple[str, ...]:
    unit = f" {figure.unit}" if figure.unit not in ("", "x") else ""
    return (
        figure.name,
        f"{_digits(figure.median)}{unit}",
        _digits(min(figure.values)),
        _digits(max(figure.values)),
        str(len(figure.values)),
        figure.target,
        figure.verdict,
    )


def to_markdown(title: str, figures: Sequence[Figure]) -> str:
    """Write the table for README.md."""
    lines = [f"### {title}", "", "| figure | median | lowest to highest | n | target | |"]
    lines.append("| --- | --: | --: | --: | --- | --- |")
    for figure in figures:
        name, median, low, high, n, target, verdict = _cells(figure)
        note = f"{name} ({figure.note})" if figure.note else name
        lines.append(f"| {note} | {median} | {low} to {high} | {n} | {target} | {verdict} |")
    return "\n".join([*lines, ""])
