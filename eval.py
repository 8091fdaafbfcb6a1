"""Evaluate checkpoints or a language model on a split: ``python eval.py --help``."""

import fer_lightning.core.requirements  # noqa: F401 - refuses a Python or a package that is too old
from fer_lightning.core.signals import install_exit_handlers

if __name__ == "__main__":
    install_exit_handlers()  # from here on: imports take a second

# isort: split
import hydra
from omegaconf import DictConfig

from fer_lightning.cli.command import check_settings, command, report_user_errors


@hydra.main(version_base="1.3", config_path="conf", config_name="eval")
@report_user_errors
def main(config: DictConfig) -> None:
    """Evaluate one predictor, or several checkpoints, one row each."""
    check_settings(config)  # before torch is imported, which takes seconds
    from fer_lightning.cli.evaluate import run_evaluation

    run_evaluation(config)


if __name__ == "__main__":
    with command("eval"):
        main()
