"""Commands that messages tell a user to type survive the shell and Hydra's grammar."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from fer_lightning.core.program import pasteable


def read_back(text):
    """Return the value that Hydra reads from an override which was pasted into a shell."""
    (argument,) = shlex.split(text)
    override = OverridesParser.create().parse_override(argument)
    value = override.value()
    return override.key_or_group, value


PATHS = (
    *("outputs/2026-11-27/run", "outputs/lr=0.01", "my runs/one", "it's", 'say "hi"', "a,b", "{x}", "[y]"),
    *("~/runs", "a:b", "back\\slash", "end\\", 'quote\\"', "dollar$HOME", "a;b", "a&b", "*", "(x)"),
    *("größe", "17", "1e3", "null", "True", "nan"),
)


@pytest.mark.parametrize("path", PATHS)
def test_path_in_a_printed_command_is_read_back_as_it_was(path):
    assert read_back(pasteable("resume", path)) == ("resume", path)


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1))
def test_any_text_is_read_back_as_it_was(text):
    if "${" in text:  # an interpolation, which no quoting switches off
        return
    assert read_back(pasteable("resume", text)) == ("resume", text)


def test_a_usual_path_is_not_quoted():
    assert pasteable("resume", "outputs/2026-11-27/12-00-00_cnn_1a2b3c") == (
        "resume=outputs/2026-11-27/12-00-00_cnn_1a2b3c"
    )
