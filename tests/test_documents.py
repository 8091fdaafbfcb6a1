"""Paths in the documents exist, CONTRIBUTING's example works, and docs/faults.md names existing tests."""

import io
import re
import shutil
from contextlib import redirect_stdout

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from fer_lightning import FERPredictor
from fer_lightning.inference.annotate import annotate
from tests.commands import ROOT, TINY, succeed
from tests.faults.fault_table import TABLE, read_faults


def test_every_path_of_the_tree_exists():
    text = (ROOT / "docs/how_it_works.md").read_text()
    tree = text.rpartition("## The repository")[2].split("```")[1].removeprefix("text")
    folders: list[str] = []
    lines = tree.strip().splitlines()
    assert len(lines) > 30
    for line in lines:
        depth = (len(line) - len(line.lstrip())) // 2
        names = re.match(r"(?:\S+, )*\S+", line.strip())[0].split(", ")
        folders = [*folders[:depth], names[-1]]
        for name in names:
            assert (ROOT / "".join([*folders[:depth], name])).exists(), line


@pytest.mark.slow
def test_a_model_is_added_as_contributing_says(tmp_path):
    text = (ROOT / "CONTRIBUTING.md").read_text()
    module, config = (
        re.search(rf"`({path}/linear\.\w+)`.*?```{language}\n(.*?)```", text, re.DOTALL).groups()
        for path, language in (("fer_lightning/models", "python"), ("conf/model", "yaml"))
    )
    for name in ("conf", "fer_lightning"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "train.py", tmp_path)
    for path, code in (module, config):
        lines = code.splitlines()
        (tmp_path / path).write_text("\n".join(line.removeprefix("   ") for line in lines) + "\n")
    assert (
        "linear" in succeed("train.py", "--help", cwd=tmp_path, cache=tmp_path, script_root=tmp_path).stdout
    )
    succeed(
        "train.py", "model=linear", *TINY, "trainer=smoke", "logger=none", "hydra.run.dir=run",
        cwd=tmp_path, cache=tmp_path, script_root=tmp_path,
    )  # fmt: skip
    assert (tmp_path / "run/report.html").is_file()
    shutil.copytree(ROOT / "tests", tmp_path / "tests")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    tested = ("-n0", "tests/models/test_models.py", "-k", "linear")
    done = succeed("-m", "pytest", *tested, cwd=tmp_path, cache=tmp_path, script_root=tmp_path)
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


class Collector:
    """Pytest plugin that keeps, by name, whether a collected test is slow."""

    def pytest_collection_finish(self, session):
        self.is_slow = {
            item.nodeid.removeprefix("tests/faults/"): bool(item.get_closest_marker("slow"))
            for item in session.items
        }


@pytest.fixture(scope="module")
def fault_tests():
    """Every test in tests/faults, as docs/faults.md names it: collected by pytest within this process."""
    collector = Collector()
    options = ("--collect-only", "-qq", "-n0", "-m", "slow or not slow", "-p", "no:faulthandler")
    with redirect_stdout(io.StringIO()):
        code = pytest.main([*options, "--rootdir", str(ROOT), str(ROOT / "tests/faults")], [collector])
    assert code == pytest.ExitCode.OK
    return collector.is_slow


def test_every_row_of_the_faults_names_a_test_and_says_all_it_should(fault_tests):
    rows = read_faults()
    assert rows
    assert set(rows) <= set(fault_tests)
    for row in rows.values():
        assert row.fault, row
        assert row.provoked_by, row
        assert row.kept, row
        assert row.message or row.exit_code not in (0, 1), f"only a stopped process may print nothing: {row}"


def test_every_test_that_asks_for_its_row_has_one(fault_tests):
    for path in (ROOT / "tests/faults").glob("test_*.py"):
        for name in re.findall(r"^def (test_\w+)\([^)]*\bfault_row\b", path.read_text(), re.MULTILINE):
            rows = {test for test in fault_tests if re.fullmatch(rf"{path.name}::{name}(\[.*\])?", test)}
            assert rows
            assert rows <= set(read_faults()), path


def test_rows_marked_slow_are_those_of_slow_tests(fault_tests):
    marked = set(re.findall(r"`([^`]+)` \*slow\* \|$", TABLE.read_text(), re.MULTILINE))
    assert marked == {test for test in read_faults() if fault_tests[test]}


def test_first_image_of_the_readme_is_what_predict_draws():
    photograph = Image.fromarray(astronaut())
    drawn = annotate(photograph, FERPredictor.load()(photograph)).crop((0, 0, 512, 288))
    shown = np.asarray(Image.open(ROOT / "docs/predict.jpg"), int)
    assert np.abs(shown - np.asarray(drawn, int)).mean() < 3  # of 255: JPEG
