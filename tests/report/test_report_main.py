import subprocess
import sys


def report(*arguments, cwd):
    command = [sys.executable, "-m", "fer_lightning.report", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def test_one_run_gets_its_own_page_again(make_run, monkeypatch, tmp_path, pytestconfig):
    monkeypatch.setenv("PYTHONPATH", str(pytestconfig.rootpath))
    folder = make_run(n=60)

    done = report(folder, cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == str(folder / "report.html")
    assert (folder / "report.html").exists()


def test_a_sweep_folder_gets_a_comparison_in_a_folder_of_its_own(
    make_run, monkeypatch, tmp_path, pytestconfig
):
    monkeypatch.setenv("PYTHONPATH", str(pytestconfig.rootpath))
    make_run("sweep/0_cnn", n=60)

    done = report("sweep", cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.glob("outputs/reports/*/report.html")) == [tmp_path / done.stdout.strip()]


def test_a_mistake_is_one_sentence_and_exit_code_1(tmp_path, monkeypatch, pytestconfig):
    monkeypatch.setenv("PYTHONPATH", str(pytestconfig.rootpath))

    done = report("nowhere", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: nowhere: no run in it")
    assert "Traceback" not in done.stderr
