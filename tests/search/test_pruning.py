"""The callback that ends trials of a search early."""

import optuna
import pytest
from optuna.trial import TrialState

from fer_lightning.core.errors import FERError
from fer_lightning.search.study import PRUNED_AFTER, open_study
from tests import in_process
from tests.in_process import epochs, fit

optuna.logging.set_verbosity(optuna.logging.WARNING)

SMALL = ("model=mlp", "model.hidden=[16]", "data.image_size=16", "logger=none", "trainer.max_epochs=4")
AFTER_TWO = (
    "callbacks=[default,pruning]",
    "callbacks.pruning.pruner._target_=optuna.pruners.ThresholdPruner",
    "~callbacks.pruning.pruner.n_startup_trials",
    "callbacks.pruning.pruner.n_warmup_steps=2",
    "+callbacks.pruning.pruner.lower=1.1",  # no accuracy is as high
)


@pytest.fixture
def study(tmp_path):
    """A study with one trial, which runs in the folder sweep/0_mlp."""
    (tmp_path / "sweep").mkdir()
    study = open_study(tmp_path / "sweep", direction="maximize")
    study.ask()
    return study


def settings(tmp_path, name="0_mlp"):
    return (
        *SMALL,
        *AFTER_TWO,
        f"callbacks.pruning.run_dir={tmp_path}/sweep/{name}",
    )


def test_a_trial_reports_every_epoch_and_is_pruned(study, tmp_path):
    run, _, _ = fit(*settings(tmp_path), folder=tmp_path)
    rows = epochs(run)
    assert len(rows) == 2  # of 4
    (trial,) = study.trials
    assert trial.intermediate_values == pytest.approx({1: rows[0]["val/acc"], 2: rows[1]["val/acc"]})
    assert trial.user_attrs[PRUNED_AFTER] == 2
    assert (run.folder / "best.ckpt").is_file()


def test_a_trial_that_was_killed_reports_no_epoch_twice(study, tmp_path):
    run, _, _ = fit(*settings(tmp_path), folder=tmp_path, stop_at=[2, 4])
    rows = epochs(run)
    (trial,) = study.trials
    assert trial.intermediate_values == pytest.approx({1: rows[0]["val/acc"], 2: rows[1]["val/acc"]})


def test_a_pruned_run_that_goes_on_trains_no_further(study, tmp_path):
    """As if it had been killed before its test."""
    run, _, _ = fit(*settings(tmp_path), folder=tmp_path)
    run.start()
    in_process._fit_once(settings(tmp_path), tmp_path, run, [])
    run.release()
    assert len(epochs(run)) == 2
    assert list(study.trials[0].intermediate_values) == [1, 2]


def test_runs_that_are_no_trials_are_not_pruned(study, tmp_path):
    run, _, _ = fit(*settings(tmp_path), "callbacks.pruning.run_dir=outputs/run", folder=tmp_path)
    assert len(epochs(run)) == 4
    study.tell(0, state=TrialState.COMPLETE, values=0.5)  # its folder is trained on by itself
    run, _, _ = fit(*settings(tmp_path), folder=tmp_path)
    assert len(epochs(run)) == 4


def test_a_folder_of_no_trial_is_refused(study, tmp_path):
    for name in ("mine", "7_mlp"):
        with pytest.raises(FERError, match=f"{name}: no trial of the study in the folder above"):
            fit(*settings(tmp_path, name), folder=tmp_path)


def test_what_is_no_pruner_is_refused(tmp_path):
    with pytest.raises(FERError, match="callbacks.pruning.pruner=.*expected a pruner of Optuna"):
        fit(*SMALL, "callbacks=[default,pruning]", "callbacks.pruning.pruner=null", folder=tmp_path)
