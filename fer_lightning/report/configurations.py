"""Configurations of compared runs: the settings in which they differ, means over seeds, their order."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fer_lightning.config.compare import flatten
from fer_lightning.config.stored import read_yaml
from fer_lightning.core.errors import FERError
from fer_lightning.evaluation.stats import Spread, spread
from fer_lightning.report.run_results import RunResults

_NO_COLUMN = ("resume", "run_dir", "model", "seed")  # places, and settings with a column of their own

# One row of summary.summarise_runs: the keys SUMMARY_KEYS, and "settings", a run's changed settings.
Row = dict[str, Any]


@dataclass(frozen=True)
class Configuration:
    """Runs that differ only in their seed, with results.

    Attributes:
        label: What sets it apart from the other configurations: the model and the changed settings.
        rows: At least one row of ``summary.summarise_runs``, in the order of their seeds.
        runs: The run of each; empty if only the rows are known.
    """

    label: str
    rows: tuple[Row, ...]
    runs: tuple[RunResults, ...] = ()

    @cached_property
    def first(self) -> Row:
        """The row of the first seed."""
        return self.rows[0]

    @property
    def title(self) -> str:
        """The label, with the number of seeds if there are several."""
        return f"{self.label}, {len(self.rows)} seeds" if len(self.rows) > 1 else self.label

    def spread(self, key: str) -> Spread | None:
        """Return mean and standard deviation of a column over the seeds; None if a run lacks it."""
        values = [row[key] for row in self.rows]
        return None if None in values else spread(values)

    def mean(self, key: str) -> float | None:
        """Return the mean of a column over the seeds; None if a run lacks it."""
        measured = self.spread(key)
        return None if measured is None else measured.mean


def changed_settings(runs: Sequence[RunResults]) -> list[dict[str, str]]:
    """Return for each run its value of each setting that was given for some run and is not equal for all.

    Model and seed are left out. A value that was not given is that of the run's config; a run that has no
    such setting has "". A damaged run has no settings.
    """
    whole = [run for run in runs if run.state != "damaged"]
    given = {id(run): _given(run) for run in whole}
    resolved = {id(run): _resolved(run) for run in whole}
    names = dict.fromkeys(name for words in given.values() for name in words)

    def value(run: RunResults, name: str) -> str:
        key = id(run)
        return resolved[key].get(name, given[key].get(name, ""))

    changed = [name for name in names if len({value(run, name) for run in whole}) > 1]
    short = {name: _shorten_numbers({value(run, name) for run in whole}) for name in changed}
    return [
        {name: short[name][value(run, name)] for name in changed} if run.state != "damaged" else {}
        for run in runs
    ]


def _shorten_numbers(texts: Collection[str]) -> dict[str, str]:
    """Write numbers among texts with the fewest digits, from 3, with which all texts stay different."""
    numbers = {text: number for text in texts if len(text) > 6 and (number := as_number(text)) is not None}
    for digits in range(3, 12):
        short = {text: f"{numbers[text]:.{digits}g}" if text in numbers else text for text in texts}
        if len(set(short.values())) == len(set(texts)):
            return short
    return {text: text for text in texts}


def _given(run: RunResults) -> dict[str, str]:
    """Return the values of a run's overrides by setting, normalised."""
    pairs = (override.lstrip("+").partition("=") for override in run.overrides)
    return {
        name.lstrip("~"): "removed" if name.startswith("~") else _normalise(value)
        for name, _, value in pairs
        if name not in _NO_COLUMN and not name.startswith("hydra.")
    }


def _resolved(run: RunResults) -> dict[str, str]:
    """Return the options that a run chose and the settings in its config, as texts."""
    try:
        config = read_yaml(run.folder / "config.yaml") or {}
    except FERError:
        config = {}
    flat = flatten(config) if isinstance(config, dict) else {}
    settings = {str(key): _normalise(value) for key, value in flat.items()}
    choices = run.info.get("choices")
    return settings | {
        str(group): _normalise(option)
        for group, option in (choices.items() if isinstance(choices, dict) else ())
        if option is not None
    }


