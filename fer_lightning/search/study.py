"""The study of a search, on disk: which trials there are, and which process runs which.

Every change is one line of ``study.journal``, in the format of Optuna's ``JournalStorage``, which
optuna-dashboard reads too. A killed process leaves its trials in the state RUNNING; another process goes on
with them.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import optuna
from filelock import FileLock
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from fer_lightning.core.errors import FERError
from fer_lightning.search.space import Space

Direction = Literal["maximize", "minimize"]

JOURNAL = "study.journal"
_NAME = "search"
# What a trial notes in the study.
WORKER = "worker"  # the process that runs it
OVERRIDES = "overrides"  # of its job, without resume=; for readers
PRUNED_AFTER = "pruned_after"  # epochs; by TrialPruning
REASON = "reason"  # why it failed


class _SystemLock(JournalFileOpenLock):
    """The journal's lock, as one of the operating system: Optuna's own outlives a killed process."""

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._lock.acquire()
        return True

    def release(self) -> None:
        """Give it back."""
        self._lock.release()


def open_study(
    folder: Path,
    *,
    direction: Direction,
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
) -> optuna.Study:
    """Open the study in a sweep folder, which is made if there is none.

    Args:
        folder: The sweep folder.
        direction: ``maximize`` or ``minimize``.
        sampler: Chooses new trials; not needed by who only reads or reports.
        pruner: Needed here by samplers that follow one, such as TPE with Hyperband.

    Raises:
        FERError: If the journal is damaged, or is of a search in the other direction.
    """
    path = folder / JOURNAL
    lock = _SystemLock(folder / f".{JOURNAL}.lock")
    try:
        with lock._lock:
            _cut_off_half_line(path)
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path), lock)),
            sampler=sampler,
            pruner=pruner,
            study_name=_NAME,
            direction=direction,
            load_if_exists=True,
        )
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise FERError(
            f"{path}: not readable as the journal of a study ({type(error).__name__}: {error}); begin "
            "another search in another hydra.sweep.dir"
        ) from error
    if study.direction.name.lower() != direction:
        raise FERError(
            f"{path}: a search that {study.direction.name.lower()}s, and this one would {direction}; begin "
            "another search in another hydra.sweep.dir"
        )
    return study


def _cut_off_half_line(path: Path) -> None:
    """Remove what a process wrote of a line when it was killed, or its disk was full."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if not size or file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


class Reserved(NamedTuple):
    """A trial that this process runs.

    Attributes:
        number: Of the trial, and of its job.
        overrides: Of its job.
        again: Whether another process began it, and was killed.
    """

    number: int
    overrides: list[str]
    again: bool


class Search:
    """The trials of a study, as one of the processes that run them.

    Args:
        folder: The sweep folder.
        space: What a trial chooses.
        make_sampler: Given the seed of one trial.
        seed: Of the search. With it and the results before it a trial is determined, so that a search which
            is killed and continued chooses what it would have chosen.
        pruner: See ``open_study``.
        direction: See ``open_study``.
        worker: The name of this process.
        is_alive: Returns whether the process of a name still works.
    """

    def __init__(
        self,
        folder: Path,
        space: Space,
        *,
        make_sampler: Callable[[int], BaseSampler],
        seed: int,
        pruner: BasePruner | None,
        direction: Direction,
        worker: str,
        is_alive: Callable[[str], bool],
    ) -> None:
        self.study = open_study(folder, direction=direction, sampler=make_sampler(seed), pruner=pruner)
        self._space = space
        self._make_sampler = make_sampler
        self._seed = seed
        self._worker = worker
        self._is_alive = is_alive
        self._guard = FileLock(folder / f".{JOURNAL}.trials.lock")

    def reserve(self, count: int, num_trials: int) -> list[Reserved]:
        """Take trials to run: those of dead processes first, then new ones.

        Args:
            count: The most to take.
            num_trials: Of the whole search.

        Returns:
            Trials with consecutive numbers; none if there is nothing left to begin.
        """
        with self._guard:
            trials = self.study.get_trials(deepcopy=False)
            left = [trial for trial in trials if self._is_left(trial)]
            if left:
                numbers = {trial.number: trial for trial in left}
                first = left[0].number
                taken: list[Reserved] = []
                while len(taken) < count and first + len(taken) in numbers:
                    taken.append(self._take(numbers[first + len(taken)]))
                return taken
            return [self._begin() for _ in range(min(count, num_trials - len(trials)))]

    def _is_left(self, trial: FrozenTrial) -> bool:
        return trial.state == TrialState.RUNNING and not self._is_alive(trial.user_attrs.get(WORKER, ""))

    def _begin(self) -> Reserved:
        self._follow_stream_of(len(self.study.get_trials(deepcopy=False)))
        return self._choose(self.study.ask(), again=False)

    def _take(self, trial: FrozenTrial) -> Reserved:
        self._follow_stream_of(trial.number)  # it may have been killed before it had chosen every setting
        return self._choose(Trial(self.study, trial._trial_id), again=True)

    def _follow_stream_of(self, number: int) -> None:
        seed = np.random.SeedSequence([self._seed, number]).generate_state(1)
        self.study.sampler = self._make_sampler(int(seed[0]))

    def _choose(self, trial: Trial, *, again: bool) -> Reserved:
        """Choose what the trial has not chosen yet.

        The overrides are made of its values, since the texts in the journal may come from anywhere.
        """
        trial.set_user_attr(WORKER, self._worker)
        chosen = [each for each in self._space.suggest(trial) if not each.startswith("resume=")]
        trial.set_user_attr(OVERRIDES, chosen)
        resume = "auto" if again else self._space.fixed.get("resume")
        return Reserved(trial.number, [*chosen, *([f"resume={resume}"] if resume else [])], again)

    def finish(self, number: int, outcome: float | str) -> None:
        """Note how a trial ended.

        Args:
            number: Of the trial.
            outcome: Its value, or why it failed.
        """
        trial = self.study.get_trials(deepcopy=False)[number]
        if trial.state.is_finished():
            return
        if isinstance(outcome, str):
            self._note(trial, REASON, outcome)
            self.study.tell(number, state=TrialState.FAIL)
        elif PRUNED_AFTER in trial.user_attrs:
            self.study.tell(number, state=TrialState.PRUNED)
        else:
            self.study.tell(number, outcome)

    def _note(self, trial: FrozenTrial, key: str, value: Any) -> None:
        self.study._storage.set_trial_user_attr(trial._trial_id, key, value)


def outcome_words(trial: FrozenTrial) -> str:
    """Name the state of a trial as the project does: finished, pruned, failed or running."""
    names: Mapping[TrialState, str] = {
        TrialState.COMPLETE: "finished",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
    }
    return names.get(trial.state, "running")
