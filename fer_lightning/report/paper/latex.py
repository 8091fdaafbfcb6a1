"""Tables as LaTeX, in the style of the package booktabs."""

import re
from collections.abc import Iterable, Sequence

_ESCAPES = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "\N{EM DASH}": "---",
    "\N{EN DASH}": "--",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    "\N{MINUS SIGN}": "$-$",
}


def escape(text: str) -> str:
    """Return a text that LaTeX sets as it is; line breaks become spaces."""
    return "".join(_ESCAPES.get(character, character) for character in " ".join(text.split()))


def latex_table(
    *,
    label: str,
    title: str,
    note: str,
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    text_columns: int,
) -> str:
    """Return a ``table`` environment with caption, label and note.

    Args:
        label: References name it ``tab:<label>``.
        title: The caption.
        note: Explanation below the table.
        headers: One text per column.
        rows: One text per column.
        text_columns: Number of leading columns that hold text; the others are aligned to the right.
    """
    columns = "l" * text_columns + "r" * (len(headers) - text_columns)
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(title)}}}",
            rf"\label{{tab:{re.sub('[^A-Za-z0-9:-]', '-', label)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            _line(headers),
            r"\midrule",
            *map(_line, rows),
            r"\bottomrule",
            r"\end{tabular}",
            *([rf"\par\smallskip\raggedright\footnotesize {escape(note)}"] if note else []),
            r"\end{table}",
            "",
        ]
    )


def _line(cells: Iterable[str]) -> str:
    return " & ".join(map(_cell, cells)) + r" \\"


def _cell(text: str) -> str:
    """Escape a cell: its sign is a minus, and it does not begin like an option of the line before it."""
    escaped = re.sub(r"^-(?=[\d.])", "$-$", escape(text))
    return f"{{{escaped}}}" if escaped[:1] in ("[", "*") else escaped
