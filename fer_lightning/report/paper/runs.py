"""Sort run folders into the networks and language models of the report.

Runs that cannot be used are left out with a reason; runs that are not comparable are an error.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_lightning.config.compare import REPETITION_KEYS, differences, flatten
from fer_lightning.config.stored import read_yaml
from fer_lightning.core.errors import FERError
from fer_lightning.data.audit.quality import FER2013_FINGERPRINT
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.report.paper import reference
from fer_lightning.report.run_results import RunResults, naming_damage, path_inside, read_run

# What tables and figures read from each split of metrics.json.
_REQUIRED_METRICS = {"acc", "ece", "confusion", "per_class"}


@dataclass(frozen=True)
class NetworkResults:
    """One network trained by one recipe: runs that differ only in their seed.

    Attributes:
        family: ``mlp``, ``cnn``, ``rnn``, ``resnet``, or the name of a user's model.
        improved: Whether the recipe is the improved one.
        runs: At least one run, in the order of their seeds.
        predictions: Predictions of the test split, one per run.
    """

    family: str
    improved: bool
    runs: tuple[RunResults, ...]
    predictions: tuple[Predictions, ...]

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config of the first run."""
        return read_yaml(self.runs[0].folder / "config.yaml") or {}

    @property
    def pretrained(self) -> bool:
        """Whether training started from ImageNet weights."""
        return bool((self.config.get("model") or {}).get("pretrained"))

    @property
    def label(self) -> str:
        """The name shown in tables, such as ``ResNet-34 (from scratch)``."""
        model = self.config.get("model") or {}
        name = reference.FAMILIES.get(self.family, self.family)
        if "depth" in model:
            name += f"-{model['depth']}"
        details = ["improved"] if self.improved else []
        if self.pretrained:
            details.append("pre-trained")
        elif "pretrained" in model and not self.improved:
            details.append("from scratch")
        return f"{name} ({', '.join(details)})" if details else name

    @property
    def on_papers_images(self) -> bool:
        """Whether it was tested on the images of the paper's Table 1."""
        return self.on_papers_data and self.num_images == reference.NUM_TEST

    @property
    def on_papers_data(self) -> bool:
        """Whether its data set is pixel for pixel FER-2013 as published."""
        return self.fingerprint == FER2013_FINGERPRINT

    @property
    def fingerprint(self) -> str:
        """The fingerprint of its data set."""
        return str(_data_info(self.runs[0]).get("fingerprint") or "unknown")

    @property
    def num_images(self) -> int:
        """Number of test images."""
        return len(self.predictions[0])

    @property
    def departures(self) -> list[str]:
        """Descriptions of each setting that differs from the paper's recipe."""
        config = flatten(self.config)
        found = [
            f"{setting.key}={config[setting.key]} (the paper: {setting.description})"
            for setting in reference.RECIPE
            if _differs(config.get(setting.key, setting.value), setting.value)
        ]
        run = self.runs[0]
        selected = run.metrics.get("selected_by") or run.info.get("selected_by") or "last"
        if selected != "last":
            found.append(f"the epoch selected by {selected} (the paper: the last one)")
        views, own = run.info.get("tta"), "flip" if config.get("classifier.flip_test") else "none"
        if views not in (None, own):
            found.append(f"predictor.tta={views} (the paper: one view of an image)")
        augmented = [
            f"{key}={value} (the paper: no augmentation)"
            for key, value in config.items()
            if key.startswith("data.augment.") and not key.endswith("._target_") and value
        ]
        return found + augmented

    def accuracies(self, images: NDArray[np.bool_] | None = None) -> list[float]:
        """Return the accuracy of each run, in [0, 1].

        Args:
            images: ``(N,)`` which of the test images count, at least one; None for all.
        """
        chosen = slice(None) if images is None else images
        return [float(part.correct[chosen].mean()) for part in self.predictions]


@dataclass(frozen=True)
class LLMResults:
    """The answers of one vision language model."""

    label: str
    run: RunResults
    predictions: Predictions


