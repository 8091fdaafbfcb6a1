"""Class probabilities from a language model: of the tokens that begin its answer, or written as JSON.

Whatever does not have the expected form has no probabilities; nothing here raises an error.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fer_lightning.data.labels import canonical_name

MIN_KNOWN = 0.5  # of the probability of the first token; below, the classes say little about the answer
NUM_TOKENS = 20  # alternatives asked for, OpenAI's maximum
MIN_PREFIX = 2  # letters of a token that is a part of a name
_ROUNDING = 0.02  # by which written probabilities may miss 1
_FIRST_WORD = re.compile(r"[^\w]*([^\W_]+)")
_ARTICLES = {"a", "an"}  # begin "a happy face", and "angry"


class Probabilities(NamedTuple):
    """Class probabilities of one reply.

    Attributes:
        values: One for each class, summing to 1.
        unknown: Probability, before that, of tokens that begin no class, or several; 0 if they were written.
    """

    values: tuple[float, ...]
    unknown: float


def text_of_tokens(choice: Mapping[str, Any]) -> str:
    """Join the tokens of which a choice has log-probabilities; empty if it has none."""
    tokens = [entry.get("token") if isinstance(entry, Mapping) else None for entry in _content(choice)]
    return "".join(token for token in tokens if isinstance(token, str))


def _content(choice: Mapping[str, Any]) -> list[Any]:
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    return content if isinstance(content, list) else []


def from_logprobs(choice: Mapping[str, Any], start: int, classes: Sequence[str]) -> Probabilities | None:
    """Sum the probabilities of the alternatives for the token that begins the answer.

    A token counts for a class if it is its name or a synonym, or the first letters of its name and of no
    other class's.

    Args:
        choice: A choice of a chat completion, with ``logprobs`` as OpenAI, vLLM and llama.cpp write them.
        start: The position in ``text_of_tokens`` at which the answer begins.
        classes: The class list, in the order of the labels.

    Returns:
        The probabilities; None if the server sent none, or if less than ``MIN_KNOWN`` belongs to the classes.
    """
    alternatives = _alternatives(_content(choice), start)
    if not alternatives or sum(alternatives.values()) > 1 + _ROUNDING:
        return None
    masses = [0.0] * len(classes)
    for token, prob in alternatives.items():
        if (index := _class_begun_by(token, classes)) is not None:
            masses[index] += prob
    known = sum(masses)
    if known < MIN_KNOWN:
        return None
    return Probabilities(tuple(mass / known for mass in masses), max(0.0, 1 - known))


def _alternatives(content: Sequence[Any], start: int) -> dict[str, float] | None:
    """Return token -> probability at a position of the text; None if that is not known."""
    position = 0
    for entry in content:
        token = entry.get("token") if isinstance(entry, Mapping) else None
        if not isinstance(token, str):
            return None
        position += len(token)
        if position > start:
            listed = entry.get("top_logprobs")
            if not isinstance(listed, list):
                return None
            return dict(_token_probs([entry, *listed]))
    return None


def _token_probs(entries: Sequence[Any]) -> Iterator[tuple[str, float]]:
    for entry in entries:
        token, logprob = (
            (entry.get(key) for key in ("token", "logprob")) if isinstance(entry, Mapping) else ("", 0)
        )
        if isinstance(token, str) and isinstance(logprob, int | float) and logprob <= 0:
            yield token, math.exp(logprob)


def _class_begun_by(token: str, classes: Sequence[str]) -> int | None:
    found = _FIRST_WORD.match(token.casefold())
    if found is None or found[1] in _ARTICLES:
        return None
    word = found[1]
    names = [canonical_name(name) for name in classes]
    if canonical_name(word) in names:
        return names.index(canonical_name(word))
    if len(word) < MIN_PREFIX:
        return None
    begun = [
        index
        for index, name in enumerate(classes)
        if canonical_name(name).startswith(word) or name.casefold().startswith(word)
    ]
    return begun[0] if len(begun) == 1 else None


def from_json(text: str, classes: Sequence[str]) -> Probabilities | None:
    """Read a JSON object of class probabilities, as ``{"happy": 0.8, "sad": 0.2}`` or one level deeper.

    Args:
        text: A reply, or what a code fence in it holds.
        classes: The class list. A class that is left out has probability 0.

    Returns:
        The probabilities, which were fractions or percentages; None if the text is something else, or also
        names another class than the most probable one.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    written = {canonical_name(value) for value in content.values() if isinstance(value, str)}
    named = written & {canonical_name(name) for name in classes}
    candidates = [content, *(value for value in content.values() if isinstance(value, dict))]
    found = [values for each in candidates if (values := _distribution(each, classes)) is not None]
    if len(found) != 1:
        return None
    most_probable = canonical_name(classes[found[0].index(max(found[0]))])
    return Probabilities(found[0], 0.0) if named <= {most_probable} else None


def _distribution(content: Mapping[str, Any], classes: Sequence[str]) -> tuple[float, ...] | None:
    names = [canonical_name(name) for name in classes]
    values = [0.0] * len(classes)
    for name, value in content.items():
        is_number, is_class = type(value) in (int, float), canonical_name(name) in names
        if not is_number and not is_class:
            continue
        if not is_number or not is_class or not 0 <= value <= 100:
            return None
        values[names.index(canonical_name(name))] += value
    total = sum(values)
    whole = next((whole for whole in (1, 100) if abs(total / whole - 1) <= _ROUNDING), None)
    return None if whole is None else tuple(value / total for value in values)
