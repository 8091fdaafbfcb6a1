"""W&B runs are real and offline, read back with W&B's own reader; online goes to a server of our own."""

import gc
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
import wandb
from lightning import LightningModule, Trainer
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, TensorDataset

from fer_lightning.core.errors import FERError
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.training.loggers import wandb_media, wandb_session
from fer_lightning.training.loggers.wandb import FailsafeWandbLogger
from fer_lightning.training.loggers.wandb_config import flatten_config

# Of Lightning's own making, in every fit: torch has renamed what it calls, and it advises worker processes to
# machines with more than two cores, also for four zeros.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning",
    "ignore:.*does not have many workers",
)

CONF = Path(__file__).parents[2] / "conf" / "logger"
KEY = "deadbeef" * 5  # 40 characters, the form of a key
CONFIG = {
    "model": {"_target_": "fer_lightning.models.cnn.CNN", "width": 32},
    "data": {"root": "faces", "cache_dir": "/home/someone/.cache", "batch_size": 64},
    "optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.001},
    "logger": {"_target_": "fer_lightning.training.loggers.wandb.FailsafeWandbLogger", "project": "p"},
    "init_from": "/home/someone/best.ckpt",
    "seed": 1,
}


@contextmanager
def a_machine_without_wandb(home: Path) -> Iterator[pytest.MonkeyPatch]:
    """Nobody has used W&B here: no key, no setting, no service."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        home.mkdir()
        patch.setenv("HOME", str(home))
        patch.setenv("NETRC", str(home / "netrc"))
        yield patch
        wandb.teardown()


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path) -> Iterator[None]:
    with a_machine_without_wandb(tmp_path / "home"):
        yield


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs" / "1200_cnn"
    folder.mkdir(parents=True)
    return folder


class Tiny(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        loss = self.layer(batch[0]).square().mean()
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("lr", 0.1)
        self.log("images_per_s", 5.0)

    def validation_step(self, batch: list[torch.Tensor]) -> None:
        self.log("val/acc", 0.5 + self.current_epoch / 10)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(window: FailsafeWandbLogger, folder: Path, epochs: int = 2) -> None:
    batches = DataLoader(TensorDataset(torch.zeros(4, 2)), batch_size=2)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=window,
        default_root_dir=folder,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Tiny(), batches, batches)


def inspect(run_dir: Path, *options: str) -> str:
    """What W&B's own reader says of the one run of a folder."""
    [run] = (run_dir / "wandb").glob("*run-*-*")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options, str(run)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def summary_of(run_dir: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(inspect(run_dir, "--summary"))
    return summary


def some_predictions(answered: int = 30, unanswered: int = 2) -> tuple[Predictions, np.ndarray]:
    """``happy`` for every image, more and more surely; every seventh is."""
    n = answered + unanswered
    probs = np.full((n, 7), 0.0, np.float32)
    probs[:, 3] = np.linspace(0.51, 0.9, n)
    probs[:, 0] = 1 - probs[:, 3]
    status = np.array(["ok"] * answered + ["refused"] * unanswered)
    probs[answered:] = np.nan
    predictions = Predictions(
        ids=np.array([f"test/x/{row}" for row in range(n)]),
        labels=np.arange(n) % 7,
        probs=probs,
        status=status,
        leaked=np.zeros(n, bool),
        classes=EXPRESSIONS,
    )
    return predictions, np.arange(n, dtype=np.uint8)[:, None, None].repeat(48, 1).repeat(48, 2)


METRICS = {
    "acc": 0.7,
    "f1_macro": 0.6,
    "n": 32,
    "per_class": {name: {"precision": 0.5, "recall": 0.25, "f1": 1 / 3} for name in EXPRESSIONS},
    "ci95": {"acc": [0.52, 0.83], "ece": None},
    "leak_free": {"acc": 0.65, "n": 30},
}


RECORD = {
    "choices": {"model": "cnn", "optimizer": "adam", "experiment": None},
    "git": {"commit": "c0ffee", "dirty": False},
    "data": {
        "name": "synthetic",
        "fingerprint": "0123",
        "counts": {"train": {"a": 1, "b": 2}, "test": {"a": 1}},
    },
    "num_parameters": 12,
    "images_per_s": 99.5,
}


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("fer_lightning.training.loggers.wandb")
    ]


