"""The site: mkdocs.yml names every page, and what is built is complete and works offline."""

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
import yaml

import fer_lightning
from tests.commands import ROOT

DOCS = ROOT / "docs"


def load_tool(name):
    """Import a module of docs/tools, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"tools/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages_in(nav):
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from pages_in(value) if isinstance(value, list) else [value]


@pytest.fixture(scope="module")
def nav():
    return list(pages_in(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))


def test_navigation_names_every_page_once(nav):
    pytest.importorskip("mkdocs")
    included = load_tool("hooks").INCLUDED
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert not written & included.keys()
    assert sorted(nav) == sorted(written | included.keys())
    assert all((ROOT / file).is_file() for file in included.values())


def test_every_page_is_linked_from_the_readme_or_below_it(nav):
    linked = set(re.findall(r"\]\((?:docs/)?([\w/]+\.md)", (ROOT / "README.md").read_text()))
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.glob("*.md")} | {"api/index.md"}
    assert written <= linked
    assert {"CONTRIBUTING.md", "CHANGELOG.md", "EXPERIMENTS.md", "benchmarks/README.md"} <= linked


def test_modules_and_diagrams_are_those_of_the_package():
    modules = load_tool("modules")
    page = modules.PAGE.read_text(encoding="utf-8")
    assert modules.with_modules(page) == page, "run python docs/tools/modules.py"
    assert page.count("\n| `") >= 200
    for name, draw in load_tool("diagrams").DIAGRAMS.items():
        assert draw() == (DOCS / name).read_text(encoding="utf-8"), "run python docs/tools/diagrams.py"


def test_every_module_has_a_row():
    modules = load_tool("modules")
    assert set(modules.SUBPACKAGES) == {
        path.name for path in modules.PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").is_file()
    } - {"export", "predict"}  # entry points of python -m
    listed = set(re.findall(r"^\| `(\S+)` \|", modules.PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    names = [
        path.relative_to(modules.PACKAGE / path.relative_to(modules.PACKAGE).parts[0]).as_posix()
        for path in modules.PACKAGE.rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    ]
    assert listed >= set(names)


def test_diagram_leaves_out_imports_that_follow_from_others():
    diagrams = load_tool("diagrams")
    imports = {"a": {"b", "c"}, "b": {"c"}, "c": set()}
    assert diagrams.direct_imports(imports) == [("a", "b"), ("b", "c")]


def test_every_public_name_is_in_the_api_reference():
    text = (DOCS / "api/index.md").read_text(encoding="utf-8")
    documented = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    homes = {name: f"fer_lightning.{module}.{name}" for name, module in fer_lightning._HOMES.items()}
    assert set(homes.values()) <= set(documented)


LINKS = {
    ("see [A](../CONTRIBUTING.md#style)", "data.md"): "see [A](contributing.md#style)",
    ("[B](data.md)", "api/index.md"): "[B](data.md)",
    ("[B](../data.md#splits)", "api/data.md"): "[B](../data.md#splits)",
    ("[C](docs/api/index.md)", "index.md"): "[C](api/index.md)",
    ("[D](../conf/train.yaml) too", "data.md"): "D too",
    ("![E](docs/predict.jpg)", "index.md"): "![E](predict.jpg)",
    ("`[F](x.md)`", "data.md"): "`[F](x.md)`",
    ("[G](https://a.org)", "data.md"): "[G](https://a.org)",
    ("[H](missing.md)", "data.md"): None,
}


@pytest.mark.parametrize(("markdown", "page"), LINKS)
def test_links_lead_to_pages(markdown, page):
    pytest.importorskip("mkdocs")
    hooks = load_tool("hooks")
    expected = LINKS[markdown, page]
    if expected is None:
        with pytest.raises(hooks.PluginError, match="links to missing.md, which does not exist"):
            hooks.rewrite_links(markdown, page)
    else:
        assert hooks.rewrite_links(markdown, page) == expected


# The built site


class Page(HTMLParser):
    """What a page loads, where it links to, and the ids of its elements."""

    def __init__(self, html):
        super().__init__()
        self.loaded, self.links, self.ids = [], [], set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if given.get("id"):
            self.ids.add(given["id"])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag == "link" and "stylesheet" in given.get("rel", ""):
            self.loaded.append(given["href"])
        elif given.get("src"):
            self.loaded.append(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages of the site by their path, built as ``make docs`` does."""
    pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, {
        path.relative_to(folder).as_posix(): Page(path.read_text()) for path in folder.rglob("*.html")
    }


@pytest.mark.slow
def test_built_site_has_every_page_and_no_broken_link(site, nav):
    folder, pages = site
    assert {page.replace(".md", ".html") for page in nav} <= pages.keys()
    for name, page in pages.items():
        if name == "404.html":
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                assert parts.scheme in ("https", "mailto"), link
                continue
            target = (folder / name).parent / unquote(parts.path) if parts.path else folder / name
            if target.is_dir():
                target /= "index.html"
            assert target.is_file(), (name, link)
            if parts.fragment and target.suffix == ".html":
                ids = pages[target.resolve().relative_to(folder.resolve()).as_posix()].ids
                assert unquote(parts.fragment) in ids or parts.fragment.startswith("__"), (name, link)


@pytest.mark.slow
def test_built_site_loads_its_own_files_alone(site):
    folder, pages = site
    for name, page in pages.items():
        for source in page.loaded:
            assert not urlsplit(source).scheme, (name, source)
            assert not urlsplit(source).netloc, (name, source)
    for path in folder.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//|@import", path.read_text()), path


@pytest.mark.slow
def test_built_reference_shows_signatures_and_arguments(site):
    folder, _ = site
    text = (folder / "api/index.html").read_text()
    for name in fer_lightning.__all__:
        assert f'id="fer_lightning.{fer_lightning._HOMES[name]}.{name}"' in text
    assert "batch_size" in text
    figures = (folder / "api/figures.html").read_text()
    assert 'id="fer_lightning.report.figures.confusion.confusion_matrix"' in figures
    assert "rows true, columns predicted" in figures
    text = (folder / "api/evaluation.html").read_text()
    returned = text.partition("Plain numbers: the scalars and their 95 % intervals")[2]
    assert "<li" not in returned.partition("None if these are not known")[0]  # a text of several lines
