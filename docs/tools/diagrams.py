"""Draw the diagrams of docs/how_it_works.md, imports.svg and flow.svg: ``python docs/tools/diagrams.py``.

The arrows of imports.svg are read from the imports of the package; the places of the boxes are written here.
Text is in boxes of their own colour, so that both are legible on light and on dark pages.
"""

import ast
from pathlib import Path

DOCS = Path(__file__).parents[1]
PACKAGE = DOCS.parent / "fer_lightning"
WIDTH, FLOW_WIDTH, BOX, HEIGHT, STEP = 585, 440, 130, 44, 84

# Where each subpackage is (centre of its box, row from the top), its colour, and what it holds.
PLACES = {
    "cli": (220, 0, "#c5cae9", "what commands do"),
    "report": (75, 1, "#ffe0b2", "figures and pages"),
    "inference": (220, 1, "#c8e6c9", "photographs, export"),
    "llm": (365, 1, "#c8e6c9", "language models"),
    "search": (510, 1, "#ffe0b2", "search with Optuna"),
    "runs": (75, 2, "#ffe0b2", "run folders"),
    "evaluation": (292, 2, "#c8e6c9", "metrics, statistics"),
    "training": (292, 3, "#b3e5fc", "Lightning module"),
    "data": (220, 4, "#b3e5fc", "readers to batches"),
    "models": (365, 4, "#b3e5fc", "plain networks"),
    "config": (220, 5, "#e0e0e0", "plain data, checks"),
    "core": (220, 6, "#e0e0e0", "errors, files, signals"),
}
# What happens in a run, in order: the step, where its code is, and the files that it leaves.
FLOW = [
    ("python train.py model=cnn", "cli/hydra_commands.py", []),
    ("compose the config", "conf/, config/", []),
    ("build each part once", "training/build.py", []),
    ("lock the run folder", "runs/", ["config.yaml", "run.json"]),
    ("decode and audit the images", "data/", ["audit.json"]),
    ("train, choose an epoch", "training/", ["metrics.csv", "last.ckpt, best.ckpt"]),
    ("predict and measure", "evaluation/", ["predictions_test.npz", "metrics.json"]),
    ("explain, draw, write the page", "inference/, report/", ["figures/", "report.html"]),
]


def read_imports() -> dict[str, set[str]]:
    """Return, for each subpackage, the subpackages that it imports."""
    found: dict[str, set[str]] = {name: set() for name in PLACES}
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts[0]
        if own not in found or path.name == "__main__.py":  # an entry point, which calls cli
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            parts = [name.split(".") for name in names]
            found[own] |= {part[1] for part in parts if part[0] == "fer_lightning" and len(part) > 1}
    return {name: (imported & found.keys()) - {name} for name, imported in found.items()}


def direct_imports(imports: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Leave out imports that follow from others: if A imports B and B imports C, then A to C."""

    def reach(name: str) -> set[str]:
        return imports[name].union(*(reach(other) for other in imports[name]))

    return [
        (name, other)
        for name, imported in imports.items()
        for other in sorted(imported)
        if not any(other in reach(between) for between in imported - {other})
    ]


def draw_imports() -> str:
    """Return the SVG of the subpackages and their imports."""
    rows = 1 + max(row for _, row, _, _ in PLACES.values())
    parts = []
    for name, other in direct_imports(read_imports()):
        (x1, row1, _, _), (x2, row2, _, _) = PLACES[name], PLACES[other]
        if row2 - row1 > 1:  # past other boxes: down, then to its side
            side = x2 - BOX / 2 - 2
            parts.append(
                f'<path class="arrow" d="M{x1} {row1 * STEP + HEIGHT + 4}V{row2 * STEP + 26}H{side:g}"/>'
            )
            continue
        shift = max(-40, min(40, (x2 - x1) / 4))
        parts.append(
            f'<line class="arrow" x1="{x1 + shift:g}" y1="{row1 * STEP + HEIGHT + 4}" '
            f'x2="{x2 - shift:g}" y2="{row2 * STEP - 2}"/>'
        )
    for name, (x, row, colour, text) in PLACES.items():
        parts.append(_box(x - BOX / 2, row * STEP + 4, BOX, HEIGHT, colour))
        parts.append(_text(x, row * STEP + 22, name, "name"))
        parts.append(_text(x, row * STEP + 39, text, "small"))
    title = "The subpackages of fer_lightning; an arrow points to what is imported"
    return _svg(title, WIDTH, rows * STEP - STEP + HEIGHT + 8, parts)


def draw_flow() -> str:
    """Return the SVG of what happens in a run, with the files that each step leaves."""
    parts, step, width = [], 66, 244
    for number, (text, where, files) in enumerate(FLOW):
        y = number * step + 4
        if number + 1 < len(FLOW):
            middle = width / 2
            parts.append(
                f'<line class="arrow" x1="{middle:g}" y1="{y + HEIGHT}" x2="{middle:g}" y2="{y + step - 2}"/>'
            )
        parts.append(_box(2, y, width, HEIGHT, "#c5cae9" if not number else "#b3e5fc"))
        parts.append(_text(width / 2, y + 19, text, "name"))
        parts.append(_text(width / 2, y + 35, where, "small"))
        if files:
            parts.append(
                f'<line class="arrow" x1="{width + 4}" y1="{y + HEIGHT / 2:g}" '
                f'x2="{width + 36}" y2="{y + HEIGHT / 2:g}"/>'
            )
            parts.append(_box(width + 40, y, FLOW_WIDTH - width - 42, HEIGHT, "#fff9c4"))
            for line, file in enumerate(files):
                height = y + (27 if len(files) == 1 else 19 + 16 * line)
                parts.append(_text(width + 40 + (FLOW_WIDTH - width - 42) / 2, height, file, "file"))
    title = "What happens in a run, and the files that each step leaves"
    return _svg(title, FLOW_WIDTH, len(FLOW) * step - 14, parts)


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width}" height="{height}" rx="5" fill="{colour}"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{text}</text>'


def _svg(title: str, width: int, height: int, parts: list[str]) -> str:
    style = (
        ".arrow{fill:none;stroke:#8a8a8a;stroke-width:1.6;marker-end:url(#head)}"
        "text{font-family:sans-serif;text-anchor:middle;fill:#1b1b1b}"
        ".name{font-size:13.5px;font-weight:600}.small{font-size:11.5px;fill:#3a3a3a}.file{font-size:12.5px}"
    )
    head = (
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 8 4 0 8z" fill="#8a8a8a"/></marker>'
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f"<title>{title}</title>",
            f"<style>{style}</style>",
            f"<defs>{head}</defs>",
            *parts,
            "</svg>\n",
        ]
    )


DIAGRAMS = {"imports.svg": draw_imports, "flow.svg": draw_flow}

if __name__ == "__main__":
    for name, draw in DIAGRAMS.items():
        (DOCS / name).write_text(draw(), encoding="utf-8")
