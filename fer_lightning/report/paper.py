"""From run folders to what can be said of the paper's questions: who may be compared with whom, and on what.

Runs that cannot be used are left out with a sentence; runs that must not stand side by side are refused.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.config.compare import flatten
from fer_lightning.config.stored import read_yaml
from fer_lightning.core.errors import FERError
from fer_lightning.data.audit.quality import FER2013_FINGERPRINT
from fer_lightning.data.sampling import MANIFEST, draw_sample, read_manifest
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.evaluation.stats import PairedTest, compare_pairs, holm, mcnemar_exact
from fer_lightning.report import reference
from fer_lightning.report.runs import Run, read_run, within

_MEASURED = {"acc", "ece", "confusion", "per_class"}  # what tables and figures take from metrics.json

# In these, repetitions of one configuration differ.
_FREE = {
    *("seed", "resume", "run_dir", "num_threads", "data.seed", "data.root", "data.cache_dir"),
    *("trainer.accelerator", "trainer.devices"),
}


@dataclass(frozen=True)
class Group:
    """One network under one recipe: runs that differ in their seed.

    Attributes:
        family: ``mlp``, ``cnn``, ``rnn``, ``resnet``, or a model of one's own.
        improved: Whether the recipe is the improved one, as its config tells.
        runs: By seed, at least one.
        predictions: Of the test split, run for run.
    """

    family: str
    improved: bool
    runs: tuple[Run, ...]
    predictions: tuple[Predictions, ...]

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config of the first run."""
        return read_yaml(self.runs[0].folder / "config.yaml") or {}

    @property
    def pretrained(self) -> bool:
        """Whether it started from ImageNet weights."""
        return bool((self.config.get("model") or {}).get("pretrained"))

    @property
    def label(self) -> str:
        """What people call it, such as ``ResNet-34 (from scratch)``."""
        model = self.config.get("model") or {}
        name = reference.FAMILIES.get(self.family, self.family)
        if "depth" in model:
            name += f"-{model['depth']}"
        words = ["improved"] * self.improved
        if self.pretrained:
            words.append("pre-trained")
        elif "pretrained" in model and not self.improved:
            words.append("from scratch")
        return f"{name} ({', '.join(words)})" if words else name

    @property
    def on_papers_images(self) -> bool:
        """Whether it was tested on the very images of the paper's Table 1."""
        return self.on_papers_data and self.n == reference.NUM_TEST

    @property
    def on_papers_data(self) -> bool:
        """Whether its data were FER-2013 as published, pixel for pixel."""
        return self.fingerprint == FER2013_FINGERPRINT

    @property
    def fingerprint(self) -> str:
        """The fingerprint of its data."""
        return str(_data(self.runs[0]).get("fingerprint") or "unknown")

    @property
    def n(self) -> int:
        """Number of test images."""
        return len(self.predictions[0])

    @property
    def departures(self) -> list[str]:
        """Where its recipe is not the paper's, in words."""
        config = flatten(self.config)
        found = [
            f"{setting.key}={config[setting.key]} (the paper: {setting.words})"
            for setting in reference.RECIPE
            if _departs(config.get(setting.key, setting.value), setting.value)
        ]
        run = self.runs[0]
        selected = run.metrics.get("selected_by") or run.info.get("selected_by") or "last"
        if selected != "last":
            found.append(f"the epoch selected by {selected} (the paper: the last one)")
        augmented = [
            f"{key}={value} (the paper: no augmentation)"
            for key, value in config.items()
            if key.startswith("data.augment.") and not key.endswith("._target_") and value
        ]
        return found + augmented

    def accuracy(self, images: NDArray[np.bool_]) -> list[float]:
        """Give the accuracy of each run on some of its images, of which there is at least one."""
        return [float(right(part)[images].mean()) for part in self.predictions]


@dataclass(frozen=True)
class LanguageModel:
    """What a vision language model answered."""

    label: str
    run: Run
    predictions: Predictions


class Sample(NamedTuple):
    """The images of Table 2: their ids, and how they came to be chosen."""

    ids: NDArray[np.str_]
    origin: str


