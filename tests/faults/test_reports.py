"""Reports of run folders with foreign content, and on disks that cannot be written."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fer_lightning.report.figures import language
from tests.commands import TINY, environment, run, succeed
from tests.faults.test_disk import disk, enlarge  # noqa: F401 - disk is a fixture

REPORT = ("-m", "fer_lightning.report")


@pytest.fixture(scope="module")
def finished(cache, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("cwd")
    small = ("model=mlp", "model.hidden=[16]", *TINY, "data.image_size=16", "logger=none")
    succeed("train.py", *small, "trainer=smoke", "hydra.run.dir=run", cwd=cwd, cache=cache)
    return cwd / "run"


@pytest.fixture
def foreign_run(finished, tmp_path):
    """Copy a run folder, and put a private file next to it."""
    (tmp_path / "netrc").write_text("password hunter2")
    return shutil.copytree(finished, tmp_path / "run")


LINKS = ("config.yaml", "figures/samples.svg", "audit.json")


@pytest.mark.parametrize("name", LINKS)
def test_link_out_of_a_run_folder_is_not_followed_into_a_page(name, foreign_run, fault_row, cache, tmp_path):
    (foreign_run / "report.html").unlink()
    (foreign_run / name).unlink()
    (foreign_run / name).symlink_to(tmp_path / "netrc")
    fault_row.check(run(*REPORT, "run", cwd=tmp_path, cache=cache))
    assert not (foreign_run / "report.html").exists()


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_figure_that_is_no_image_is_refused(suffix, foreign_run, fault_row, cache, tmp_path):
    (foreign_run / "figures/samples.svg").unlink()
    (foreign_run / f"figures/samples.{suffix}").write_text("password hunter2")
    fault_row.check(run(*REPORT, "run", cwd=tmp_path, cache=cache))


@pytest.mark.parametrize(
    "options",
    [
        "--figures png --dpi 0",
        "--figures pdf --dpi 600",
        "--figures pdf --width 300mm",
        "--width 3.5",
        "--figures pdf --style missing.mplstyle",
        "--figures pdf --lang klingon",
        "--figures pdf --lang missing.yaml",
        "--lang de",
    ],
)
def test_figure_option_that_is_wrong_is_named(options, finished, fault_row, cache, tmp_path):
    out = tmp_path / "out"
    fault_row.check(run(*REPORT, finished, *options.split(), "--out", out, cwd=tmp_path, cache=cache))
    assert not out.exists()


def test_language_file_that_lacks_texts_is_named(finished, fault_row, cache, tmp_path):
    english = Path(language.__file__).with_name("lang") / "en.yaml"
    text = english.read_text(encoding="utf-8").replace("  loss:", "  losss:")
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    options = ("--figures", "pdf", "--lang", "mine.yaml", "--out", "out")
    fault_row.check(run(*REPORT, finished, *options, cwd=tmp_path, cache=cache))
    assert not (tmp_path / "out").exists()


def test_run_without_results_has_no_figures_to_write(fault_row, cache, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("seed: 0\n")
    fault_row.check(run(*REPORT, "run", "--figures", "pdf", cwd=tmp_path, cache=cache))


def test_deeply_nested_audit_is_refused(foreign_run, fault_row, cache, tmp_path):
    (foreign_run / "audit.json").write_text("[" * 100_000)
    fault_row.check(run(*REPORT, "run", cwd=tmp_path, cache=cache))


@pytest.mark.parametrize("name", ["explanations_test.npz", "embeddings_test.npz"])
def test_explanations_that_were_cut_off_are_refused(name, foreign_run, fault_row, cache, tmp_path):
    before = (foreign_run / "report.html").read_bytes()
    content = (foreign_run / name).read_bytes()
    (foreign_run / name).write_bytes(content[: len(content) // 2])
    fault_row.check(run(*REPORT, "run", cwd=tmp_path, cache=cache))
    assert (foreign_run / "report.html").read_bytes() == before


def test_report_on_a_read_only_disk_names_the_file(
    disk,  # noqa: F811
    foreign_run,
    fault_row,
    cache,
    tmp_path,
):
    enlarge(disk)
    shutil.copytree(foreign_run, disk / "run")
    (disk / "run/report.html").unlink()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    fault_row.check(run(*REPORT, "disk/run", cwd=tmp_path, cache=cache))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    "command",
    ["fer_lightning.report run", "fer_lightning.predict x.png", "fer_lightning.data.audit"],
)
def test_command_stopped_during_imports_has_the_signals_exit_code(command, number, code, tmp_path):
    endless = "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    (tmp_path / "hydra.py").write_text(endless)  # shadows the library, which all commands import
    process = subprocess.Popen(
        [sys.executable, "-m", *command.split()],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (code, "")