@dataclass(frozen=True)
class Recorded:
    """A whole offline run, and what is found of it."""

    run_dir: Path
    files: Path
    home: Path
    summary: dict[str, Any]
    records: list[dict[str, Any]]

    def kind(self, kind: str) -> list[dict[str, Any]]:
        return [record[kind] for record in self.records if record["type"] == kind]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("recorded")
    for command in ("init", "add .", "-c user.name=x -c user.email=x commit --allow-empty -m x"):
        subprocess.run(["git", *command.split()], cwd=folder, capture_output=True, check=True)
    run_dir = folder / "1200_cnn"
    predictions, images = some_predictions()
    with a_machine_without_wandb(folder / "home"):
        window = FailsafeWandbLogger(
            run_dir=run_dir, group="sweep", tags=["cnn", "synthetic"], notes="a note"
        )
        window.start(CONFIG, RECORD)
        fit(window, folder)
        window.log_result({"schema": 1, "val": {"acc": 0.55}, "test": METRICS, "best_epoch": 1}, RECORD)
        window.log_evaluation("test", predictions, METRICS, images)
        window.log_files(run_dir, RECORD)
        window.finish(exit_code=3)
        window.finish(exit_code=0)
        records = [json.loads(line) for line in inspect(run_dir).splitlines()]
        [files] = (run_dir / "wandb").glob("offline-run-*/files")
        return Recorded(run_dir, files, folder / "home", summary_of(run_dir), records)


def test_a_run_has_its_name_group_tags_notes_config_and_true_end(recorded: Recorded) -> None:
    assert recorded.summary["exit_code"] == 3
    assert recorded.summary["state"] == "failed"
    assert recorded.summary["project"] == "fer_lightning"
    assert recorded.summary["name"] == "1200_cnn"
    assert recorded.summary["notes"] == "a note"
    assert recorded.summary["tags"] == ["cnn", "synthetic"]
    assert recorded.summary["config"] == flatten_config(CONFIG, RECORD["choices"]) | {
        "git.commit": "c0ffee",
        "git.dirty": False,
        "data.fingerprint": "0123",
        "data.num_train": 3,
        "data.num_test": 1,
        "num_parameters": 12,
    }
    [run] = recorded.kind("run")
    assert (run["run_group"], run["job_type"]) == ("sweep", "train")


def test_the_curves_run_over_epochs(recorded: Recorded) -> None:
    rows = [record["item"] for record in recorded.kind("history")]
    assert all("epoch" in row for row in rows)  # the images and tables too
    curve = {row["epoch"]: row["val/acc"] for row in rows if "val/acc" in row}
    assert curve == pytest.approx({0: 0.5, 1: 0.6})
    last = next(row for row in reversed(rows) if "train/loss" in row)
    assert (last["epoch"], last["trainer/global_step"]) == (1, 3)
    assert (last["lr"], last["images_per_s"]) == pytest.approx((0.1, 5.0))
    assert any(
        axis.get("glob_name") == "*" and axis["step_metric"] == "epoch" for axis in recorded.kind("metric")
    )


def test_the_summary_holds_ten_numbers_and_the_table_every_result(recorded: Recorded) -> None:
    shown = recorded.summary["summary"]
    numbers = {key: value for key, value in shown.items() if isinstance(value, int | float) and key[0] != "_"}
    assert numbers.pop("train/loss") > 0
    assert numbers == {
        "test/acc": 0.7,
        "test/acc_ci_low": 0.52,
        "test/acc_ci_high": 0.83,
        "test/f1_macro": 0.6,
        "test/leak_free_acc": 0.65,
        "val/acc": 0.55,  # of the best checkpoint; the last epoch's is 0.6
        "best_epoch": 1,
        "num_parameters": 12,
        "images_per_s": 99.5,
        "epoch": 1,
        "trainer/global_step": 3,
    }
    [table] = recorded.files.glob("media/table/results*")
    content = json.loads(table.read_text())
    assert content["columns"] == ["split", "images", "metric", "value", "ci_low", "ci_high", "n"]
    assert ["test", "all", "acc", 0.7, 0.52, 0.83, 32] in content["data"]
    assert ["test", "leak-free", "acc", 0.65, None, None, 30] in content["data"]


