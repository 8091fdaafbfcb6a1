"""Evaluate checkpoints or a language model on a split: ``python eval.py --help``."""

import fer_lightning.core.requirements  # noqa: F401 - refuses a Python or a package that is too old
from fer_lightning.core.signals import install_exit_handlers

if __name__ == "__main__":
    install_exit_handlers()  # from here on: imports take a second
    from fer_lightning.cli.hydra_commands import evaluate

    evaluate()
