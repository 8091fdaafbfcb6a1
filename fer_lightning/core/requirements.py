"""Refuse, when imported, a Python or a package that pyproject.toml does not allow.

train.py and eval.py import it first, before anything that an old one would fail on. Its syntax is Python
3.6's, and it parses the pins itself, because importing packaging and tomllib would take 0.1 s of each start.
"""

import re
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def _numbers(version: str) -> "tuple[int, ...]":
    """Read ``2.14.0+cpu`` as (2, 14): trailing zeros are ignored."""
    found = re.match(r"[\d.]*", version)
    numbers = [int(part) for part in found.group().split(".") if part] if found else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def allows(pins: str, version: str) -> bool:
    """Return whether a version satisfies pins such as ``>=2.6.6,<2.7``, the two operators used here."""
    for pin in pins.split(","):
        bound = _numbers(pin.lstrip("<>= "))
        if pin.strip().startswith("<") and _numbers(version) >= bound:
            return False
        if pin.strip().startswith(">=") and _numbers(version) < bound:
            return False
    return True


def find_unmet(pyproject: str) -> "str | None":
    """Describe the first unmet requirement of a pyproject.toml; None if there is none."""
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
    except OSError:  # an installed package without a checkout: pip has checked
        return
    if unmet is not None:
        new = "make an environment with such a Python, then run" if unmet.startswith("Python") else "run"
        sys.exit(f"error: {unmet}; {new}: pip install -e {_ROOT}")  # to stderr, with exit code 1


_refuse()