def test_an_evaluation_shows_confusion_classes_and_mistakes(recorded: Recorded) -> None:
    assert len([*recorded.files.glob("media/images/test/mistakes*")]) == 24
    captions = recorded.summary["summary"]["test/mistakes"]["captions"]
    assert captions[0] == "disgust, predicted happy (87%): test/x/29"

    [table] = recorded.files.glob("media/table/test/per_class*")
    per_class = json.loads(table.read_text())
    assert per_class["columns"] == ["class", "precision", "recall", "f1"]
    assert [row[0] for row in per_class["data"]] == [*EXPRESSIONS]

    [matrix] = recorded.files.glob("media/table/test/confusion_matrix*")
    counts = {(true, said): n for true, said, n in json.loads(matrix.read_text())["data"]}
    assert counts["happy", "happy"] == 4
    assert counts["angry", "happy"] == 5
    assert sum(counts.values()) == 32
    assert sum(n for (_, said), n in counts.items() if said == "no answer") == 2


def test_neither_code_nor_git_state_nor_console_is_recorded(recorded: Recorded) -> None:
    files = [path.relative_to(recorded.files) for path in recorded.files.rglob("*") if path.is_file()]
    assert {str(path) for path in files if path.parts[0] != "media"} == {"requirements.txt"}
    assert not [record for record in recorded.kind("run") + recorded.kind("environment") if "git" in record]
    assert recorded.summary["console_lines"] == 0


def test_what_a_table_is_uploaded_from_stays_in_the_run_folder(recorded: Recorded) -> None:
    sources = [
        Path(entry["local_path"])
        for artifact in recorded.kind("artifact")
        for entry in artifact["manifest"]["contents"]
    ]
    assert len(sources) == 5
    assert all(path.is_file() and path.is_relative_to(recorded.run_dir) for path in sources)
    assert not (recorded.home / ".local").exists()


def test_two_runs_in_one_process_are_two_wandb_runs(tmp_path: Path) -> None:
    for job, exit_code in enumerate((1, 0)):
        window = FailsafeWandbLogger(run_dir=tmp_path / str(job), tags=[str(job)])
        window.start({"seed": job})
        fit(window, tmp_path, epochs=1)
        window.finish(exit_code=exit_code)
    for job, exit_code in enumerate((1, 0)):
        summary = summary_of(tmp_path / str(job))
        assert (summary["exit_code"], summary["config"], summary["tags"]) == (
            exit_code,
            {"seed": job},
            [str(job)],
        )


def test_a_run_that_an_earlier_job_left_open_is_not_gone_on_with(tmp_path: Path) -> None:
    left_open = FailsafeWandbLogger(run_dir=tmp_path / "first")
    left_open.start()
    window = FailsafeWandbLogger(run_dir=tmp_path / "second")
    window.log_metrics({"epoch": 0, "val/acc": 0.5})
    window.finish(exit_code=0)
    assert summary_of(tmp_path / "second")["summary"]["val/acc"] == 0.5


