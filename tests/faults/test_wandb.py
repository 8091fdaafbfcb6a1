"""W&B is a window: whatever breaks it, the run ends well and its own record is whole."""

import json
import os
import signal
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.commands import ROOT, TINY, environment, run
from tests.faults.test_disk import disk, fill  # noqa: F401 - disk is a fixture
from tests.faults.test_training import processes_below
from tests.forked import Forked
from tests.training.test_wandb import Server

SMALL = ("model=mlp", "model.hidden=[16]", *TINY, "data.image_size=16", "hydra.run.dir=run")
KEY = {"WANDB_API_KEY": "0" * 40}


def is_whole(folder, epochs):
    assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + epochs
    assert (folder / "metrics.json").is_file()
    assert (folder / "report.html").is_file()


@pytest.fixture
def server():
    """A server that answers everything by an HTTP status, or not at all."""
    servers = []

    def start(status):
        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if status is None:
                    time.sleep(120)
                    return
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST = answer  # noqa: N815 - http.server's names

            def log_message(self, *arguments):
                pass

        serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        serving.daemon_threads = True
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        servers.append(serving)
        return f"http://127.0.0.1:{serving.server_address[1]}"

    yield start
    for serving in servers:
        serving.shutdown()
        serving.server_close()


@pytest.mark.slow
def test_a_server_out_of_reach_means_offline(fault_row, cache, tmp_path):
    nobody = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_INIT_TIMEOUT": "3"}
    fault_row.check(run("train.py", *SMALL, "trainer=smoke", cwd=tmp_path, cache=cache, **nobody, **KEY))
    is_whole(tmp_path / "run", 2)


@pytest.mark.slow
def test_a_server_that_never_answers_means_offline_soon(server, fault_row, cache, tmp_path):
    silent = {"WANDB_BASE_URL": server(None), "WANDB_INIT_TIMEOUT": "3"}
    fault_row.check(run("train.py", *SMALL, "trainer=smoke", cwd=tmp_path, cache=cache, **silent, **KEY))
    is_whole(tmp_path / "run", 2)
    stages = json.loads((tmp_path / "run/run.json").read_text())["durations"]
    assert stages["total_s"] < 15 + sum(stages[key] for key in ("data_s", "fit_s", "test_s", "report_s"))


@pytest.mark.slow
def test_silent_wandb_server_delays_the_end_no_longer_than_announced(fault_row, cache, tmp_path):
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    env = environment(
        cache, **KEY, WANDB_FINISH_TIMEOUT="10", WANDB_BASE_URL=f"http://127.0.0.1:{server.server_port}"
    )
    command = [str(ROOT / "train.py"), *SMALL, "trainer.max_epochs=40"]
    process = Forked(command, cwd=tmp_path, env=env)
    try:
        while not (tmp_path / "run/last.ckpt").exists():
            assert process.poll() is None, process.output()
        server.answering.clear()
        fault_row.check(process.completed())
    finally:
        server.answering.set()
        server.shutdown()
        server.server_close()
    is_whole(tmp_path / "run", 40)
    stages = json.loads((tmp_path / "run/run.json").read_text())["durations"]
    assert stages["total_s"] - stages["data_s"] - stages["fit_s"] - stages["test_s"] < 20 + 10 + 30


@pytest.mark.slow
def test_a_server_that_refuses_the_key_means_offline(server, fault_row, cache, tmp_path):
    done = run(
        "train.py", *SMALL, "trainer=smoke", cwd=tmp_path, cache=cache, WANDB_BASE_URL=server(401), **KEY
    )
    fault_row.check(done)
    is_whole(tmp_path / "run", 2)


@pytest.mark.slow
def test_full_disk_for_wandb_costs_only_the_wandb_record(
    disk,  # noqa: F811
    fault_row,
    cache,
    tmp_path,
):
    fill(disk, leave=0)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text('{"schema": 1, "state": "running"}')  # of a start that was killed
    (tmp_path / "run/wandb").mkdir()
    subprocess.run(["mount", "--bind", disk, tmp_path / "run/wandb"], check=True)
    try:
        done = run("train.py", *SMALL, "trainer=smoke", "resume=auto", cwd=tmp_path, cache=cache)
    finally:
        subprocess.run(["umount", tmp_path / "run/wandb"], check=True)
    fault_row.check(done)
    is_whole(tmp_path / "run", 2)


@pytest.mark.slow
def test_killed_wandb_process_costs_only_the_wandb_record(fault_row, cache, tmp_path):
    process = Forked(
        [str(ROOT / "train.py"), *SMALL, "trainer.max_epochs=40"], cwd=tmp_path, env=environment(cache)
    )
    while not (tmp_path / "run/last.ckpt").exists():
        assert process.poll() is None, process.output()
    services = [
        pid
        for pid in processes_below(process.pid)
        if "wandb-core" in Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0]
    ]
    assert services
    for pid in services:
        os.kill(pid, signal.SIGKILL)
    fault_row.check(process.completed())
    is_whole(tmp_path / "run", 40)
