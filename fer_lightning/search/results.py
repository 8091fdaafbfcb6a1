"""``search.json``: what a search found, for its page and for people; the journal holds the study itself."""

import math
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from fer_lightning.core.files import write_json
from fer_lightning.runs.sweep import SEARCH_RECORD
from fer_lightning.search.study import OVERRIDES, PRUNED_AFTER, REASON, outcome_words

_MIN_TRIALS = 4  # finished ones; importances of fewer are chance


def write_search(study: optuna.Study, folder: Path, *, monitor: str) -> None:
    """Write ``search.json`` into a sweep folder.

    Args:
        study: Of the search.
        folder: The sweep folder.
        monitor: What the search chose by.

    Raises:
        OSError: If it cannot be written.
    """
    trials = study.get_trials(deepcopy=False)
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    content = {
        "schema": 1,
        "monitor": monitor,
        "direction": study.direction.name.lower(),
        "best": study.best_trial.number if finished else None,
        "importance": _importance(study, finished),
        "trials": [_describe(trial) for trial in trials],
    }
    write_json(folder / SEARCH_RECORD, content)


def _importance(study: optuna.Study, finished: list[FrozenTrial]) -> dict[str, float]:
    """Return the share of each setting in what distinguishes good trials; empty if there are too few."""
    varied = {key for trial in finished for key in trial.params}
    if len(finished) < _MIN_TRIALS or len({trial.value for trial in finished}) < 2 or not varied:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: float(value) for key, value in found.items() if math.isfinite(value)}


def _describe(trial: FrozenTrial) -> dict[str, Any]:
    duration = trial.duration
    return {
        "number": trial.number,
        "state": outcome_words(trial),
        "value": trial.value if trial.state.is_finished() else None,
        "params": dict(trial.params),
        "overrides": trial.user_attrs.get(OVERRIDES, []),
        "epochs": {str(step): value for step, value in sorted(trial.intermediate_values.items())},
        "pruned_after": trial.user_attrs.get(PRUNED_AFTER),
        "reason": trial.user_attrs.get(REASON),
        "seconds": None if duration is None else round(duration.total_seconds(), 1),
    }
