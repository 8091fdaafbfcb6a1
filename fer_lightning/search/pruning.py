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

    Attributes:
        pruned_after: Epochs after which the trial was pruned; None if it was not.
    """

    def __init__(self, pruner: BasePruner, run_dir: str | Path, monitor: str, mode: str = "max") -> None:
        if not isinstance(pruner, BasePruner):
            raise FERError(f"callbacks.pruning.pruner={pruner}: expected a pruner of Optuna")
        self.pruner = pruner
        self.monitor = monitor
        self.pruned_after: int | None = None
        self._mode = mode
        self._folder = Path(run_dir)
        self._study: Any = None

    def state_dict(self) -> dict[str, Any]:
        """Keep the decision: a run that is killed after it does not train on."""
        return {"pruned_after": self.pruned_after}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the decision."""
        self.pruned_after = state_dict.get("pruned_after")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Open the study."""
        if (self._folder.parent / JOURNAL).is_file():
            direction: Direction = "maximize" if self._mode == "max" else "minimize"
            self._study = open_study(self._folder.parent, direction=direction, pruner=self.pruner)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Stop at once where the decision is older than this process."""
        if self.pruned_after is not None:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Report the epoch, and ask the pruner."""
        value = trainer.callback_metrics.get(self.monitor)
        if trainer.sanity_checking or self._study is None or value is None:
            return
        epoch = trainer.current_epoch + 1
        trial = self._trial()
        if trial.state.is_finished():  # a run of this folder that is trained on for itself
            return
        storage = self._study._storage
        if epoch not in trial.intermediate_values:
            storage.set_trial_intermediate_value(trial._trial_id, epoch, float(value))
        if self.pruner.prune(self._study, self._trial()):
            self.pruned_after = epoch
            storage.set_trial_user_attr(trial._trial_id, PRUNED_AFTER, epoch)
            trainer.should_stop = True
            log.info("pruned after epoch %d: others were better at this epoch", epoch)

    def _trial(self) -> FrozenTrial:
        number = self._folder.name.partition("_")[0]
        trials = self._study.get_trials(deepcopy=False)
        if not number.isdigit() or int(number) >= len(trials):
            raise FERError(f"{self._folder}: no trial of the study in the folder above")
        trial: FrozenTrial = trials[int(number)]
        return trial
