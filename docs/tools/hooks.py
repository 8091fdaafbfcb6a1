"""Hooks of mkdocs: pages from files outside docs/, and links between all of them.

Links are written for those who read the Markdown: relative to the file that they are written in. Here they
become links between pages. A link to a file of the repository that is no page becomes its text.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
INCLUDED = {  # page: the file of the repository that it shows
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "experiments.md": "EXPERIMENTS.md",
    "speed.md": "benchmarks/README.md",
    "model_card.md": "fer_lightning/inference/weights/resnet15.md",
}
WIDE = {"faults.md"}  # pages with tables of long texts in many columns
_PAGES = {file: page for page, file in INCLUDED.items()}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^( *)```.*?^\1```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that are written in files outside docs/."""
    for page, file in INCLUDED.items():
        text = _FRONT_MATTER.sub("", (ROOT / file).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Turn the links of a page from paths in the repository into paths in the site."""
    return rewrite_links(markdown, page.file.src_uri)


def on_page_content(html: str, *, page: Page, **_: Any) -> str:
    """Show ``|`` in code of tables, which Markdown wants escaped, and mark the tables of long texts."""
    html = re.sub(r"<td.*?</td>", lambda cell: cell[0].replace("\\|", "|"), html, flags=re.DOTALL)
    return html.replace("<table>", "<table data-wide>") if page.file.src_uri in WIDE else html


def rewrite_links(markdown: str, page: str) -> str:
    """Return the text of a page with links to pages and files of the site, and without those to other files.

    Args:
        markdown: Text, with links relative to the file that it is written in.
        page: Path of the page in docs/, such as ``api/index.md``.

    Raises:
        PluginError: A link names a file that does not exist.
    """
    kept: list[str] = []  # code, in which nothing is a link

    def hide(found: re.Match[str]) -> str:
        kept.append(found[0])
        return f"\0{len(kept) - 1}\0"

    def link(found: re.Match[str]) -> str:
        exclamation, text, target = found.groups()
        text = _LINK.sub(link, text)
        if re.match(r"[a-z]+:|#", target):
            return f"{exclamation}[{text}]({target})"
        path, _, anchor = target.partition("#")
        new = site_path(path, page)
        if new is None:
            return text
        return f"{exclamation}[{text}]({new}{'#' + anchor if anchor else ''})"

    text = _LINK.sub(link, _FENCE.sub(hide, markdown))
    while "\0" in text:
        text = re.sub("\0(\\d+)\0", lambda found: kept[int(found[1])], text)
    return text


def site_path(path: str, page: str) -> str | None:
    """Return a linked path relative to a page, or None for a file that is not in the site."""
    written_in = INCLUDED.get(page, f"docs/{page}")
    file = posixpath.normpath(posixpath.join(posixpath.dirname(written_in), path))
    if not (ROOT / file).exists():
        raise PluginError(f"{written_in}: links to {path}, which does not exist")
    if file in _PAGES:
        return posixpath.relpath(_PAGES[file], posixpath.dirname(page) or ".")
    if file.startswith("docs/") and (ROOT / file).is_file():
        return posixpath.relpath(file.removeprefix("docs/"), posixpath.dirname(page) or ".")
    return None
