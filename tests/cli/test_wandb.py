"""W&B as a team uses it: an agent of a sweep, a resumed run, a home folder that is missing, a workspace."""

import json
import subprocess
import sys

import pytest
import yaml

from fer_lightning.cli.wandb import main
from fer_lightning.training.loggers.wandb_workspace import COLUMNS, make_workspace
from tests.commands import ROOT, TINY, succeed

SMALL = ("model=mlp", "model.hidden=[16]", "data.image_size=16", *TINY, "hydra.run.dir=run")


def parts(folder):
    """Summary of each offline part of a run, in the order of their start."""
    paths = sorted(path for path in (folder / "wandb").glob("offline-run-*"))
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json"]
    texts = [
        subprocess.run([*command, *options, path], capture_output=True, text=True, check=True).stdout
        for path in paths
        for options in (["--summary"], [])
    ]
    summaries, records = texts[::2], texts[1::2]
    return [
        (json.loads(summary), [json.loads(line) for line in lines.splitlines()])
        for summary, lines in zip(summaries, records, strict=True)
    ]


def rows(records):
    return [record["history"]["item"] for record in records if record["type"] == "history"]


@pytest.mark.slow
def test_a_resumed_run_continues_the_same_wandb_run(cache, tmp_path):
    words = (*SMALL, "optimizer.lr=0.003", "logger.wandb.log_every_n_steps=1")
    succeed("train.py", *words, "trainer.max_epochs=1", cwd=tmp_path, cache=cache)
    record_file = tmp_path / "run/run.json"
    record = json.loads(record_file.read_text())
    assert record["wandb"]["name"].startswith("mlp-s0-synthetic-hidden16-image_size16-")
    record_file.write_text(json.dumps(record | {"state": "interrupted"}))
    done = succeed("train.py", *words, "trainer.max_epochs=2", "resume=auto", cwd=tmp_path, cache=cache)
    assert "\n  wandb sync run/wandb\n" in done.stdout

    (before, first), (after, second) = parts(tmp_path / "run")
    assert before["run_id"] == after["run_id"] == record["wandb"]["id"]
    assert before["name"] == after["name"] == record["wandb"]["name"]
    [run] = [line["run"] for line in second if line["type"] == "run"]
    assert run["resume"] is True
    first_steps, second_steps = (
        [row["_step"] for row in rows(part) if "train/loss_step" in row] for part in (first, second)
    )
    assert first_steps == [0, 1, 2]
    assert second_steps == [3, 4, 5]  # behind the first part, which the server would otherwise keep instead
    assert [row["epoch"] for row in rows(second) if "val/acc" in row] == [1]


@pytest.mark.slow
def test_a_run_of_a_wandb_agent_is_the_agents_run_and_no_key_appears_twice(cache, tmp_path):
    # What wandb_agent.py sets and writes, and the command of docs/wandb_sweep.yaml with its arguments.
    parameters = {"model": "mlp", "optimizer.lr": 0.003, "trainer.max_epochs": 1}
    config = tmp_path / "wandb/sweep-sw123/config-agent001.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(
        yaml.safe_dump({"wandb_version": 1} | {key: {"value": value} for key, value in parameters.items()})
    )
    agent = {
        "WANDB_SWEEP_ID": "sw123",
        "WANDB_RUN_ID": "agent001",
        "WANDB_PROJECT": "faces",
        "WANDB_ENTITY": "team",
        "WANDB_SWEEP_PARAM_PATH": str(config),
        "WANDB_DIR": str(tmp_path),
    }
    arguments = [f"{key}={value}" for key, value in parameters.items()]
    done = succeed("train.py", *arguments, *SMALL[1:], cwd=tmp_path, cache=cache, **agent)
    assert "wandb:" not in done.stdout + done.stderr
    [(summary, records)] = parts(tmp_path / "run")
    assert (summary["run_id"], summary["project"]) == ("agent001", "faces")
    [run] = [line["run"] for line in records if line["type"] == "run"]
    assert run["sweep_id"] == "sw123"
    assert run["entity"] == "team"
    columns = summary["config"]
    assert parameters.items() <= columns.items()
    assert not [key for key in columns if "/" in key]
    assert not {"optimizer", "lr"} <= columns.keys()
    assert "val/acc" in summary["summary"]  # what the sweep optimises


