"""Render self-contained HTML pages from the templates in ``templates/``.

Names of images, classes and runs come from files that anybody may have written: templates escape every value,
and the pages' content security policy allows nothing to be loaded.
"""

import base64
import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import naming, replacing
from fer_lightning.core.names import slug
from fer_lightning.report.run_results import RunResults, path_inside

_SHORT = 16  # characters; shorter cells are not broken
# After a separator, but not before the thousands of a number.
_BREAKS = r"(?<=[_,=/;:&])(?=[^\s_,=/;:&])(?!(?<=\d,)\d{3}(?!\d))|(?<=[a-z]\.)(?=[a-z])"

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def sections(body: str) -> list[tuple[str, str]]:
    """Return id and heading of each section of a page, for its list of contents."""
    return [(name, html.unescape(text)) for name, text in _SECTION.findall(body)]


_SECTION = re.compile('<section id="([^"]*)"><h2>(.*?)</h2>')
TEMPLATES.filters |= {"slug": slug, "sections": sections}


class TableCell(NamedTuple):
    """One cell of a table on a page.

    Attributes:
        text: What is shown.
        sort_key: The value by which its column sorts; None sorts last.
        link: URL to which the text links.
        badge: A word after the text that marks it, such as ``best``.
    """

    text: str
    sort_key: Any = None
    link: str | None = None
    badge: str | None = None


