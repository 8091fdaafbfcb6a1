import json
import os
import subprocess
import sys

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fer_lightning.cli.report import main
from fer_lightning.report import figures
from tests.commands import run


def report(*arguments, cwd):
    return run("-m", "fer_lightning.report", *arguments, cwd=cwd, cache=cwd)


def test_one_run_gets_its_page_rewritten(make_run, tmp_path):
    folder = make_run(n=60)

    done = report(folder, cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == str(folder / "report.html")
    assert (folder / "report.html").exists()


def test_sweep_folder_gets_a_comparison_page(make_run, tmp_path):
    make_run("sweep/0_cnn", n=60)

    done = report("sweep", cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.glob("outputs/reports/*/report.html")) == [tmp_path / done.stdout.strip()]


@pytest.mark.slow
def test_figures_for_papers_name_their_run_and_have_the_width(make_run, monkeypatch, tmp_path, capsys):
    folder = make_run(n=60)
    out = tmp_path / "paper"
    sized = ["--figures", "png", "--dpi", "100", "--width", "3.5", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["report", str(folder), *sized])

    assert main() == 0

    printed = capsys.readouterr().out.split()
    assert str(out / "confusion_test_cnn-on-fer-2013-seed-0.png") in printed
    assert sorted(printed) == sorted(map(str, out.iterdir()))
    assert len(printed) == 7
    for path in out.iterdir():
        with Image.open(path) as image:
            assert image.width == pytest.approx(350, abs=1)
            assert image.info["dpi"] == pytest.approx((100, 100), abs=0.1)
    assert not (folder / "report.html").exists()


@pytest.mark.usefixtures("fast_figures")
def test_figures_are_written_into_the_run_or_one_folder_per_run(make_run, monkeypatch, tmp_path):
    runs = [make_run(f"{seed}_cnn", n=60) for seed in range(2)]
    monkeypatch.setattr(sys, "argv", ["report", *map(str, runs), "--figures", "pdf"])
    assert main() == 0
    assert [len(list((run / "figures").glob("*seed-0.pdf"))) for run in runs] == [7, 7]
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--out", str(tmp_path / "out")])
    assert main() == 0
    assert [len(list((tmp_path / "out" / run.name).iterdir())) for run in runs] == [7, 7]


@pytest.mark.usefixtures("fast_figures")
def test_style_file_is_used_for_the_figures_of_the_command_only(make_run, monkeypatch, tmp_path):
    style = tmp_path / "mine.mplstyle"
    style.write_text("font.size: 6\n")
    sizes = []
    monkeypatch.setattr(
        Figure, "draw_without_rendering", lambda self: sizes.append(mpl.rcParams["font.size"])
    )
    command = ["report", str(make_run(n=60)), "--figures", "pdf", "--style", str(style)]
    monkeypatch.setattr(sys, "argv", command)

    assert main() == 0

    assert set(sizes) == {6.0}
    with figures.style_context():
        assert mpl.rcParams["font.size"] == 9


def test_user_error_is_one_line_and_exit_code_1(tmp_path):
    done = report("nowhere", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: nowhere: no run in it")
    assert "Traceback" not in done.stderr


def test_paper_with_wandb_logs_page_and_tables(make_paper_run, fast_figures, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setattr(sys, "argv", ["report", "sweep", "--paper", "--wandb", "--out", "shown"])
    make_paper_run("sweep/0_mlp", right=range(20))

    assert main() == 0

    output = capsys.readouterr().out
    [folder] = (tmp_path / "shown/wandb").glob("offline-run-*")
    assert "\n  wandb sync shown/wandb\n" in output
    records = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", "--json", next(folder.glob("*.wandb"))],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for key in ("report/page", "report/table_1", "report/table_2"):
        assert f'"{key}.' in records
    assert '"table_1/MLP":' in records
    [table] = folder.rglob("table_1_*.table.json")
    content = json.loads(table.read_text())
    assert content["columns"][0] == "model"
    [row] = [row for row in content["data"] if row[0] == "MLP"]
    assert row[2] == pytest.approx(100 * 20 / 56)


@pytest.mark.parametrize(
    ("info", "mark", "tags"),
    [
        ({}, "", None),
        ({"limited": ["trainer=smoke"]}, "_limited", ["limited"]),
        ({"limited": ["trainer=smoke"], "synthetic": True}, "_limited_synthetic", ["limited", "synthetic"]),
    ],
)
def test_report_in_wandb_is_tagged_and_has_the_newest_tables(
    info, mark, tags, make_paper_run, fast_figures, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    logged = {}

    class Logger:
        def __init__(self, **given):
            logged.update(given)

        def log_report(self, page, tables):
            logged["tables"] = {path.stem for path in tables}

        def log_summary(self, values):
            logged["summary"] = values

        def finish(self, code):
            logged["code"] = code

        def view_instructions(self):
            return ""

    monkeypatch.setattr("fer_lightning.training.loggers.wandb.FailsafeWandbLogger", Logger)
    for other in ("", "_limited", "_synthetic"):
        for name in ("table_1", "cost"):
            (tmp_path / "shown/tables").mkdir(parents=True, exist_ok=True)
            path = tmp_path / f"shown/tables/{name}{other}.csv"
            path.write_text("model,ours_percent\nold,1\n")
            os.utime(path, (1, 1))  # of an earlier report in the same folder
    make_paper_run("sweep/0_mlp", right=range(28), info=info)
    monkeypatch.setattr(sys, "argv", ["report", "sweep", "--paper", "--wandb", "--out", "shown"])

    assert main() == 0

    assert logged["tags"] == tags
    assert logged["tables"] >= {f"table_1{mark}", f"cost{mark}", "table_2_papers_pairs"}
    assert all(name.endswith(mark) for name in logged["tables"] - {"table_2_papers_pairs"})
    assert logged["summary"] == {"table_1/MLP": 50.0}


def test_wandb_without_paper_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["report", "sweep", "--wandb"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "--wandb needs --paper" in capsys.readouterr().err


def test_paper_writes_page_tables_and_figures(make_paper_run, fast_figures, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report", "sweep", "--paper"])
    make_paper_run("sweep/0_mlp")

    assert main() == 0

    page = tmp_path / capsys.readouterr().out.strip()
    assert page.parent.parent == tmp_path / "outputs/reports"
    assert (page.parent / "tables/table_1.csv").exists()
    assert (page.parent / "figures/figure_4_confusion.pdf").exists()


def test_full_disk_names_the_table(make_paper_run, fast_figures, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report", "sweep", "--paper", "--out", "shown"])
    make_paper_run("sweep/0_mlp")
    (tmp_path / "shown/tables").mkdir(parents=True)
    (tmp_path / "shown/tables/table_1.md").symlink_to("/dev/full")

    assert main() == 1

    assert capsys.readouterr().err.startswith("error: shown/tables/table_1.md: No space left on device; fix")