def _normalise(value: Any) -> str:
    """Write a value as a text that is equal for equal numbers (``1e-3``, ``0.001``)."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value)
    number = as_number(text)
    return text if number is None else f"{number:.12g}"


def as_number(text: str) -> float | None:
    """Return the number that a setting's value is, or None."""
    try:
        return float(text) if text.strip("+-")[:1].isdigit() or text[:1] in ".-" else None
    except ValueError:
        return None


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Shorten dotted settings to their last part (``optimizer.lr`` to ``lr``) where that is unambiguous."""
    last = Counter(name.rpartition(".")[2] for name in names)
    return {
        name: short if last[short := name.rpartition(".")[2]] == 1 and len(short) > 1 else name
        for name in names
    }


def is_numeric(values: Sequence[str]) -> bool:
    """Return whether all values are numbers; empty ones do not count."""
    given = [value for value in values if value]
    return bool(given) and all(as_number(value) is not None for value in given)


def group_configurations(rows: Sequence[Row], runs: Sequence[RunResults] = ()) -> list[Configuration]:
    """Group the runs that have an accuracy into configurations with distinct labels.

    Args:
        rows: Rows of ``summary.summarise_runs``, one per run.
        runs: The runs, in the same order, if they are to be in the configurations. Damaged ones are left out.
    """
    members: dict[Any, list[int]] = {}
    for index, row in enumerate(rows):
        damaged = bool(runs) and runs[index].state == "damaged"
        if row["acc"] is not None and row["n"] and not damaged:
            members.setdefault(row["configuration"] or row["folder"], []).append(index)
    groups: list[list[int]] = []
    for indices in members.values():
        # Runs of one seed differ in what the config does not have, such as the checkpoint of an evaluation.
        repeated_seed = len({rows[index]["seed"] for index in indices}) == 1
        groups += [[index] for index in indices] if repeated_seed else [indices]
    firsts = [rows[indices[0]] for indices in groups]
    several_models = len({row["model"] for row in firsts}) > 1
    labels = [_label(row["model"], row["settings"], several_models) for row in firsts]
    repeated = {label for label, count in Counter(labels).items() if count > 1}
    configurations = []
    for label, indices in zip(labels, groups, strict=True):
        ordered = sorted(indices, key=lambda index: (rows[index]["seed"] is None, rows[index]["seed"] or 0))
        name = f"{label} ({rows[ordered[0]]['run']})" if label in repeated else label
        its_runs = tuple(runs[index] for index in ordered) if runs else ()
        configurations.append(Configuration(name, tuple(rows[index] for index in ordered), its_runs))
    return configurations


def _label(model: str, settings: Mapping[str, str], several_models: bool) -> str:
    short = short_names(list(settings))
    words = [f"{short[name]}={value}" for name, value in settings.items() if value]
    return " ".join([model, *words] if several_models or not words else words)


@dataclass(frozen=True)
class Ranking:
    """Configurations in the order of their accuracy, and what the order means.

    Attributes:
        configurations: The highest mean accuracy first.
        key: The column that orders them: ``val_acc`` if every run has one, else ``acc``.
        mark: ``best`` if the accuracy on val chose it, else ``highest``.
        marked: Labels of the configurations with the highest mean: one, or several that are equal; empty if
            there is nothing to compare.
        sentence: What orders them, and what the mark means.
    """

    configurations: tuple[Configuration, ...]
    key: str
    mark: str
    marked: frozenset[str]
    sentence: str


def rank(configurations: Sequence[Configuration], split: str, *, comparable: bool) -> Ranking:
    """Order configurations by val accuracy where each run has one, else by the reported split.

    The split that is reported chooses nothing: its highest accuracy is marked as such, not as the best.

    Args:
        configurations: With results.
        split: Name of the reported split.
        comparable: Whether all were evaluated on the same images; otherwise none is marked.
    """
    by_val = split != "val" and bool(configurations)
    by_val = by_val and all(each.mean("val_acc") is not None for each in configurations)
    key = "val_acc" if by_val else "acc"
    ordered = sorted(configurations, key=lambda each: -(each.mean(key) or 0.0))
    mark = "best" if by_val else "highest"
    marked: frozenset[str] = frozenset()
    if comparable and len(ordered) > 1:
        marked = frozenset(each.label for each in ordered if each.mean(key) == ordered[0].mean(key))
    return Ranking(tuple(ordered), key, mark, marked, _order_sentence(by_val, split, bool(marked)))


def _order_sentence(by_val: bool, split: str, is_marked: bool) -> str:
    if by_val:
        chosen = ", which chooses the best" if is_marked else ""
        return f"Sorted by val accuracy{chosen}. The {split} accuracy is only reported; it chooses nothing."
    if is_marked:
        return (
            f"Sorted by {split} accuracy. The highest is marked, but this is no selection: what is chosen by "
            "the reported split looks better there than it is."
        )
    return f"Sorted by {split} accuracy."
