"""Read the documents: their pages, code blocks and commands."""

import re
from typing import NamedTuple

from tests.commands import ROOT

# What describes the present; EXPERIMENTS.md and CHANGELOG.md have commands of their time.
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks/README.md",
    ROOT / "conf/hydra/help/train.yaml",
    ROOT / "conf/hydra/help/eval.yaml",
    *sorted((ROOT / "docs").rglob("*.md")),
]


class Command(NamedTuple):
    """A line of a document that a reader would paste: the document, and the line without its comment."""

    document: str
    line: str


def blocks_of(document, language=""):
    """Return the code blocks of a document in this language; commands have none, listings have ``text``."""
    text = document.read_text(encoding="utf-8")
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [
        "\n".join(line.removeprefix(indent) for line in code.splitlines()) + "\n"
        for indent, given, code in found
        if given == language
    ]


def examples_of(document):
    """Return the examples of a help text of Hydra, without the lines that continue a comment."""
    text = document.read_text(encoding="utf-8").rpartition("  Examples\n")[2].partition("\n\n")[0]
    return "\n".join(line for line in text.splitlines() if not line.startswith(" " * 8))


def commands():
    """Return every command of the documents, each once."""
    found = []
    for document in DOCUMENTS:
        name = document.relative_to(ROOT).as_posix()
        blocks = [examples_of(document)] if document.suffix == ".yaml" else blocks_of(document)
        for line in "\n".join(blocks).splitlines():
            text = re.sub(r"(^|\s+)#.*$|\s{2,}\S.*$", "", line.strip())
            found += [Command(name, part) for part in text.split(" && ") if part]
    return sorted(set(found))
