"""Parametrised tests of which only a few cases run by default."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_except(quick: Collection[Any], cases: Iterable[Any]) -> list[Any]:
    """Return arguments for ``pytest.mark.parametrize``: all cases, marked slow unless they are in ``quick``.

    Raises:
        ValueError: If a quick case is none of the cases.
    """
    cases = list(cases)
    if unknown := [case for case in quick if case not in cases]:
        raise ValueError(f"quick={unknown}: none of the cases")
    values = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [
        pytest.param(*each, marks=() if case in quick else pytest.mark.slow)
        for case, each in zip(cases, values, strict=True)
    ]
