"""The arguments of a Hydra command: options such as ``-m``, and overrides such as ``model=cnn``.

Hydra's own parser refuses options between overrides, and prints its usage for what it does not know.
"""

import difflib
import re
import shlex
from collections.abc import Sequence

from fer_lightning.core.errors import FERError

# Options by their long names: the short name, and the values that one takes. None: it takes no value; an
# empty tuple: any value. Hydra's --experimental-rerun is left out: it executes what a pickle file says.
_OPTIONS: dict[str, tuple[str, tuple[str, ...] | None]] = {
    "--help": ("-h", None),
    "--version": ("", None),
    "--multirun": ("-m", None),
    "--config-dir": ("-cd", ()),
    "--cfg": ("-c", ("job", "hydra", "all")),
    "--resolve": ("", None),
    "--package": ("-p", ()),
    "--info": ("-i", ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")),
    "--config-name": ("-cn", ()),
    "--config-path": ("-cp", ()),
    "--run": ("-r", None),
    "--shell-completion": ("-sc", None),
    "--hydra-help": ("", None),
}
_LONG_NAMES = {short: name for name, (short, _) in _OPTIONS.items() if short}
_EXAMPLES = {
    "--config-dir": "my_conf",
    "--package": "model",
    "--config-name": "train",
    "--config-path": "my_conf",
}
MODES = ("--run", "--multirun", "--cfg", "--info", "--shell-completion")  # a command has one of them


def sort_arguments(arguments: Sequence[str]) -> list[str]:
    """Put options before overrides, each option as one word with its long name, such as ``--cfg=job``.

    Raises:
        FERError: If there is no such option, its value is missing or wrong, or options contradict each other.
    """
    options: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            continue
        if argument.startswith("-") and argument != "-":
            options.append(_read_option(argument, rest))
        else:
            overrides.append(argument)
    _check_together(options)
    return [*dict.fromkeys(options), *overrides]


def option_names(arguments: Sequence[str]) -> set[str]:
    """Return the long names of the options among arguments that ``sort_arguments`` returned."""
    return {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}


def _read_option(argument: str, rest: list[str]) -> str:
    """Read one option, and its value from the arguments after it if the value is a word of its own."""
    typed, equals, value = argument.partition("=")
    name = _LONG_NAMES.get(typed, typed)
    if name not in _OPTIONS:
        raise _unknown_option(argument, rest)
    values = _OPTIONS[name][1]
    if values is None:
        if equals:
            raise FERError(f"{argument}: {typed} takes no value; write {typed}")
        return name
    if name == "--info" and not equals and not (rest and rest[0] in values):
        return "--info=all"
    if not equals:
        value = rest.pop(0) if rest and not rest[0].startswith("-") else ""
    if not value:
        expected = ", ".join(values) or f"one, as in {typed} {_EXAMPLES[name]}"
        raise FERError(f"{typed}: its value is missing; expected {expected}")
    if values and value not in values:
        raise FERError(f"{typed} {value}: expected one of {', '.join(values)}")
    return f"{name}={value}"


def _unknown_option(argument: str, rest: Sequence[str]) -> FERError:
    typed, equals, value = argument.partition("=")
    close = difflib.get_close_matches(typed, [*_OPTIONS, *_LONG_NAMES], n=1, cutoff=0.8)
    if close:
        return FERError(f"{argument}: no such option; did you mean {close[0]}?")
    key = typed.lstrip("-")
    if not equals and rest and re.fullmatch(r"[^-=~+][^=]*", rest[0]):  # --model mlp
        value = rest[0]
    if value or equals:
        override = shlex.quote(f"{key}={value}")
        return FERError(
            f"{argument}: overrides have no dashes; write {override} (a W&B sweep passes them like this with "
            "${args_no_hyphens} in its command)"
        )
    return FERError(f"{argument}: no such option; expected one of {', '.join(_OPTIONS)}, or key=value")


def _check_together(options: Sequence[str]) -> None:
    """Refuse options that are given twice, exclude each other or need another one."""
    given = list(dict.fromkeys(options))
    names = [option.partition("=")[0] for option in given]
    for name in names:
        if names.count(name) > 1:
            more = "; add several folders with hydra.searchpath=[...]" if name == "--config-dir" else ""
            raise FERError(f"{name}: given twice, with different values; leave one out{more}")
    modes = [name for name in MODES if name in names]
    if len(modes) > 1:
        raise FERError(f"{' '.join(modes)}: only one of these options can be given; leave out the others")
    for name in ("--resolve", "--package"):
        if name in names and "--cfg" not in names:
            raise FERError(
                f"{name}: goes with --cfg, as in --cfg job {name} {_EXAMPLES.get(name, '')}".rstrip()
            )
