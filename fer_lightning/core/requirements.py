"""Refuses, when imported, an interpreter or a package that pyproject.toml does not allow.

train.py and eval.py import it first, before what an old one would not survive: it is written in what Python
3.6 understands, and reads the pins by itself, because packaging and tomllib would cost each start 0.1 s.
"""

import re
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def _numbers(version: str) -> "tuple[int, ...]":
    """Read ``2.14.0+cpu`` as (2, 14): zeros at the end say nothing."""
    found = re.match(r"[\d.]*", version)
    numbers = [int(part) for part in found.group().split(".") if part] if found else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def allows(pins: str, version: str) -> bool:
    """Tell whether a version keeps to pins such as ``>=2.6.6,<2.7``, the two relations in use here."""
    for pin in pins.split(","):
        bound = _numbers(pin.lstrip("<>= "))
        if pin.strip().startswith("<") and _numbers(version) >= bound:
            return False
        if pin.strip().startswith(">=") and _numbers(version) < bound:
            return False
    return True


def find_unmet(pyproject: str) -> "str | None":
    """Say what is missing or of another version than a pyproject.toml asks for; None where nothing is."""
    python = ".".join(map(str, sys.version_info[:3]))
    wanted = re.search(r'^requires-python = "([^"]*)"', pyproject, re.MULTILINE)
    if wanted and not allows(wanted.group(1), python):
        return f"Python {python} runs this, fer_lightning needs {wanted.group(1)}"
    from importlib.metadata import PackageNotFoundError, version

    listed = re.search(r"^dependencies = \[(.*?)^\]", pyproject, re.MULTILINE | re.DOTALL)
    for name, pins in re.findall(r'^ *"([\w-]+)([^"]*)"', listed.group(1) if listed else "", re.MULTILINE):
        try:
            found = version(name)
        except PackageNotFoundError:
            return f"{name} is not installed"
        if not allows(pins, found):
            return f"{name} {found} is installed, fer_lightning needs {pins}"
    return None


def _refuse() -> None:
    try:
        unmet = find_unmet((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    except OSError:  # the package alone, without a checkout: pip has seen to it
        return
    if unmet is not None:
        new = "make an environment with such a Python, then run" if unmet.startswith("Python") else "run"
        sys.exit(f"error: {unmet}; {new}: pip install -e {_ROOT}")  # to stderr, with exit code 1


_refuse()
