import os
import signal
import subprocess
import sys
import time

import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import newest_unlocked, write_json
from fer_lightning.runs.folder import SCHEMA, RunFolder, read_record
from tests.commands import ROOT

HOLD = """
import sys
from pathlib import Path
from fer_lightning.runs.folder import RunFolder
run = RunFolder(Path(sys.argv[1]))
run.start(model="cnn")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder():
    """Start a process that works in a run's folder until it is killed."""
    processes = []

    def start(folder):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout.readline() == "locked\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


# The record


def test_a_new_run_writes_what_it_is_and_how_it_ended(tmp_path):
    run = RunFolder(tmp_path / "2026" / "run")
    assert run.is_new
    run.start(model="cnn", seed=3)
    record = read_record(run.folder)
    assert record["schema"] == SCHEMA
    assert (record["state"], record["reason"], record["resumed"]) == ("running", None, [])
    assert (record["model"], record["seed"]) == ("cnn", 3)
    assert not run.is_new
    run.end("failed", "out of luck")
    record = read_record(run.folder)
    assert (record["state"], record["reason"]) == ("failed", "out of luck")
    assert record["ended"] >= record["started"]
    assert record["durations"]["total_s"] >= 0


def test_an_ended_run_cannot_be_ended_again(tmp_path):
    run = RunFolder(tmp_path)
    run.start()
    run.end("interrupted", "stopped by signal 15")
    run.end("finished")
    assert read_record(tmp_path)["state"] == "interrupted"


def test_the_times_of_a_stage_add_up_over_stops(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    for seconds in (2.0, 3.0):
        run = RunFolder(tmp_path)
        run.start()
        with run.stage("fit_s"):
            now[0] += seconds
        now[0] += 1
        run.end("interrupted")
    record = read_record(tmp_path)
    assert record["durations"] == {"fit_s": 5.0, "total_s": 7.0}
    assert len(record["resumed"]) == 1


def test_a_stage_that_fails_is_timed_too(tmp_path):
    run = RunFolder(tmp_path)
    run.start()
    with pytest.raises(ZeroDivisionError), run.stage("fit_s"):
        raise ZeroDivisionError
    assert "fit_s" in read_record(tmp_path)["durations"]
    run.release()


def test_a_value_that_json_refuses_does_not_keep_the_run_from_ending(tmp_path):
    run = RunFolder(tmp_path)
    run.start(model="cnn")
    with pytest.raises(ValueError, match="JSON compliant"):
        run.update(best_score=float("nan"))
    run.end("failed", "diverged")
    assert read_record(tmp_path)["state"] == "failed"


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff"])
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / "run.json").write_text(text, encoding="latin-1")
    with pytest.raises(FERError, match="run.json: "):
        read_record(tmp_path)


# The lock


def test_a_folder_belongs_to_one_process(tmp_path, holder):
    holder(tmp_path)
    with pytest.raises(FERError, match="another process is working in this folder"):
        RunFolder(tmp_path)


def test_the_folder_of_a_killed_process_is_free_and_still_says_running(tmp_path, holder):
    process = holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = RunFolder(tmp_path)
    assert run.record["state"] == "running"
    assert run.record["model"] == "cnn"
    run.release()


def test_two_runs_of_one_process_cannot_share_a_folder_either(tmp_path):
    run = RunFolder(tmp_path)
    with pytest.raises(FERError, match="another process"):
        RunFolder(tmp_path)
    run.release()
    RunFolder(tmp_path).release()


def test_an_ended_run_frees_its_folder(tmp_path):
    run = RunFolder(tmp_path)
    run.start()
    run.end("finished")
    again = RunFolder(tmp_path)
    assert not again.is_new
    again.release()


def test_a_folder_that_cannot_be_made_is_an_error_of_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FERError, match=r"file/run: cannot be written .*choose another hydra.run.dir"):
        RunFolder(tmp_path / "file" / "run")


# Runs to continue


def write_record(folder, modified, **record):
    folder.mkdir(parents=True)
    write_json(folder / "run.json", record)
    os.utime(folder / "run.json", (modified, modified))


def test_unfinished_runs_come_newest_first(tmp_path):
    for name, state, modified in (
        ("1", "interrupted", 100),
        ("2", "failed", 300),
        ("3", "finished", 400),
        ("4", "running", 200),  # and its lock is free: it was killed
    ):
        write_record(tmp_path / "day" / name, modified, state=state)
    (tmp_path / "day" / "5").mkdir()
    (tmp_path / "day" / "5" / "run.json").write_text("{")
    assert [folder.name for folder, _ in newest_unlocked(tmp_path.glob("*/*/run.json"))] == ["2", "4", "1"]


def test_a_run_at_work_is_not_to_be_continued(tmp_path, holder):
    write_record(tmp_path / "day" / "idle", 100, state="interrupted")
    holder(tmp_path / "day" / "busy")
    assert [folder.name for folder, _ in newest_unlocked(tmp_path.glob("*/*/run.json"))] == ["idle"]


def test_a_run_that_was_looked_at_is_free_again(tmp_path):
    write_record(tmp_path / "day" / "one", 100, state="failed")
    folder, _ = next(newest_unlocked(tmp_path.glob("*/*/run.json")))
    RunFolder(folder).release()


def test_without_an_outputs_folder_there_is_nothing_to_continue(tmp_path):
    assert list(newest_unlocked((tmp_path / "outputs").glob("*/*/run.json"))) == []