@dataclass(frozen=True)
class Table:
    """A table on a page.

    Attributes:
        headers: One text per column.
        rows: Cells, one sequence per row.
        text_columns: Number of leading columns that hold text; the others hold numbers.
        row_classes: CSS class of each row, or none at all; ``"mean"`` shades a row.
        label: Name of the table for screen readers.
        more_text: Positions of further columns that hold text.
        sorted_by: Position of the column by which the rows are sorted, the largest value first; None if they
            are not sorted.
        filtered: Whether the page's filter box hides rows of it.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    text_columns: int = 1
    row_classes: Sequence[str] = ()
    label: str = "table"
    more_text: Sequence[int] = ()
    sorted_by: int | None = None
    filtered: bool = False

    @property
    def text_positions(self) -> set[int]:
        """Positions of the columns that hold text."""
        return {*range(self.text_columns), *self.more_text}


class Image(NamedTuple):
    """A figure on a page.

    Attributes:
        source: The SVG or PNG as a ``data:`` URI.
        alt: Text alternative for screen readers; short where the caption says the rest.
        caption: Text below the figure.
    """

    source: str
    alt: str
    caption: str


def breakable(text: object) -> Markup:
    """Escape a name; a long one may be broken after its separators, so that it breaks within no word."""
    if len(str(text)) <= _SHORT:
        return escape(str(text))
    return Markup("<wbr>").join(re.split(_BREAKS, str(text)))


TEMPLATES.filters["breakable"] = breakable


def text_cell(text: str) -> TableCell:
    """Make a cell that sorts by its text."""
    return TableCell(text, text)


def embed_png(path: Path, alt: str, caption: str) -> Image:
    """Read a PNG file into a ``data:`` URI."""
    with naming(path):
        content = path.read_bytes()
    if not content.startswith(b"\x89PNG\r\n"):
        raise FERError(f"{path}: not a PNG image; put one there, or remove it")
    return Image(f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}", alt, caption)


def embed_svg(path: Path, alt: str, caption: str) -> Image:
    """Read an SVG file into a ``data:`` URI, in which dark mode has light ink.

    In an ``img`` its scripts do not run, and it loads nothing.
    """
    with naming(path):
        content = path.read_bytes()
    start = re.search(rb"<svg\b[^>]*>", content)
    if not start:
        raise FERError(f"{path}: not an SVG image; put one there, or remove it")
    root = re.sub(rb'(width|height)="([\d.]+)pt"', _enlarge, start[0])
    content = content[: start.start()] + root + _DARK_MODE + content[start.end() :]
    content = content.replace(b"'DejaVu Sans'", b"'DejaVu Sans', Verdana, sans-serif")
    return Image(f"data:image/svg+xml;base64,{base64.b64encode(content).decode('ascii')}", alt, caption)


def _enlarge(found: re.Match[bytes]) -> bytes:
    """Make the text of a figure, 9 points on paper, about as large as that of the page."""
    return b'%s="%.1fpt"' % (found[1], 1.25 * float(found[2]))


# Ink, muted ink and grid of figures/figures.mplstyle, and what they are on the dark page.
_DARK_INK = {"222222": "e4e8ec", "8a8a8a": "9aa6b1", "e4e4e4": "363e47"}
_DARK_INK |= {"fefefe": "14181c", "a8201a": "ff8a80"}  # the ground below texts, the mark of limited runs
_DARK_MODE = (
    "".join(
        f'[style*="{kind}: #{light}"] {{ {kind}: #{dark} !important }} '
        for light, dark in _DARK_INK.items()
        for kind in ("fill", "stroke")
    )
    .join(("<style>@media screen and (prefers-color-scheme: dark) { ", "}</style>"))
    .encode()
)


def run_figure(run: RunResults, name: str, caption: str, alt: str = "") -> Image | None:
    """Embed ``figures/<name>.svg`` of a run, else its ``.png``, or return None if neither exists.

    Args:
        run: The run.
        name: Name of the file, without suffix.
        caption: Text below the figure.
        alt: Text alternative; by default the name in words.
    """
    for suffix, embed in (("svg", embed_svg), ("png", embed_png)):
        path = path_inside(run.folder, f"figures/{name}.{suffix}")
        if path.exists():
            return embed(path, alt or name.replace("_", " "), caption)
    return None


def run_banners(runs: Sequence[RunResults]) -> list[tuple[str, bool]]:
    """Return what limits the results of some runs: synthetic data, images left out, no end.

    Returns:
        Pairs of a text and whether it reports a failure.
    """
    banners = []
    if any(run.synthetic for run in runs):
        which = "" if all(run.synthetic for run in runs) else " in some of these runs"
        text = f"Synthetic faces{which}: results do not transfer to photographs of people."
        banners.append((text, False))
    if limited := [run for run in runs if run.limited]:
        limits = ", ".join(dict.fromkeys(limit for run in limited for limit in run.limited))
        count = f"All {len(runs)}" if len(limited) == len(runs) else f"{len(limited)} of {len(runs)}"
        which = "Limited run" if len(runs) == 1 else f"{count} runs are limited"
        banners.append((f"{which} ({limits}): the numbers are not results.", True))
    ends: dict[tuple[str, bool], list[str]] = {}  # runs that ended alike share a banner
    for run in runs:
        if run.state != "finished":
            ends.setdefault(_end_of_run(run), []).append(run.folder.name if len(runs) > 1 else "This run")
    return banners + [(f"{', '.join(names)} {end}", bad) for (end, bad), names in ends.items()]


def _end_of_run(run: RunResults) -> tuple[str, bool]:
    """Say how a run ended that did not finish, and whether that is a failure."""
    verbs = {"failed": "failed", "interrupted": "was interrupted", "damaged": "has a damaged file"}
    if run.state not in verbs:
        return "was still running when this page was written, or was killed.", False
    return verbs[run.state] + (f": {run.info['reason']}" if run.info.get("reason") else ""), True


def render_page(path: Path, template: str, **context: Any) -> Path:
    """Write a page.

    Args:
        path: The page; its folder exists.
        template: A file in ``templates/``.
        context: The template's variables.

    Returns:
        ``path``.
    """
    text = TEMPLATES.get_template(template).render(context)
    # File names that are not UTF-8 contain lone surrogates, which cannot be encoded.
    with replacing(path) as file:
        file.write(text.encode(errors="replace"))
    return path


def drop_missing(images: Iterable[Image | None]) -> list[Image]:
    """Return the figures that exist."""
    return [image for image in images if image]
