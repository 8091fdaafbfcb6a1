"""The tables of README and docs as Markdown, made from the records."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fer_lightning.core.errors import FERError
from fer_lightning.evaluation.stats import spread, wilson_interval
from fer_lightning.report.paper import reference
from fer_lightning.report.paper.runs import NetworkResults, collect_runs
from results.records import HERE, record_folders


class Accuracies(NamedTuple):
    """Accuracies of one network, one per seed, in [0, 1], on the same images.

    Attributes:
        values: At least one.
        n: Number of images.
    """

    values: Sequence[float]
    n: int

    def __str__(self) -> str:
        return f"{100 * spread(self.values).mean:.2f}"

    @property
    def interval(self) -> str:
        """Wilson's 95 % CI of the mean, in percent."""
        low, high = wilson_interval(spread(self.values).mean, self.n)
        return f"{100 * low:.1f}-{100 * high:.1f}"


class Row(NamedTuple):
    """One network in a table.

    Attributes:
        family: ``mlp``, ``cnn``, ``rnn`` or ``resnet``.
        model: Its name.
        parameters: Number of parameters.
        acc: On all images.
        leak_free: On the images without a duplicate in what trained it.
        private: On PrivateTest.
    """

    family: str
    model: str
    parameters: int
    acc: Accuracies
    leak_free: Accuracies
    private: Accuracies


COLUMNS: dict[str, Callable[[Row], str]] = {
    "model": lambda row: row.model,
    "parameters": lambda row: f"{row.parameters / 1e6:.2f} M",
    "n": lambda row: str(len(row.acc.values)),
    "test acc": lambda row: f"**{row.acc}**",
    "sd": lambda row: "-" if (sd := spread(row.acc.values).sd) is None else f"{100 * sd:.2f}",
    "95 % CI": lambda row: row.acc.interval,
    "test acc, 95 % CI": lambda row: f"**{row.acc}** ({row.acc.interval})",
    "leak-free": lambda row: str(row.leak_free),
    "leak-free, 95 % CI": lambda row: f"{row.leak_free} ({row.leak_free.interval})",
    "PrivateTest": lambda row: f"{row.private} ({row.private.interval})",
    "the paper": lambda row: _papers(row.family),
}
TABLES = ("paper", "improved", "official")
_OFFICIAL = "_official_"  # in the names of records whose epoch PublicTest chose, tested on PrivateTest


def rows(name: str, where: Path = HERE) -> list[Row]:
    """Return the rows of a table, the most accurate network first.

    Args:
        name: ``paper``: Table 1 of the paper, repeated; ``improved``: the same families with the techniques
            that the paper left out; ``official``: these with the challenge's own splits.
        where: The folder of the records.
    """
    found: dict[str, Row] = {}
    for network in networks(name, where):
        if network.family in found:
            raise FERError(f"results: two networks of the family {network.family} have records for {name}")
        found[network.family] = _from_records(network)
    return sorted(found.values(), key=lambda row: -spread(row.acc.values).mean)


def networks(name: str, where: Path = HERE) -> list[NetworkResults]:
    """Return the networks of a table whose records are in a folder."""
    folders = [
        folder
        for folder in record_folders(where)
        if name == ("official" if _OFFICIAL in folder.name else folder.name.partition("_")[0])
    ]
    return list(collect_runs(folders).networks) if folders else []


def table(name: str, columns: Sequence[str], *, where: Path = HERE) -> str:
    """Make a table as Markdown.

    Args:
        name: One of ``TABLES``.
        columns: Of ``COLUMNS``.
        where: The folder of the records.

    Raises:
        FERError: If there is no such table or column.
    """
    if name not in TABLES:
        raise FERError(f"results: {name}: no such table, expected one of {', '.join(TABLES)}")
    for column in columns:
        if column not in COLUMNS:
            raise FERError(f"results: {column!r}: no such column, expected one of {', '.join(COLUMNS)}")
    found = rows(name, where)
    lines: list[Iterable[str]] = [columns, ["---"] * len(columns)]
    lines += [[COLUMNS[column](row) for column in columns] for row in found]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _from_records(network: NetworkResults) -> Row:
    first = network.predictions[0]
    private, kept = np.char.startswith(first.ids, "test/"), ~first.leaked
    return Row(
        network.family,
        network.label.replace(" (improved)", ""),
        int(network.runs[0].info["num_parameters"]),
        Accuracies(network.accuracies(), network.num_images),
        Accuracies(network.accuracies(kept), int(kept.sum())),
        Accuracies(network.accuracies(private), int(private.sum())),
    )


def _papers(family: str) -> str:
    published = f"{100 * reference.TABLE_1[family]:.2f}"
    return f"{published}, pre-trained" if family == "resnet" else published