@dataclass(frozen=True)
class PaperRuns:
    """All runs of the report.

    Attributes:
        networks: In the order of Table 1, the paper's recipe before the improved one.
        llms: The language models.
        left_out: One sentence per run that is not used.
    """

    networks: tuple[NetworkResults, ...]
    llms: tuple[LLMResults, ...]
    left_out: tuple[str, ...]

    @property
    def runs(self) -> list[RunResults]:
        """Every run that is used."""
        return [run for network in self.networks for run in network.runs] + [llm.run for llm in self.llms]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, which are the same for all predictors."""
        predictors = [network.predictions[0] for network in self.networks]
        return [*predictors, *(llm.predictions for llm in self.llms)][0].classes

    def with_recipe(self, *, improved: bool) -> list[NetworkResults]:
        """Return the networks of one recipe."""
        return [network for network in self.networks if network.improved == improved]

    @property
    def no_results(self) -> str:
        """The reason why the numbers are not results: limited runs, synthetic faces; empty for whole runs."""
        reasons = []
        if any(run.limited for run in self.runs):
            reasons.append("leave images out")
        if any(run.synthetic for run in self.runs):
            reasons.append("are on synthetic faces")
        which = (
            "These runs" if all(run.limited or run.synthetic for run in self.runs) else "Some of these runs"
        )
        return f"{which} {' and '.join(reasons)}" if reasons else ""

    @property
    def recipe(self) -> str:
        """A description of the recipe of the networks that are not of the improved one."""
        departing = any(network.departures for network in self.with_recipe(improved=False))
        return "recipes that depart from the paper's" if departing else "the paper's recipe"


def collect_runs(folders: Iterable[Path]) -> PaperRuns:
    """Sort runs into networks and language models.

    Args:
        folders: Run folders of ``train.py`` and ``eval.py``.

    Raises:
        FERError: No run can be used; or the runs have different data or classes; or runs of one network
            differ in more than their seed.
    """
    left_out: list[str] = []
    trained: list[tuple[RunResults, Predictions]] = []
    llms: list[LLMResults] = []
    seen: set[Path] = set()
    for folder in folders:
        try:
            with naming_damage(folder):
                run = read_run(folder)
        except (FERError, OSError) as error:
            left_out.append(f"{folder.name} is left out: {error}.")
            continue
        if run.folder.resolve() in seen:
            left_out.append(f"{run.folder.name} was given twice, and counts once.")
            continue
        seen.add(run.folder.resolve())
        if run.model == "ensemble":
            left_out.append(f"{run.folder.name} is left out: it is an ensemble.")
            continue
        path, reason = _predictions_file(run)
        if path is None:
            left_out.append(f"{run.folder.name} is left out: {reason}.")
            continue
        try:
            predictions = Predictions.load(path)
        except FERError as error:
            left_out.append(f"{run.folder.name} is left out: {error}.")
            continue
        if _is_llm(run):
            llms.append(LLMResults(_unique_label(run, {llm.label for llm in llms}), run, predictions))
        else:
            trained.append((run, predictions))
    if not trained and not llms:
        raise FERError(f"no run to report on: {' '.join(left_out)}")
    _check_same_data([*trained, *((llm.run, llm.predictions) for llm in llms)])
    return PaperRuns(tuple(_group_networks(trained, left_out)), tuple(llms), tuple(left_out))


def _data_info(run: RunResults) -> dict[str, Any]:
    return run.info.get("data") or {}


def _is_llm(run: RunResults) -> bool:
    return run.info.get("predictor") == "llm"


def _is_improved(run: RunResults) -> bool:
    """Return whether a run has the improved recipe; a resumed or evaluated run may lack the override."""
    config = flatten(read_yaml(run.folder / "config.yaml") or {})
    named = any(override.startswith("experiment=improved") for override in run.overrides)
    return bool(config.get("classifier.ema_decay") or named)


def _differs(value: object, papers: object) -> bool:
    """Return whether a setting is not the paper's; a limit of 1 is one batch, of 1.0 all batches."""
    return value != papers or (papers == 1.0 and isinstance(value, int))


def _unique_label(run: RunResults, taken: set[str]) -> str:
    label, number = run.model, 1
    while label in taken:
        suffix = run.folder.name if number == 1 else f"{run.folder.name}, {number}"
        label, number = f"{run.model} ({suffix})", number + 1
    return label