class Comparison(NamedTuple):
    """Predictors on the same images, best first, and a paired test of every two.

    Attributes:
        predictions: By label, row for row the same images.
        tests: The first of each pair answered more images rightly, or as many.
        apart: Sentences on predictors that were tested on other images.
    """

    predictions: dict[str, Predictions]
    tests: list[PairedTest]
    apart: list[str]

    @property
    def n(self) -> int:
        """Number of images."""
        return max((len(predictions) for predictions in self.predictions.values()), default=0)

    def test(self, first: str, second: str) -> PairedTest:
        """Find the test of two predictors, the better one first."""
        return next(test for test in self.tests if {test.first, test.second} == {first, second})


NOBODY = Comparison({}, [], [])


@dataclass(frozen=True)
class PaperRuns:
    """All that the report is made of.

    Attributes:
        groups: Networks, in the order of Table 1, the paper's recipe before the improved one.
        language_models: What they answered.
        left_out: A sentence on each run that is not used.
    """

    groups: tuple[Group, ...]
    language_models: tuple[LanguageModel, ...]
    left_out: tuple[str, ...]

    @property
    def runs(self) -> list[Run]:
        """Every run that is used."""
        return [run for group in self.groups for run in group.runs] + [m.run for m in self.language_models]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, which all predictors share."""
        predictors = [group.predictions[0] for group in self.groups]
        return [*predictors, *(model.predictions for model in self.language_models)][0].classes

    def block(self, *, improved: bool) -> list[Group]:
        """Give the networks of one recipe."""
        return [group for group in self.groups if group.improved == improved]

    @property
    def recipe(self) -> str:
        """What the networks that are not of the improved recipe may be said to be trained by."""
        departing = any(group.departures for group in self.block(improved=False))
        return "recipes that depart from the paper's" if departing else "the paper's recipe"


def collect(folders: Iterable[Path]) -> PaperRuns:
    """Sort runs into networks and language models.

    Args:
        folders: Run folders of ``train.py`` and ``eval.py``.

    Raises:
        FERError: If no run can be used, or if runs are of different data, classes or configurations that one
            row would have to mix.
    """
    left_out: list[str] = []
    networks: list[tuple[Run, Predictions]] = []
    language_models: list[LanguageModel] = []
    seen: set[Path] = set()
    for run in map(read_run, folders):
        if run.folder.resolve() in seen:
            left_out.append(f"{run.folder.name} was named twice, and counts once.")
            continue
        seen.add(run.folder.resolve())
        path, reason = _predictions_file(run)
        if path is None:
            left_out.append(f"{run.folder.name} is left out: {reason}.")
            continue
        predictions = Predictions.load(path)
        if _is_language_model(run):
            label = _free_label(run, {model.label for model in language_models})
            language_models.append(LanguageModel(label, run, predictions))
        else:
            networks.append((run, predictions))
    if not networks and not language_models:
        raise FERError(f"no run to report on: {' '.join(left_out)}")
    _check_same_data([(run, p) for run, p in networks] + [(m.run, m.predictions) for m in language_models])
    return PaperRuns(tuple(_groups(networks, left_out)), tuple(language_models), tuple(left_out))


def choose_sample(evidence: PaperRuns) -> Sample | None:
    """Choose the images of Table 2.

    Returns:
        The list that the language models were asked about; without one, 5 images a class, drawn with seed 0
        from what all networks were tested on. None if there are not as many.

    Raises:
        FERError: If language models were asked about different images.
    """
    lists = {model.label: _manifest_ids(model) for model in evidence.language_models}
    if lists:
        first, *others = lists
        for other in others:
            if set(lists[other].tolist()) != set(lists[first].tolist()):
                raise FERError(
                    f"{first} and {other} were asked about different images; report them apart, or ask both "
                    "with the same sample=PATH"
                )
        return Sample(lists[first], f"the {len(lists[first]):,} images that {first} was asked about")
    tested = [group.predictions[0] for group in evidence.groups]
    shared = np.isin(tested[0].ids, list(set.intersection(*(set(part.ids.tolist()) for part in tested))))
    candidates = tested[0].subset(shared)
    if np.bincount(candidates.labels, minlength=len(candidates.classes)).min() < reference.PER_CLASS:
        return None
    rows = draw_sample(candidates.labels, per_class=reference.PER_CLASS, seed=0)
    origin = f"{len(rows):,} images, {reference.PER_CLASS} a class, drawn with seed 0 from the test images"
    return Sample(candidates.ids[rows], origin)


def compare_predictors(
    predictions: dict[str, Predictions], ids: NDArray[np.str_] | None = None
) -> Comparison:
    """Test every two predictors on the same images.

    Args:
        predictions: By label.
        ids: The images; None for those on which most of the predictors were tested.
    """
    if ids is None:
        images = [frozenset(part.ids.tolist()) for part in predictions.values()]
        chosen = max(images, key=lambda those: (images.count(those), len(those)), default=frozenset())
        ids = np.array(sorted(chosen))
    aligned, apart = {}, []
    for label, part in predictions.items():
        position = {image: row for row, image in enumerate(part.ids.tolist())}
        rows = [position[image] for image in ids.tolist() if image in position]
        if len(rows) == len(ids):
            aligned[label] = part.subset(np.array(rows, dtype=np.int64))
        else:
            apart.append(
                f"{label} cannot be compared here: {len(rows):,} of these {len(ids):,} images were among the "
                f"{len(part):,} on which it was tested."
            )
    ranked = dict(sorted(aligned.items(), key=lambda item: -int(right(item[1]).sum())))
    tests = compare_pairs({label: right(part) for label, part in ranked.items()}) if len(ranked) > 1 else []
    return Comparison(ranked, tests, apart)


def leak_free(contest: Comparison) -> Comparison:
    """Hold a contest again, on the images of which no predictor was trained or selected on a copy."""
    parts = contest.predictions
    if not parts:
        return contest
    kept = ~np.any([part.leaked for part in parts.values()], axis=0)
    return (
        compare_predictors({label: part.subset(kept) for label, part in parts.items()})
        if kept.any()
        else NOBODY
    )


def right(predictions: Predictions) -> NDArray[np.bool_]:
    """Tell for each image whether its answer was right; no answer is not."""
    correct: NDArray[np.bool_] = predictions.predicted == predictions.labels
    return correct


class Bounds(NamedTuple):
    """What the paper's Table 2 allows of two of its rows.

    Attributes:
        first: The row with more right answers, or as many.
        second: The other.
        difference: Of their shares of right answers.
        p_low: The smallest p, after Holm, that an exact McNemar test of the 35 pairs can have had.
        p_high: The largest.
    """

    first: str
    second: str
    difference: float
    p_low: float
    p_high: float


def bound_papers_table_2() -> list[Bounds]:
    """Bound the paired tests of the paper's Table 2.

    Which images two rows both had right is not printed, but each class allows only so much: of 5 images with
    a and b right answers, between max(0, a + b - 5) and min(a, b) were right in both. For a given difference
    the exact McNemar p rises with the number of images on which the rows disagree, so that the extremes
    bound it; Holm's correction keeps the order of bounds.
    """
    ranked = sorted(reference.TABLE_2.items(), key=lambda row: -sum(row[1]))
    pairs, lows, highs = [], [], []
    for (first, a), (second, b) in combinations(ranked, 2):
        most = [min(x, y) for x, y in zip(a, b, strict=True)]
        least = [max(0, x + y - reference.PER_CLASS) for x, y in zip(a, b, strict=True)]
        lows.append(mcnemar_exact(sum(a) - sum(most), sum(b) - sum(most)))
        highs.append(mcnemar_exact(sum(a) - sum(least), sum(b) - sum(least)))
        pairs.append((first, second, (sum(a) - sum(b)) / (reference.PER_CLASS * len(a))))
    return [Bounds(*pair, low, high) for pair, low, high in zip(pairs, holm(lows), holm(highs), strict=True)]


def _free_label(run: Run, taken: set[str]) -> str:
    """Name a language model as no other is named."""
    label, number = run.model, 1
    while label in taken:
        told = run.folder.name if number == 1 else f"{run.folder.name}, {number}"
        label, number = f"{run.model} ({told})", number + 1
    return label


def _is_language_model(run: Run) -> bool:
    return run.info.get("predictor") == "llm"


def _is_improved(run: Run) -> bool:
    """Tell the recipe by what it alone sets; a resumed or evaluated run may lack the override."""
    config = flatten(read_yaml(run.folder / "config.yaml") or {})
    named = {"experiment=improved", "recipe=improved"} & set(run.overrides)
    return bool(config.get("classifier.ema_decay") or named)


def _departs(value: object, papers: object) -> bool:
    """Tell whether a setting is not the paper's; a limit of 1 is one batch, of 1.0 all of them."""
    return value != papers or (papers == 1.0 and isinstance(value, int))


