"""The command ``fer-lightning``: everything that the scripts and the package's modules do, by name."""

from fer_lightning.core.signals import install_exit_handlers

# isort: split
import difflib
import os
import sys
from importlib import import_module

from fer_lightning import __version__
from fer_lightning.core.stdio import make_stdio_robust

_HYDRA = {
    "train": "train a model, test its best checkpoint, write its report",
    "eval": "evaluate checkpoints or a language model on a split",
}
_ARGPARSE = {
    "predict": "find faces in photographs and videos and predict their expressions",
    "export": "write a network for other programs: ONNX, int8, safetensors, torch.export, a web page",
    "report": "rewrite a run's page, compare runs, or reproduce the paper",
    "benchmark": "evaluate a network on several data sets, on the classes that each shares with it",
    "audit": "find duplicates, leaks and damage in a data set",
    "wandb": "create a W&B workspace for a project",
}
_ALL = {**_HYDRA, **_ARGPARSE}


def main(program: str = "fer-lightning") -> int:
    """Run the command that the first argument names, with the arguments after it; return its exit code.

    Args:
        program: What a user types before the name of a command, one of ``core.program.PROGRAMS``.
    """
    install_exit_handlers()  # before the imports of a command, which take seconds
    import fer_lightning.core.requirements  # noqa: F401 - refuses a Python or a package that is too old

    make_stdio_robust()
    if sys.argv[1:2] in (["-sc"], ["--shell-completion"]):
        _name_command_to_complete()
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(_usage(program))  # noqa: T201 - a command's own output
        return 0
    if name == "--version":
        print(f"fer_lightning {__version__}")  # noqa: T201
        return 0
    if name not in _ALL:
        from fer_lightning.core.errors import printable  # which imports hydra

        print(printable(f"error: {_unknown_command(name, program)}"), file=sys.stderr)  # noqa: T201
        return 2
    del sys.argv[1]
    sys.argv[0] = f"{program} {name}"
    if name in _HYDRA:
        from fer_lightning.cli import hydra_commands

        (hydra_commands.train if name == "train" else hydra_commands.evaluate)()
        return 0
    code: int = import_module(f"fer_lightning.cli.{name}").main()
    return code


def _name_command_to_complete() -> None:
    """Move the command's name out of the line that a shell wants completed: Hydra expects overrides there."""
    words = os.environ.get("COMP_LINE", "").split(maxsplit=2)
    if len(words) > 1 and words[1] in _HYDRA:
        os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]] if len(words) > 2 else [words[0], ""])
        sys.argv.insert(1, words[1])


def _unknown_command(name: str, program: str) -> str:
    if name.startswith("-") and "=" not in name:
        return f"{name}: no such option; expected a command first: {', '.join(_ALL)}"
    if "=" in name:
        return f"{name}: expected a command first, as in {program} train {name.lstrip('-')}"
    close = difflib.get_close_matches(name, _ALL, n=1)
    meant = f"did you mean {program} {close[0]}?" if close else f"expected one of {', '.join(_ALL)}"
    return f"{name}: no such command; {meant}"


def _usage(program: str) -> str:
    commands = "\n".join(f"  {name:<11}{text}" for name, text in _ALL.items())
    return (
        f"Usage: {program} COMMAND ...\n\n"
        f"{commands}\n\n"
        "train and eval take Hydra overrides, such as model=cnn; COMMAND --help shows the arguments of each."
    )
