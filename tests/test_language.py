"""Words that the field does not use, kept out of names, docstrings, messages, pages and documents."""

import re

import pytest

from tests.commands import ROOT

AVOIDED = re.compile(
    r"\b(told|tells?|telling|mend(s|ed|ing)?|stands?|standing|beside|at hand|somebody|strangers?|whoever"
    r"|so many|anew|lest|nought|of one's own|drawn faces|surest|taken for whom)\b",
    re.IGNORECASE,
)
TEXTS = sorted(
    path
    for pattern in (
        "fer_lightning/**/*", "conf/**/*.yaml", "docs/**/*", "README.md", "CONTRIBUTING.md", "CITATION.cff",
        "mkdocs.yml", ".github/**/*",
    )
    for path in ROOT.glob(pattern)
    if path.suffix in (".py", ".yaml", ".yml", ".md", ".html", ".css", ".js", ".cff", ".svg")
)  # fmt: skip


def prose_of(path):
    """Return the lines of a file, without the output and the test names that docs/faults.md quotes."""
    lines = path.read_text(encoding="utf-8").replace("study.tell(", "").splitlines()  # a name of Optuna's
    if path.name != "faults.md":
        return lines
    rows = (re.split(r"(?<!\\)\|", line) for line in lines)
    return [" ".join(cells[1:3] + cells[5:6]) if len(cells) == 8 else " ".join(cells) for cells in rows]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_texts_use_the_words_of_the_field(path):
    found = {number: line for number, line in enumerate(prose_of(path), 1) if AVOIDED.search(line)}
    assert not found


def test_an_avoided_word_would_be_found():
    assert AVOIDED.search("what stands in the file")
    assert not AVOIDED.search("a standard, standalone extension")
