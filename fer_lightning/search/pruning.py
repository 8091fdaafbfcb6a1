"""Ending trials that do worse than others did at the same epoch."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from fer_lightning.core.errors import FERError
from fer_lightning.search.study import JOURNAL, PRUNED_AFTER, Direction, open_study

log = logging.getLogger("fer_lightning")


class TrialPruning(Callback):
    """Reports ``monitor`` after every validation, and stops training if the pruner says so.

    A pruned run is whole: its best checkpoint is tested and its report written. In a run that is no trial of
    a search this callback does nothing.

    Args:
        pruner: Of Optuna.
        run_dir: The run folder; in a search its name begins with the trial's number, and the study is in
            the folder above.
        monitor: What the trials are compared by.
        mode: ``max`` or ``min``.
    """

    def __init__(self, pruner: BasePruner, run_dir: str | Path, monitor: str, mode: str = "max") -> None:
        if not isinstance(pruner, BasePruner):
            raise FERError(f"callbacks.pruning.pruner={pruner}: expected a pruner of Optuna")
        self.pruner = pruner
        self.monitor = monitor
        self._mode = mode
        self._folder = Path(run_dir)
        self._study: Any = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Open the study."""
        if (self._folder.parent / JOURNAL).is_file():
            direction: Direction = "maximize" if self._mode == "max" else "minimize"
            self._study = open_study(self._folder.parent, direction=direction, pruner=self.pruner)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Report the epoch, and ask the pruner."""
        value = trainer.callback_metrics.get(self.monitor)
        if trainer.sanity_checking or self._study is None or value is None:
            return
        epoch = trainer.current_epoch + 1
        pruned = trainer.is_global_zero and self._is_pruned(epoch, float(value))
        if trainer.strategy.reduce_boolean_decision(pruned, all=False):
            trainer.should_stop = True  # ModelCheckpoint keeps it, for a run that goes on after a kill
            log.info("pruned after epoch %d: others were better at this epoch", epoch)

    def _is_pruned(self, epoch: int, value: float) -> bool:
        """Report an epoch; return whether the pruner ends the trial, and note that."""
        trial = self._trial()
        if trial.state.is_finished():  # a run of this folder that is trained on for itself
            return False
        storage = self._study._storage
        if epoch not in trial.intermediate_values:
            storage.set_trial_intermediate_value(trial._trial_id, epoch, value)
        pruned = self.pruner.prune(self._study, self._trial())
        if pruned:
            storage.set_trial_user_attr(trial._trial_id, PRUNED_AFTER, epoch)
        return pruned

    def _trial(self) -> FrozenTrial:
        number = self._folder.name.partition("_")[0]
        trials = self._study.get_trials(deepcopy=False)
        if not number.isdecimal() or int(number) >= len(trials):
            raise FERError(f"{self._folder}: no trial of the study in the folder above")
        trial: FrozenTrial = trials[int(number)]
        return trial