def test_the_environment_is_as_it_was_after_a_run(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", "/elsewhere")
    before = dict(os.environ)
    window = FailsafeWandbLogger(run_dir=run_dir)
    predictions, images = some_predictions()
    window.log_evaluation("val", predictions, METRICS, images)
    window.finish(exit_code=0)
    assert dict(os.environ) == before


def test_no_key_on_a_terminal_means_offline_and_no_question(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pty = pytest.importorskip("pty", reason="only POSIX has terminals of this kind")
    user, terminal = (os.fdopen(end, "r+b", buffering=0) for end in pty.openpty())
    user.write(b"3\n")  # an answer, so that no question waits for ever
    os.set_blocking(user.fileno(), False)
    monkeypatch.setenv("TERM", "xterm")
    wandb.setup()  # forgets that the windows of other tests silenced it
    wandb.teardown()
    with user, io.TextIOWrapper(terminal, write_through=True) as both:
        with monkeypatch.context() as streams:
            for name in ("stdin", "stdout", "stderr"):
                streams.setattr(sys, name, both)
            assert wandb.errors.term.can_use_terminput()
            window = FailsafeWandbLogger(run_dir=run_dir, mode="online")
            window.log_metrics({"epoch": 0})
            window.finish(exit_code=0)
        assert user.read().strip() == b"3"  # the terminal's echo of the answer
    [sentence] = warnings_in(caplog)
    assert sentence.startswith("W&B has no key for https://")
    assert "wandb sync" in window.view_instructions()


@pytest.mark.parametrize("variable", ["dryrun", "offline"])
def test_wandb_mode_is_heeded(run_dir: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("WANDB_MODE", variable)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    window = FailsafeWandbLogger(run_dir=run_dir)
    window.start()
    assert "wandb sync" in window.view_instructions()
    window.finish(exit_code=0)


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_disabled_writes_nothing_and_says_nothing(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    if how == "environment":
        monkeypatch.setenv("WANDB_MODE", "disabled")
    window = FailsafeWandbLogger(run_dir=run_dir, mode="disabled" if how == "argument" else None)
    window.log_metrics({"epoch": 0})
    window.finish(exit_code=0)
    assert [*run_dir.iterdir()] == []
    assert warnings_in(caplog) == []
    assert window.view_instructions() == "not recorded in W&B"


def test_an_unknown_mode_is_the_users_mistake(run_dir: Path) -> None:
    with pytest.raises(FERError, match=r"logger\.wandb\.mode=False: expected null, online"):
        FailsafeWandbLogger(run_dir=run_dir, mode=False)  # type: ignore[arg-type]  # what YAML makes of `off`


def test_an_offline_run_says_how_to_look_in_commands_that_can_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    window = FailsafeWandbLogger(run_dir="my runs/one")
    assert window.view_instructions() == "not recorded in W&B"
    window.start()
    window.finish(exit_code=0)
    assert (
        window.view_instructions() == "recorded offline; to look at it, or to publish it:\n"
        "  wandb leet 'my runs/one/wandb'\n  wandb sync 'my runs/one/wandb'"
    )


class Server(ThreadingHTTPServer):
    """As much of a W&B server as a run without files talks to.

    Attributes:
        ends: The exit codes that runs reported.
        asked_to_resume: Whether a run asked for what the server has of it.
        answering: Cleared, requests wait, as in a network that swallows them.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.daemon_threads = True
        self.ends: list[int] = []
        self.asked_to_resume = False
        self.answering = threading.Event()
        self.answering.set()

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: a client that has stopped waiting leaves a broken pipe, and its test has ended."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.answering.wait()
        query, answer = asked.get("query", ""), {}
        self.server.asked_to_resume |= "RunResumeStatus" in query
        if "upsertBucket" in query:
            project = {"id": "p", "name": "fer_lightning", "entity": {"id": "e", "name": "someone"}}
            bucket = {"id": "b", "name": asked["variables"]["name"], "displayName": "x", "project": project}
            answer = {"data": {"upsertBucket": {"inserted": True, "bucket": bucket}}}
        elif "createRunFiles" in query:
            files = [
                {"name": name, "uploadUrl": f"http://127.0.0.1:{self.server.server_port}/file"}
                for name in asked["variables"]["files"]
            ]
            answer = {"data": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}}
        elif query:
            answer = {"data": {}}
        elif asked.get("complete"):
            self.server.ends.append(asked["exitcode"])
        self.reply(answer)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.reply({})

    def reply(self, answer: object) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield server
    server.answering.set()
    server.shutdown()
    server.server_close()


def keep_in_environment(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)


def keep_in_netrc(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    netrc = Path(os.environ["NETRC"])
    netrc.write_text(f"machine 127.0.0.1:{server.server_port}\n  login user\n  password {KEY}\n")
    netrc.chmod(0o600)


@pytest.mark.parametrize("keep_key", [keep_in_environment, keep_in_netrc])
def test_with_a_key_the_run_is_online_and_the_key_is_in_no_file(
    run_dir: Path,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    keep_key: Callable[[pytest.MonkeyPatch, Server], None],
) -> None:
    keep_key(monkeypatch, server)
    window = FailsafeWandbLogger(run_dir=run_dir)
    window.start(CONFIG)
    window.log_metrics({"epoch": 0, "val/acc": 0.5}, step=10)
    window.finish(exit_code=4)
    assert window.view_instructions() == (
        f"http://127.0.0.1:{server.server_port}/someone/fer_lightning/runs/{window.version}"
    )
    assert server.ends == [4]
    assert capfd.readouterr() == ("", "")
    assert warnings_in(caplog) == []
    written = [path for path in run_dir.rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if KEY.encode() in path.read_bytes()]


def test_a_server_that_goes_away_does_not_hold_up_the_end(
    run_dir: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(wandb_session, "FINISH_TIMEOUT", 1.0)
    window = FailsafeWandbLogger(run_dir=run_dir)
    window.start()
    server.answering.clear()
    rescue = threading.Timer(10, server.answering.set)  # for this test to fail and not to hang
    rescue.start()
    window.log_metrics({"epoch": 0, "val/acc": 0.5})
    before = time.monotonic()
    window.finish(exit_code=0)
    assert time.monotonic() - before < 5
    rescue.cancel()


def test_a_server_out_of_reach_means_offline_soon_and_one_sentence(
    run_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(wandb_session, "INIT_TIMEOUT", 1.0)
    window = FailsafeWandbLogger(run_dir=run_dir, mode="online")
    before = time.monotonic()
    window.start(CONFIG)
    assert time.monotonic() - before < 10
    window.log_metrics({"epoch": 0, "val/acc": 0.5})
    window.finish(exit_code=0)
    [sentence] = warnings_in(caplog)
    assert sentence.startswith("W&B can't be used online, so this run is recorded offline: Timed out")
    assert KEY not in sentence
    assert capfd.readouterr() == ("", "")
    assert "wandb sync" in window.view_instructions()
    # The attempt to go online must leave no run behind.
    [folder] = [path for path in (run_dir / "wandb").glob("*run-*") if not path.is_symlink()]
    assert folder.name.startswith("offline-run-")


def test_a_failed_start_of_a_resumed_run_keeps_its_earlier_part(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = FailsafeWandbLogger(run_dir=run_dir)
    first.log_metrics({"epoch": 0, "val/acc": 0.5}, step=9)
    first.finish(exit_code=1)
    [earlier] = (run_dir / "wandb").glob("offline-run-*")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(wandb_session, "INIT_TIMEOUT", 1.0)
    window = FailsafeWandbLogger(run_dir=run_dir, run_id=first.version)
    window.start()
    window.finish(exit_code=0)
    folders = [path for path in (run_dir / "wandb").glob("*run-*") if not path.is_symlink()]
    assert earlier in folders
    assert len(folders) == 2
    assert all(path.name.startswith("offline-run-") and first.version in path.name for path in folders)


def test_a_resumed_run_is_the_same_run_online(
    run_dir: Path, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    window = FailsafeWandbLogger(run_dir=run_dir, run_id="before")
    window.log_metrics({"epoch": 1, "val/acc": 0.5}, step=10)
    window.finish(exit_code=0)
    assert window.view_instructions().endswith("/someone/fer_lightning/runs/before")
    assert server.ends == [0]
    assert server.asked_to_resume
    assert warnings_in(caplog) == []


def test_a_malformed_key_means_offline_and_one_sentence(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "not a key")
    window = FailsafeWandbLogger(run_dir=run_dir)
    window.start()
    window.finish(exit_code=0)
    [sentence] = warnings_in(caplog)
    assert "WANDB_API_KEY invalid" in sentence
    assert "wandb sync" in window.view_instructions()


@pytest.mark.parametrize("obstacle", ["outputs", "outputs/1200_cnn/wandb"])
def test_unwritable_folder_disables_wandb_and_writes_nothing_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, obstacle: str
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    (tmp_path / obstacle).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / obstacle).touch()  # a file in the way stops root too, whom permissions don't
    before = dict(os.environ)
    window = FailsafeWandbLogger(run_dir=tmp_path / "outputs" / "1200_cnn")
    window.start(CONFIG)
    window.log_metrics({"epoch": 0})
    window.finish(exit_code=0)
    [sentence] = warnings_in(caplog)
    assert sentence.startswith("W&B does not record this run: ")
    assert window.view_instructions() == "not recorded in W&B"
    assert not (temporary / "wandb").exists()
    assert dict(os.environ) == before


def test_a_wandb_that_cannot_start_is_one_sentence(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(**arguments: object) -> None:
        raise RuntimeError("no service\nadvice")

    monkeypatch.setattr(wandb, "init", broken)
    window = FailsafeWandbLogger(run_dir=run_dir)
    window.start(CONFIG)
    window.log_metrics({"epoch": 0})
    window.log_result({"test": METRICS})
    window.finish(exit_code=0)
    assert warnings_in(caplog) == ["W&B does not record this run: no service"]


def test_killed_wandb_service_prints_one_sentence_and_training_continues(
    run_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = dict(os.environ)
    window = FailsafeWandbLogger(run_dir=run_dir)
    window.start(CONFIG)
    # The service names itself in the environment: VERSION-PARENT-unix-PATH; its own id is in the path.
    service = int(Path(os.environ["WANDB_SERVICE"].split("-unix-")[1]).parent.name.split("-")[2])
    os.kill(service, signal.SIGKILL)
    time.sleep(0.2)
    fit(window, run_dir)
    predictions, images = some_predictions()
    window.log_evaluation("test", predictions, METRICS, images)
    window.finish(exit_code=0)
    [sentence] = warnings_in(caplog)
    assert sentence.startswith("W&B failed and records no more of this run: ")
    assert dict(os.environ) == before
    for process in gc.get_objects():  # wandb keeps its handle without waiting; its end would be a warning
        if type(process) is subprocess.Popen and process.pid == service:
            process.wait(timeout=5)


def test_after_a_failed_log_the_run_is_still_closed_with_its_true_end(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    window = FailsafeWandbLogger(run_dir=run_dir)
    window.log_metrics({"epoch": 0, "val/acc": 0.5})
    with monkeypatch.context() as broken:
        broken.setattr(wandb.Run, "log", lambda *arguments: 1 / 0)
        window.log_metrics({"epoch": 1, "val/acc": 0.6})
    window.log_metrics({"epoch": 2, "val/acc": 0.7})
    window.finish(exit_code=1)
    assert warnings_in(caplog) == ["W&B failed and records no more of this run: division by zero"]
    summary = summary_of(run_dir)
    assert summary["exit_code"] == 1
    assert summary["summary"]["val/acc"] == 0.5


def test_config_becomes_short_columns_without_local_folders() -> None:
    assert flatten_config(CONFIG) == {
        "model": "CNN",
        "model.width": 32,
        "data.batch_size": 64,
        "optimizer": "Adam",
        "optimizer.lr": 0.001,
        "seed": 1,
    }
    chosen = flatten_config(CONFIG, {"model": "cnn", "experiment": "paper", "data": "auto"})
    assert (chosen["model"], chosen["optimizer"], chosen["experiment"]) == ("cnn", "Adam", "paper")


def test_the_most_confident_mistakes_come_first_and_no_answer_is_not_one() -> None:
    predictions, images = some_predictions()
    pictures = wandb_media.mistakes(predictions, images)
    assert len(pictures) == 24
    rows = [int(np.asarray(picture.image)[0, 0]) for picture in pictures]
    assert rows == [row for row in range(29, -1, -1) if row % 7 != 3][:24]
    assert np.asarray(pictures[0].image).shape == (48, 48)


@pytest.mark.parametrize("name", ["wandb", "csv"])
def test_the_configs_make_loggers_of_the_run_folder(run_dir: Path, name: str) -> None:
    config = OmegaConf.create({"run_dir": str(run_dir), "logger": OmegaConf.load(CONF / f"{name}.yaml")})
    logger = hydra.utils.instantiate(config.logger)
    assert Path(logger.save_dir) == run_dir
    if name == "csv":
        assert Path(logger.log_dir) == run_dir / "csv"


def test_the_config_none_names_no_logger() -> None:
    assert OmegaConf.load(CONF / "none.yaml") == {}
