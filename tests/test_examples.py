"""The notebooks of examples/ run from their first cell to their last."""

import nbformat
import pytest
from nbclient import NotebookClient

from tests.commands import ROOT, environment

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
FEW = "trainer=smoke data.source.num_train=140 data.source.num_val=140 data.source.num_test=42"


def outputs(cell):
    """What a cell printed and displayed, as text."""
    return "".join(
        each.get("text", "") or each.get("data", {}).get("text/plain", "") for each in cell["outputs"]
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_without_outputs(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


@pytest.mark.slow
def test_quickstart_predicts_trains_and_shows_the_report(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    for name, value in environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "examples/quickstart.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("trainer.max_epochs=5", FEW)  # the command as typed takes a minute
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    photograph, annotated, trained, report, metrics, mine = [
        outputs(cell) for cell in notebook.cells if cell.cell_type == "code"
    ]
    assert "happy" in photograph
    assert "PIL.Image.Image" in annotated
    assert "CNN, 980,679 parameters" in trained
    assert "IFrame" in report
    assert (tmp_path / "outputs/quickstart/report.html").is_file()
    assert "test accuracy 0." in metrics
    assert mine.count("'") == 2 * 8
