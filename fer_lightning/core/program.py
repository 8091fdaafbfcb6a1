"""How the running command was started: as a script, or as ``fer-lightning``."""

import sys
from pathlib import Path

# What the command of the installed package writes into sys.argv[0], before the name of its own command.
PROGRAMS = ("fer-lightning", "python -m fer_lightning")
_SCRIPTS = {
    "train": "python train.py",
    "eval": "python eval.py",
    "audit": "python -m fer_lightning.data.audit",
    "wandb": "fer-lightning wandb",
}


def command_line(name: str) -> str:
    """Return how a user of the running program types one of its commands.

    Args:
        name: Such as ``train``: ``fer-lightning train``, or ``python train.py`` if a script is running.
    """
    for program in PROGRAMS:
        if sys.argv[0].startswith(f"{program} "):
            return f"{program} {name}"
    return _SCRIPTS.get(name, f"python -m fer_lightning.{name}")


def typed_command() -> str:
    """Return the running command with its arguments, as ``run.json`` records it."""
    installed = sys.argv[0].startswith(tuple(f"{program} " for program in PROGRAMS))
    return " ".join(sys.argv if installed else [Path(sys.executable).name, *sys.argv])
