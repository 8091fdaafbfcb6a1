"""How the running command was started: as a script, or as ``fer-lightning``."""

import re
import shlex
import sys
from pathlib import Path

from fer_lightning.core.text import escape_surrogates

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


# Characters that neither a shell nor Hydra's grammar reads as anything but themselves.
_PLAIN = re.compile(r"[\w./:@+-]+", re.ASCII)
_NO_TEXT = re.compile(r"[+-]?[\d_.]+(e[+-]?\d+)?|null|true|false|[+-]?(inf|nan)", re.IGNORECASE)


def pasteable(key: str, value: object) -> str:
    """Write an override so that it can be pasted into a shell, whatever the value holds.

    Args:
        key: Of the setting, such as ``resume``.
        value: Such as a path with spaces, quotes or equals signs.
    """
    text = str(value)
    return f"{key}={text}" if _is_plain(text) else shell_quote(quoted_override(key, text))


def shell_quote(text: str) -> str:
    r"""Quote a text for a shell; one with bytes that are not UTF-8 as ``$'caf\xe9'``, for bash and zsh."""
    if escape_surrogates(text) == text:
        return shlex.quote(text)
    # Other backslashes first, and then those of the bytes.
    escaped = escape_surrogates(text.replace("\\", "\\\\").replace("'", "\\'"))
    return f"$'{escaped}'"


def _is_plain(text: str) -> bool:
    return bool(_PLAIN.fullmatch(text)) and not _NO_TEXT.fullmatch(text)


def quoted_override(key: str, value: str) -> str:
    """Write an override whose value Hydra's grammar reads as one text."""
    # A backslash is itself, but for those before a quote or the end, which the grammar takes in pairs.
    escaped = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + ("\\" + found[2] if found[2] else ""), value)
    return f'{key}="{escaped}"'