def _data(run: Run) -> dict[str, Any]:
    return run.info.get("data") or {}


def _predictions_file(run: Run) -> tuple[Path | None, str]:
    """Find what a run said of its test images, or why that does not count."""
    if run.state != "finished":
        states = {"running": "it has not ended, or was killed", "unknown": "nothing says that it finished"}
        reason = f" ({run.info['reason']})" if run.info.get("reason") else ""
        return None, states.get(run.state, f"it {'was ' * (run.state == 'interrupted')}{run.state}") + reason
    splits = ("test", "all", "val", "train") if _is_language_model(run) else ("test",)
    for split in splits:
        path, measured = within(run.folder, f"predictions_{split}.npz"), run.metrics.get(split)
        if path.exists() and measured:
            missing = _MEASURED - measured.keys() if isinstance(measured, dict) else _MEASURED
            if missing:
                return None, f"its metrics.json has no {', '.join(sorted(missing))} of the {split} split"
            return path, ""
    return None, f"it holds no predictions and metrics of the {splits[0]} split"


def _check_same_data(predictors: Sequence[tuple[Run, Predictions]]) -> None:
    first, told = predictors[0]
    for run, predictions in predictors[1:]:
        ours, theirs = _data(first).get("fingerprint"), _data(run).get("fingerprint")
        if first.dataset != run.dataset or (ours and theirs and ours != theirs):
            raise FERError(
                f"{first.folder} is a run on {first.dataset} ({ours}), {run.folder} on {run.dataset} "
                f"({theirs}): numbers on different data do not compare; name runs of one data set"
            )
        if told.classes != predictions.classes:
            raise FERError(
                f"{first.folder} knows the classes {', '.join(told.classes)}, {run.folder} "
                f"{', '.join(predictions.classes)}; name runs with the same classes"
            )