def _predictions_file(run: RunResults) -> tuple[Path | None, str]:
    """Return the predictions of a run's test images, or None and the reason why the run cannot be used."""
    if run.state != "finished":
        reasons = {
            "running": "it is still running, or was killed",
            "unknown": "its state is unknown",
            "interrupted": "it was interrupted",
        }
        details = f" ({run.info['reason']})" if run.info.get("reason") else ""
        return None, reasons.get(run.state, f"it {run.state}") + details
    splits = ("test", "all", "val", "train") if _is_llm(run) else ("test",)
    for split in splits:
        path, metrics = path_inside(run.folder, f"predictions_{split}.npz"), run.metrics.get(split)
        if path.exists() and metrics:
            missing = _REQUIRED_METRICS - (metrics.keys() if isinstance(metrics, dict) else set())
            if missing:
                return None, f"its metrics.json has no {', '.join(sorted(missing))} of the {split} split"
            return path, ""
    return None, f"it has no predictions and metrics of the {splits[0]} split"


def _check_same_data(predictors: Sequence[tuple[RunResults, Predictions]]) -> None:
    first, first_predictions = predictors[0]
    for run, predictions in predictors[1:]:
        ours, theirs = _data_info(first).get("fingerprint"), _data_info(run).get("fingerprint")
        if first.dataset != run.dataset or (ours and theirs and ours != theirs):
            raise FERError(
                f"{first.folder} is a run on {first.dataset} ({ours}), {run.folder} on {run.dataset} "
                f"({theirs}): results on different data are not comparable; name runs of one data set"
            )
        if first_predictions.classes != predictions.classes:
            raise FERError(
                f"{first.folder} has the classes {', '.join(first_predictions.classes)}, {run.folder} has "
                f"{', '.join(predictions.classes)}; name runs with the same classes"
            )


def _group_networks(
    trained: Sequence[tuple[RunResults, Predictions]], left_out: list[str]
) -> list[NetworkResults]:
    """Merge the runs of each network and sort the networks as in Table 1."""
    rows: dict[tuple[str, bool, bool], list[NetworkResults]] = {}
    for run, predictions in trained:
        single = NetworkResults(run.model, _is_improved(run), (run,), (predictions,))
        rows.setdefault((single.family, single.improved, single.pretrained), []).append(single)
    networks = [_merge(members, left_out) for members in rows.values()]
    order = list(reference.FAMILIES)

    def position(network: NetworkResults) -> tuple[bool, int, bool]:
        family = order.index(network.family) if network.family in order else len(order)
        return network.improved, family, not network.pretrained

    return sorted(networks, key=position)


def _merge(members: list[NetworkResults], left_out: list[str]) -> NetworkResults:
    """Merge single runs of one family: those of the paper's recipe if there are any."""
    papers = [
        member
        for member in members
        if "experiment=paper" in member.runs[0].overrides or not member.departures
    ]
    kept = papers or members
    left_out += [
        f"{member.runs[0].folder.name} is left out: {member.label} also has runs of the paper's recipe."
        for member in members
        if member not in kept
    ]
    first = kept[0]
    by_seed: dict[Any, NetworkResults] = {}
    for member in kept:
        _check_repetition(first, member)
        run = member.runs[0]
        seed = run.info.get("seed")
        if seed in by_seed:
            left_out.append(f"{run.folder.name} is left out: there is another run with seed {seed}.")
        by_seed.setdefault(seed, member)
    ordered = sorted(by_seed.values(), key=lambda member: member.runs[0].info.get("seed") or 0)
    return NetworkResults(
        first.family,
        first.improved,
        tuple(member.runs[0] for member in ordered),
        tuple(member.predictions[0] for member in ordered),
    )


def _check_repetition(first: NetworkResults, other: NetworkResults) -> None:
    """Check that two runs of one network differ only in their seed."""
    folders = f"{first.runs[0].folder} and {other.runs[0].folder}"
    differing = differences(first.config, other.config, REPETITION_KEYS, in_both=True)
    if differing:
        raise FERError(
            f"{folders} are runs of {first.label} that differ in {', '.join(differing)}; name runs that "
            "differ only in their seed"
        )
    if not np.array_equal(first.predictions[0].ids, other.predictions[0].ids):
        raise FERError(
            f"{folders} are runs of {first.label} that were tested on different images; name runs with the "
            "same test split"
        )
