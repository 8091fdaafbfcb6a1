"""The search space: overrides in Hydra's own grammar, read as Optuna's distributions."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hydra.core.override_parser.types import Override, QuotedString
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from fer_lightning.core.errors import FERError

_EXAMPLES = "'optimizer.lr=tag(log,interval(1e-4,1e-2))', data.batch_size=32,64,128"


class Dimension(NamedTuple):
    """What a trial chooses of one setting.

    Attributes:
        distribution: Of the values.
        texts: How an override spells each choice; None for numbers of an interval or a range.
    """

    distribution: BaseDistribution
    texts: Mapping[Any, str] | None = None


class Space(NamedTuple):
    """The settings of a trial.

    Attributes:
        fixed: Override keys -> values, the same for all trials.
        searched: Override keys -> what each trial chooses.
    """

    fixed: dict[str, str]
    searched: dict[str, Dimension]

    def suggest(self, trial: Trial) -> list[str]:
        """Choose a value of every setting; what the trial has chosen before stays.

        Returns:
            The overrides of the trial's job.

        Raises:
            FERError: If the study has other spaces.
        """
        overrides = [f"{key}={value}" for key, value in self.fixed.items()]
        for key, (distribution, texts) in self.searched.items():
            try:
                value = _suggest(trial, key, distribution)
            except ValueError as error:
                raise FERError(
                    f"{key}: the study in this folder has other choices or another range than this search "
                    f"({error}); begin another search in another hydra.sweep.dir"
                ) from error
            overrides.append(f"{key}={value if texts is None else texts[value]}")
        return overrides


def read_space(overrides: Sequence[Override]) -> Space:
    """Divide overrides into fixed ones and those that a search chooses; later ones win.

    Args:
        overrides: ``choice(a,b)``, ``a,b``, ``range(1,5)``, ``interval(0.1,0.5)`` and
            ``tag(log,interval(1e-4,1e-2))`` are searched. An interval holds floats, and integers as
            ``int(interval(1,64))``; a range holds what a plain sweep over it would run.

    Raises:
        FERError: If there is nothing to search, or an override is no space.
    """
    fixed: dict[str, str] = {}
    searched: dict[str, Dimension] = {}
    for override in overrides:
        key = override.get_key_element()
        fixed.pop(key, None)
        searched.pop(key, None)
        if not override.is_sweep_override():
            fixed[key] = override.get_value_element_as_str()
            continue
        if key.lstrip("+") == "seed":
            raise FERError(
                f"{override.input_line}: a search over seeds chooses the luckiest; search with one seed, "
                "then train the best settings with several"
            )
        try:
            searched[key] = _dimension(override)
        except ValueError as error:
            raise FERError(f"{override.input_line}: {error}") from error
    if not searched:
        raise FERError(
            f"hydra/sweeper=optuna: there is nothing to search; choose hparams_search=cnn or give {_EXAMPLES}"
        )
    return Space(fixed, searched)


def _suggest(trial: Trial, key: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(
            key, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            key, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    assert isinstance(distribution, CategoricalDistribution)
    return trial.suggest_categorical(key, distribution.choices)


def _dimension(override: Override) -> Dimension:
    value: Any = override.value()
    if override.is_interval_sweep():
        low, high, log = value.start, value.end, "log" in value.tags
        if isinstance(low, float) or isinstance(high, float):
            return Dimension(FloatDistribution(float(low), float(high), log=log))
        return Dimension(IntDistribution(low, high, log=log))
    value.shuffle = False  # the order of the choices means nothing to a search
    values: list[Any] = list(override.sweep_iterator())
    texts = list(override.sweep_string_iterator())
    if not texts:
        raise ValueError("there is no value in it")
    if override.is_range_sweep():
        low, high, step = min(values), max(values), abs(value.step)
        if all(isinstance(number, int) for number in values):
            return Dimension(IntDistribution(low, high, step=step))
        return Dimension(FloatDistribution(low, high, step=step))
    choices = [_choice(each, text) for each, text in zip(values, texts, strict=True)]
    if len(set(choices)) < len(set(texts)):  # 1 and true are one key
        choices = texts
    by_choice = dict(zip(choices, texts, strict=True))
    return Dimension(CategoricalDistribution(list(by_choice)), by_choice)


def _choice(value: Any, text: str) -> Any:
    """Return what Optuna is given for a choice: numbers and words as they are, lists and nodes as text."""
    if isinstance(value, QuotedString):
        return value.text
    return value if value is None or isinstance(value, bool | int | float | str) else text
