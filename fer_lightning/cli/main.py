"""The command ``fer-lightning``: everything that the scripts and the package's modules do, by name."""

from fer_lightning.core.signals import install_exit_handlers

# isort: split
import difflib
import sys
from importlib import import_module

from fer_lightning import __version__
from fer_lightning.core.stdio import make_stdio_robust

_HYDRA = {
    "train": "train a model, test its best checkpoint, write its report",
    "eval": "evaluate checkpoints or a language model on a split",
}
_ARGPARSE = {
    "predict": "predict the expressions on images",
    "report": "rewrite a run's page, compare runs, or reproduce the paper",
    "audit": "find duplicates, leaks and damage in a data set",
    "wandb": "create a W&B workspace for a project",
}


def main() -> int:
    """Run the command that the first argument names, with the arguments after it; return its exit code."""
    install_exit_handlers()  # before the imports of a command, which take seconds
    import fer_lightning.core.requirements  # noqa: F401 - refuses a Python or a package that is too old

    make_stdio_robust()
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(_usage())  # noqa: T201 - a command's own output
        return 0
    if name == "--version":
        print(f"fer_lightning {__version__}")  # noqa: T201
        return 0
    if name not in {**_HYDRA, **_ARGPARSE}:
        close = difflib.get_close_matches(name, [*_HYDRA, *_ARGPARSE], n=1)
        meant = f"did you mean {close[0]}?" if close else f"expected {', '.join([*_HYDRA, *_ARGPARSE])}"
        hint = "; fer-lightning train takes overrides such as model=cnn" if "=" in name else ""
        print(f"error: {name}: no such command; {meant}{hint}", file=sys.stderr)  # noqa: T201
        return 2
    del sys.argv[1]
    if name in _HYDRA:
        from fer_lightning.cli import hydra_commands

        (hydra_commands.train if name == "train" else hydra_commands.evaluate)()
        return 0
    sys.argv[0] = f"fer-lightning {name}"
    code: int = import_module(f"fer_lightning.cli.{name}").main()
    return code


def _usage() -> str:
    commands = "\n".join(f"  {name:<9}{text}" for name, text in {**_HYDRA, **_ARGPARSE}.items())
    return (
        "Usage: fer-lightning COMMAND ...\n\n"
        f"{commands}\n\n"
        "train and eval take Hydra overrides, such as model=cnn; COMMAND --help shows the arguments of each."
    )


if __name__ == "__main__":
    sys.exit(main())
