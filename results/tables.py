"""The tables of README and docs as Markdown, made from the records."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from fer_lightning.evaluation.stats import spread, wilson_interval
from fer_lightning.report.paper import reference
from fer_lightning.report.paper.runs import NetworkResults, collect_runs
from results.records import HERE, record_folders


def networks(prefix: str, where: Path = HERE) -> list[NetworkResults]:
    """Return the networks whose records' names begin with a prefix and are on the paper's 7,178 images."""
    folders = [
        folder
        for folder in record_folders(where)
        if folder.name.startswith(prefix) and "_official_" not in folder.name
    ]
    return list(collect_runs(folders).networks) if folders else []


def paper(where: Path = HERE) -> str:
    """Table 1 of the paper, repeated."""
    found = {network.label: network for network in networks("paper_", where)}
    rows = [_row(network) for network in found.values()]
    return _table(_HEADERS, rows)


def improved(where: Path = HERE) -> str:
    """The same families with the techniques that the paper left out."""
    headers = (*_HEADERS[:-1], "PrivateTest alone", _HEADERS[-1])
    rows = []
    for network in networks("improved_", where):
        row = _row(network)
        private = np.char.startswith(network.predictions[0].ids, "test/")
        rows.append((*row[:-1], _with_interval(network.accuracies(private), int(private.sum())), row[-1]))
    return _table(headers, rows)


TABLES: dict[str, Callable[[Path], str]] = {"paper": paper, "improved": improved}

_HEADERS = ("model", "parameters", "seeds", "test acc", "sd", "95 % CI", "leak-free test acc", "the paper")


def _row(network: NetworkResults) -> tuple[str, ...]:
    accuracies = network.accuracies()
    accuracy, n = spread(accuracies), network.num_images
    kept = ~network.predictions[0].leaked
    low, high = wilson_interval(accuracy.mean, n)
    papers = reference.TABLE_1.get(network.family)
    published = "" if papers is None else f"{100 * papers:.2f}"
    if network.family == "resnet" and not network.pretrained:
        published += ", pre-trained"
    parameters = network.runs[0].info["num_parameters"]
    return (
        network.label.replace(" (improved)", ""),
        f"{parameters / 1e6:.2f} M",
        str(len(accuracies)),
        f"**{100 * accuracy.mean:.2f}**",
        "-" if accuracy.sd is None else f"{100 * accuracy.sd:.2f}",
        f"{100 * low:.1f}-{100 * high:.1f}",
        _with_interval(network.accuracies(kept), int(kept.sum())),
        published,
    )


def _with_interval(accuracies: Sequence[float], n: int) -> str:
    mean = spread(accuracies).mean
    low, high = wilson_interval(mean, n)
    return f"{100 * mean:.2f} ({100 * low:.1f}-{100 * high:.1f})"


def _table(headers: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    headers = list(headers)
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
