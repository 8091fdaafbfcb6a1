"""The structure of the package, read from its imports and definitions."""

import ast
from pathlib import Path

import pytest

from tests.commands import ROOT

PACKAGE = ROOT / "fer_lightning"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = {"module": 400, "function": 60, "script": 60}

# What each subpackage may import, besides itself.
ALLOWED = {
    "core": set(),
    "config": {"core"},
    "data": {"core", "config"},
    "models": {"core", "config"},
    "training": {"core", "config", "data", "models"},
    "evaluation": {"core", "config", "data", "models", "training"},
    "inference": {"core", "config", "data", "models", "training", "evaluation"},
    "llm": {"core", "config", "data", "models", "training", "evaluation"},
    "runs": {"core", "config"},
    "report": {"core", "config", "evaluation", "runs"},
    "search": {"core", "config", "runs"},
    "cli": {
        "core", "config", "data", "models", "training", "evaluation", "inference", "llm", "runs", "report",
        "search",
    },
}  # fmt: skip
# What the report knows of data: names and published facts, the images of a sample.
REPORT_READS = {
    "fer_lightning.data.labels",
    "fer_lightning.data.sampling",
    "fer_lightning.data.audit.quality",
}
# `python -m ...`
ENTRY_POINTS = {
    "__main__.py", "data/audit/__main__.py", "export/__main__.py", "predict/__main__.py",
    "report/__main__.py",
}  # fmt: skip


def imports_of(path):
    """Name the modules of this package that a file imports, also within functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name for name in found if name.startswith("fer_lightning.")}


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way(path):
    own = name_of(path).split("/")[0]
    if name_of(path) in ENTRY_POINTS or own == "__init__.py":
        return
    names = imports_of(path)
    if own == "report":
        names = {name for name in names if not any(name.startswith(module) for module in REPORT_READS)}
    imported = {name.split(".")[1] for name in names} & (ALLOWED.keys() | {"export", "predict"})
    assert imported - {own} <= ALLOWED.get(own, set()), name_of(path)


def test_no_module_lies_flat_in_the_package():
    assert {path.name for path in PACKAGE.glob("*.py")} <= {"__init__.py", "__main__.py"}


def test_models_know_nothing_of_lightning():
    for path in (PACKAGE / "models").glob("*.py"):
        assert "lightning" not in path.read_text(encoding="utf-8").replace("fer_lightning", ""), path


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES["module"]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < MAX_LINES["function"], node.name


@pytest.mark.parametrize("name", ["train.py", "eval.py"])
def test_scripts_are_short_and_nothing_imports_them(name):
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= MAX_LINES["script"]
    stem = Path(name).stem
    for path in [*MODULES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            assert stem not in names, path
