"""Train one model, test its best checkpoint, write its report: ``python train.py --help``."""

import fer_lightning.core.requirements  # noqa: F401 - refuses a Python or a package that is too old
from fer_lightning.core.signals import install_exit_handlers

if __name__ == "__main__":
    install_exit_handlers()  # from here on: imports take a second

# isort: split
import hydra
from omegaconf import DictConfig

from fer_lightning.cli.command import check_settings, command, report_user_errors


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@report_user_errors
def main(config: DictConfig) -> float | None:
    """Run one job; return the score of its best checkpoint to a sweeper."""
    check_settings(config)  # before torch is imported, which takes seconds
    from fer_lightning.cli.train import run_job

    return run_job(config)


if __name__ == "__main__":
    with command("train"):
        main()
