"""The parts of a page, each a function from plain values to markup, and the page that holds them.

Names of images, classes and runs come from strangers' files: whatever reaches a page goes through
``escape``, and the template's content policy forbids loading anything.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import naming, replacing
from fer_lightning.report.runs import Run, within


class Html(str):
    """Text that is markup already: made by this package, its strange parts escaped."""


def write(path: Path, title: str, sections: Iterable[str]) -> Path:
    """Write a self-contained page.

    Args:
        path: The page; its folder exists.
        title: The browser's title, as plain text.
        sections: Markup, in order; empty ones are left out.

    Returns:
        ``path``.
    """
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    html = template.substitute(title=escape(title), body="\n".join(filter(None, sections)))
    # File names that are not UTF-8 hold lone surrogates, which cannot be encoded.
    with replacing(path) as file:
        file.write(html.encode(errors="replace"))
    return path


def section(heading: str, *parts: str) -> str:
    """Head some markup; nothing at all if every part is empty."""
    content = "\n".join(filter(None, parts))
    return f"<section><h2>{escape(heading)}</h2>\n{content}</section>" if content else ""


def paragraph(text: str, css_class: str = "") -> str:
    """Write plain text, or ``Html``, as a paragraph; nothing if it is empty."""
    return f'<p class="{css_class}">{_inner(text)}</p>' if text else ""


def facts(pairs: Iterable[tuple[str, Any]]) -> str:
    """Write a list of names and values, without those that are not known."""
    known = [(name, value) for name, value in pairs if value not in (None, "", [], {})]
    items = "".join(f"<dt>{escape(name)}</dt><dd>{_inner(value)}</dd>" for name, value in known)
    return f"<dl>{items}</dl>" if items else ""


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[tuple[Any, Any]]],
    *,
    text_columns: int = 1,
    classes: Iterable[str] = (),
    label: str = "table",
) -> str:
    """Write a table whose columns sort; a wide one leaves the text's column, then scrolls in its own box.

    Args:
        headers: One a column.
        rows: Cells as (what is shown, what it sorts by); None sorts last.
        text_columns: How many of the first columns hold words.
        classes: A CSS class for each row, if any; ``"mean"`` shades it.
        label: What the table is, for those who hear the page.
    """
    styles = [' class="text"' if column < text_columns else "" for column in range(len(headers))]
    head = "".join(
        f"<th scope=col{style}><button>{escape(header)}</button></th>"
        for header, style in zip(headers, styles, strict=True)
    )
    row_classes = iter(classes)
    body = "\n".join(
        f'<tr class="{next(row_classes, "")}">'
        + "".join(
            f'<td{style} data-value="{escape("" if key is None else str(key))}">{_inner(shown)}</td>'
            for (shown, key), style in zip(row, styles, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    # A box that scrolls is reached by keyboard, and then says what it is.
    box = f'<div class="scroll" tabindex=0 role=region aria-label="{escape(label)}">'
    return f"{box}<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"


def image(path: Path, alt: str, caption: str) -> str:
    """Put a PNG into the page, with a caption; it enlarges when chosen.

    Args:
        path: The picture.
        alt: What it shows, for those who hear the page: short where the caption says the rest.
        caption: Stands below it and is read to everyone.
    """
    with naming(path):
        content = path.read_bytes()
    if not content.startswith(b"\x89PNG\r\n"):
        raise FERError(f"{path}: not a PNG picture; put one there, or remove it")
    data = base64.b64encode(content).decode("ascii")
    picture = f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}">'
    button = f'<button title="Enlarge">{picture}</button>'
    return f"<figure>{button}<figcaption>{escape(caption)}</figcaption></figure>"


def figure(run: Run, name: str, caption: str, alt: str = "") -> str:
    """Put ``figures/<name>.png`` of a run into the page; nothing if it was not drawn."""
    path = within(run.folder, f"figures/{name}.png")
    return image(path, alt or name.replace("_", " "), caption) if path.exists() else ""


def side_by_side(*parts: str) -> str:
    """Set figures beside one another, as many as fit; nothing if every part is empty."""
    return f'<div class="side">{"".join(parts)}</div>' if any(parts) else ""


def cards(numbers: Iterable[tuple[str, str, str]]) -> str:
    """Show a few numbers large: what it is, its value, and how to read it."""
    shown = "".join(
        f"<div><small>{escape(what)}</small><b>{escape(value)}</b><small>{escape(note)}</small></div>"
        for what, value, note in numbers
    )
    return f'<div class="cards">{shown}</div>' if shown else ""


def banners(runs: Sequence[Run]) -> str:
    """Say first what limits these runs' numbers: drawn faces, a run that failed or has not ended."""
    told = []
    if any(run.synthetic for run in runs):
        which = "" if all(run.synthetic for run in runs) else " for some of these runs"
        text = (
            f"Synthetic data{which}: the faces were drawn by a program. The numbers say nothing about people."
        )
        told.append(paragraph(text, "banner"))
    for run in runs:
        name = run.folder.name if len(runs) > 1 else "This run"
        if run.state in ("failed", "interrupted"):
            reason = f": {run.info['reason']}" if run.info.get("reason") else ""
            text = f"{name} {'failed' if run.state == 'failed' else 'was interrupted'}{reason}"
            told.append(paragraph(text, "banner bad"))
        elif run.state != "finished":
            text = f"{name} had not ended when the page was written, or was killed."
            told.append(paragraph(text, "banner"))
    return "\n".join(told)


def _inner(value: Any) -> str:
    return value if isinstance(value, Html) else escape(str(value))
