"""The language of the texts in figures: one YAML file per language in ``lang/``, or one of the user's."""

import string
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fer_lightning.config.stored import read_yaml
from fer_lightning.core.errors import FERError

_FOLDER = Path(__file__).with_name("lang")
LANGUAGES = tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


@dataclass(frozen=True)
class Language:
    """One language of figures.

    Attributes:
        texts: Texts by key, with the same keys and the same ``{names}`` in every language.
        classes: Names of classes; others are not translated.
        splits: Names of splits, likewise.
        decimal: Decimal mark.
        thousands: Mark between groups of three digits.
    """

    texts: Mapping[str, str]
    classes: Mapping[str, str]
    splits: Mapping[str, str]
    decimal: str
    thousands: str


def read_language(given: str) -> Language:
    """Read a language: one of ``LANGUAGES``, or the path of a YAML file like those in ``lang/``.

    Raises:
        FERError: If there is no such language, or the file does not have the keys of ``lang/en.yaml``.
    """
    if given in LANGUAGES:
        return _read_file(_FOLDER / f"{given}.yaml")
    path = Path(given)
    if not path.suffix and not path.exists():
        raise FERError(f"--lang {given}: expected one of {', '.join(LANGUAGES)}, or a YAML file of your own")
    if read_yaml(path) is None:
        raise FERError(f"--lang {given}: no such file; a copy of {_FOLDER / 'en.yaml'} is one to start from")
    return _read_file(path)


@lru_cache(maxsize=16)
def _read_file(path: Path) -> Language:
    content, english = read_yaml(path), read_yaml(_FOLDER / "en.yaml")
    if not isinstance(content, dict) or set(content) != set(english):
        raise _wrong(path, f"expected the keys {', '.join(english)}")
    for part, texts in english.items():
        found = content[part]
        if isinstance(texts, str):
            if not isinstance(found, str):
                raise _wrong(path, f"{part} is {found!r}, expected a text in quotes")
            continue
        if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
            raise _wrong(path, f"expected a text for each key of {part}")
        if part == "texts":
            _check_texts(path, found, texts)
    return Language(**content)


def _check_texts(path: Path, found: Mapping[str, str], english: Mapping[str, str]) -> None:
    for what, keys in (
        ("missing", english.keys() - found.keys()),
        ("unknown", found.keys() - english.keys()),
    ):
        if keys:
            raise _wrong(path, f"{what} keys in texts: {', '.join(sorted(map(str, keys)))}")
    for key, text in english.items():
        if _names(found[key]) != _names(text):
            raise _wrong(path, f"texts.{key} is {found[key]!r}, expected the names in braces of {text!r}")


def _names(text: str) -> set[str] | None:
    """Return the names in braces; None if braces do not match."""
    try:
        return {name for _, name, *_ in string.Formatter().parse(text) if name is not None}
    except ValueError:
        return None


def _wrong(path: Path, reason: str) -> FERError:
    return FERError(f"{path}: {reason}; a copy of {_FOLDER / 'en.yaml'} is a language file to start from")


_chosen: ContextVar[str] = ContextVar("language", default="en")


@contextmanager
def change_language(given: str | None) -> Iterator[None]:
    """Draw with the texts of another language; None changes nothing.

    Raises:
        FERError: As ``read_language``.
    """
    if given is not None:
        read_language(given)
    token = _chosen.set(given or _chosen.get())
    try:
        yield
    finally:
        _chosen.reset(token)


def language() -> Language:
    """Return the language that figures are drawn in."""
    return read_language(_chosen.get())


def text(key: str, **values: Any) -> str:
    """Return a text in the language of the figures, with the values of its ``{names}``."""
    return language().texts[key].format(**values)


def class_text(name: str) -> str:
    """Return the name of a class in the language of the figures, if it is known there."""
    return language().classes.get(name, name)


def split_text(name: str) -> str:
    """Return the name of a split in the language of the figures."""
    return language().splits.get(name, name)


def number(value: Any, spec: str = ",d") -> str:
    """Format a number with the marks of the language of the figures."""
    return localise(format(value, spec))


def localise(formatted: str) -> str:
    """Replace the marks of an English number by those of the language of the figures."""
    chosen = language()
    return formatted.translate({ord(","): chosen.thousands, ord("."): chosen.decimal})