def test_the_sweep_of_the_documents_gives_overrides_that_compose():
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    sweep = yaml.safe_load((ROOT / "docs/wandb_sweep.yaml").read_text())
    assert sweep["command"] == ["${env}", "python", "train.py", "${args_no_hyphens}"]
    assert sweep["metric"]["name"] == "val/acc"
    chosen = {
        key: {"value": spec.get("value", spec.get("min", spec.get("values", [None])[0]))}
        for key, spec in sweep["parameters"].items()
    }
    words = create_sweep_command_args({"args": chosen})["args_no_hyphens"]
    assert "optimizer.lr=0.0001" in words
    composed = succeed("train.py", *words, "--cfg", "job", cwd=ROOT, cache=ROOT).stdout
    assert "lr: 0.0001" in composed


@pytest.mark.slow
@pytest.mark.parametrize("home", [None, "/dev/null/nothing"])
def test_wandb_is_silent_without_a_home_folder(home, cache, tmp_path):
    words = (*SMALL, f"data.cache_dir={cache}/faces", "trainer=smoke")
    env = ["env", "-u", "HOME"] if home is None else ["env", f"HOME={home}"]
    command = [*env, "WANDB_ERROR_REPORTING=false", f"MPLCONFIGDIR={tmp_path}", f"PYTHONPATH={ROOT}"]
    done = subprocess.run(
        [*command, sys.executable, ROOT / "train.py", *words],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr == ""
    for word in ("wandb:", "INFO", "connection", "server"):
        assert word not in done.stdout
    assert len(parts(tmp_path / "run")) == 1


ARGUMENTS = ["workspace", "--entity", "team", "--project", "faces"]


@pytest.fixture
def no_account(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    for name in ("WANDB_API_KEY", "WANDB_ENTITY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


def test_workspace_without_the_package_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    assert main(ARGUMENTS) == 1
    assert capsys.readouterr().err == (
        'error: the package wandb-workspaces is missing: pip install "fer_lightning[wandb]"\n'
    )


def test_workspace_without_a_key_is_one_sentence(monkeypatch, capsys, no_account):
    monkeypatch.setattr("fer_lightning.training.loggers.wandb_workspace.make_workspace", lambda *words: None)
    assert main(ARGUMENTS) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: W&B has no key for https://")
    assert error.count("\n") == 1


def test_workspace_without_an_entity_is_wrong_use(capsys, no_account):
    with pytest.raises(SystemExit) as ended:
        main(["workspace"])
    assert ended.value.code == 2
    assert "--entity is missing" in capsys.readouterr().err


def test_workspace_prints_the_address_of_the_view(monkeypatch, capsys, no_account):
    class View:
        url = "https://wandb.ai/team/faces?nw=1"

        def save(self):
            return self

    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(
        "fer_lightning.training.loggers.wandb_workspace.make_workspace", lambda *words: View()
    )
    assert main(ARGUMENTS) == 0
    assert capsys.readouterr().out == "https://wandb.ai/team/faces?nw=1\n"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the package
def test_the_panels_show_keys_that_runs_have(cache, tmp_path):
    pytest.importorskip("wandb_workspaces")
    workspace = make_workspace("team", "faces", "ours")
    shown = json.dumps(workspace._to_model().model_dump(by_alias=True), default=str)
    succeed(
        "train.py", *SMALL, "trainer=smoke", "logger.wandb.log_every_n_steps=1", cwd=tmp_path, cache=cache
    )
    [(summary, records)] = parts(tmp_path / "run")
    assert summary["tags"] == ["mlp", "synthetic", "limited"]
    logged = {key.split(".")[0] for row in rows(records) for key in row} | summary["summary"].keys()
    for section in workspace.sections:
        for panel in section.panels:
            for key in (
                [*getattr(panel, "y", ()), *getattr(panel, "media_keys", ())]
                if isinstance(getattr(panel, "y", []), list)
                else []
            ):
                assert key in logged, key
    for column in COLUMNS:
        kind, key = column.split(":")
        assert key in (logged if kind == "summary" else summary["config"]), column
        assert key in shown
    assert [section.name for section in workspace.sections] == ["Results", "Curves", "Errors", "Speed"]