def _groups(networks: Sequence[tuple[Run, Predictions]], left_out: list[str]) -> list[Group]:
    rows: dict[tuple[str, bool, bool], list[Group]] = {}
    for run, predictions in networks:
        group = Group(run.model, _is_improved(run), (run,), (predictions,))
        rows.setdefault((group.family, group.improved, group.pretrained), []).append(group)
    order = list(reference.FAMILIES)
    groups = [_merge(members, left_out) for members in rows.values()]
    place = {group.family: order.index(group.family) for group in groups if group.family in order}
    return sorted(
        groups, key=lambda group: (group.improved, place.get(group.family, len(order)), not group.pretrained)
    )


def _merge(members: list[Group], left_out: list[str]) -> Group:
    """Make one row of runs of one family: those of the paper's recipe if it has any."""
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
    seeds: dict[Any, Group] = {}
    for member in kept:
        run = member.runs[0]
        differing = _differing(first.config, member.config)
        if differing:
            raise FERError(
                f"{first.runs[0].folder} and {run.folder} are runs of {first.label} that differ in "
                f"{', '.join(differing)}; name runs that differ in their seed alone"
            )
        if not np.array_equal(first.predictions[0].ids, member.predictions[0].ids):
            raise FERError(
                f"{first.runs[0].folder} and {run.folder} are runs of {first.label} that were tested on "
                "different images; name runs with the same test split"
            )
        if run.info.get("seed") in seeds:
            left_out.append(f"{run.folder.name} is left out: seed {run.info.get('seed')} is there already.")
        seeds.setdefault(run.info.get("seed"), member)
    ordered = sorted(seeds.values(), key=lambda member: member.runs[0].info.get("seed") or 0)
    return Group(
        first.family,
        first.improved,
        tuple(member.runs[0] for member in ordered),
        tuple(member.predictions[0] for member in ordered),
    )


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Name the settings that differ; one that is absent on a side came with another version."""
    left, right = flatten(one), flatten(other)
    return [
        key
        for key in sorted(left.keys() & right.keys())
        if key not in _FREE and not key.startswith("logger") and left[key] != right[key]
    ]


def _manifest_ids(model: LanguageModel) -> NDArray[np.str_]:
    manifest = within(model.run.folder, MANIFEST)
    if not manifest.exists():  # it was asked about the whole split
        return model.predictions.ids
    return np.array([entry.id for entry in read_manifest(manifest)])
