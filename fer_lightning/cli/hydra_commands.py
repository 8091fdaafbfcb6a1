"""The Hydra commands ``train`` and ``eval``, of the scripts and of an installed package.

Only hydra and omegaconf are imported here: torch takes seconds, and ``--help`` or a mistyped override must
answer at once.
"""

import hydra
from omegaconf import DictConfig

from fer_lightning.cli.command import check_settings, command, report_user_errors, sharing_processes
from fer_lightning.config.folders import CONF
from fer_lightning.core.garbage import pause_gc_before_import
from fer_lightning.core.progress import show_progress
from fer_lightning.runs.placement import register_launchers
from fer_lightning.search.sweeper import register_sweeper


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
@report_user_errors
def _train(config: DictConfig) -> float | None:
    """Run one job; return the score of its best checkpoint to a sweeper."""
    check_settings(config)
    show_progress("loading PyTorch")
    pause_gc_before_import("fer_lightning.cli.train")
    from fer_lightning.cli.train import run_job

    return run_job(config)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="eval")
@report_user_errors
def _evaluate(config: DictConfig) -> None:
    """Evaluate one predictor, or several checkpoints, one row each."""
    check_settings(config)
    show_progress("loading PyTorch")
    pause_gc_before_import("fer_lightning.cli.evaluate")
    from fer_lightning.cli.evaluate import run_evaluation

    run_evaluation(config)


def train() -> None:
    """Train one model, test its best checkpoint, write its report; overrides are in ``sys.argv``."""
    with sharing_processes() as is_follower:
        if not is_follower:
            _train_command()


def _train_command() -> None:
    with command("train"):
        register_sweeper()
        register_launchers()
        _train()


def evaluate() -> None:
    """Evaluate checkpoints or a language model on a split; overrides are in ``sys.argv``."""
    with command("eval"):
        _evaluate()
