"""Write the list of modules into docs/how_it_works.md: ``python docs/tools/modules.py``.

One table for each subpackage, one row for each module: the first line of its docstring.
"""

import ast
from pathlib import Path

DOCS = Path(__file__).parents[1]
PACKAGE = DOCS.parent / "fer_lightning"
PAGE = DOCS / "how_it_works.md"
BEGIN, END = "<!-- modules -->", "<!-- /modules -->"
# From the lowest to the highest: a subpackage imports only from those above it.
SUBPACKAGES = (
    "core", "config", "data", "models", "training", "evaluation", "inference", "llm", "runs", "report",
    "search", "cli",
)  # fmt: skip


def first_line(path: Path) -> str:
    """Return the first line of a module's docstring, as Markdown."""
    text = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    return text.replace("``", "`").removesuffix(".").replace("|", "\\|")


def list_modules() -> str:
    """Return a heading and a table for each subpackage."""
    parts = []
    for name in SUBPACKAGES:
        folder = PACKAGE / name
        rows = ["| module | what |", "| --- | --- |"]
        for path in sorted(folder.rglob("*.py"), key=lambda path: (path.parent != folder, path)):
            inner = path.relative_to(folder).as_posix()
            if inner == "__init__.py" or path.name == "__main__.py":
                continue
            rows.append(f"| `{inner.removesuffix('__init__.py')}` | {first_line(path)} |")
        parts += [f"### {name}/", f"{first_line(folder / '__init__.py')}.", "\n".join(rows)]
    return "\n\n".join(parts)


def with_modules(page: str) -> str:
    """Return the text of the page with the list of today's modules."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{list_modules()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(with_modules(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
