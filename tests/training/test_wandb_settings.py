"""Settings of a W&B run: the command line beats the environment, which beats our defaults."""

import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.training.loggers.wandb import FailsafeWandbLogger
from fer_lightning.training.loggers.wandb_settings import VARIABLES, fill_settings

GIVEN = {
    "WANDB_PROJECT": "team",
    "WANDB_ENTITY": "us",
    "WANDB_RUN_GROUP": "g",
    "WANDB_JOB_TYPE": "debug",
    "WANDB_TAGS": "a, b",
    "WANDB_NOTES": "hello",
    "WANDB_NAME": "mine",
}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in (*VARIABLES.values(), "WANDB_MODE", "WANDB_BASE_URL", "WANDB_RUN_ID", "WANDB_SWEEP_ID"):
        monkeypatch.delenv(name, raising=False)


def arguments(tmp_path, **settings):
    return FailsafeWandbLogger(run_dir=tmp_path / "run", **settings)._init_arguments


def test_defaults_are_ours_where_nothing_is_given(tmp_path):
    found = arguments(tmp_path)
    assert found.pop("id")
    assert found == {
        "project": "fer_lightning", "entity": None, "group": None, "job_type": "train", "tags": [],
        "notes": None, "name": "run",
    }  # fmt: skip


def test_environment_beats_our_defaults(tmp_path, monkeypatch):
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    node = {"tags": None, "name": None, "group": None}
    filled = fill_settings(node, name="mlp-s0", group="sweep", tags=["mlp", "a"])
    assert filled == {"tags": ["a", "b", "mlp"], "name": "mine", "group": "g"}
    found = arguments(tmp_path, **filled)
    del found["id"]
    assert found == {
        "project": "team", "entity": "us", "group": "g", "job_type": "debug", "tags": ["a", "b", "mlp"],
        "notes": "hello", "name": "mine",
    }  # fmt: skip


def test_command_line_beats_environment(tmp_path, monkeypatch):
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    node = {"tags": ["x"], "name": "n", "group": None, "project": "fer_lightning"}
    found = arguments(tmp_path, **fill_settings(node, name="d", group=None, tags=["mlp"]))
    assert (found["tags"], found["name"], found["project"]) == (["x", "mlp"], "n", "fer_lightning")


def test_empty_variables_say_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "")
    assert arguments(tmp_path)["project"] == "fer_lightning"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tags": ["x" * 65]}, r"logger\.wandb\.tags: the tag xxx.* has 65 letters, W&B takes at most 64"),
        ({"tags": [1]}, "logger.wandb.tags: the tag 1 is no text; quote it"),
        ({"tags": [""]}, "logger.wandb.tags: a tag is empty"),
        ({"tags": "word"}, r"logger\.wandb\.tags=word: expected a list"),
        ({"project": "a/b"}, "logger.wandb.project=a/b: W&B takes no / in it"),
        ({"project": "p" * 129}, "has 129 letters, W&B takes at most 128"),
        ({"project": ""}, "logger.wandb.project: is empty"),
        ({"name": "n" * 129}, "has 129 letters"),
        ({"name": 5}, "logger.wandb.name=5: expected text"),
        ({"mode": "off"}, "logger.wandb.mode=off: expected null, online, offline or disabled"),
        ({"log_model": True}, "logger.wandb.log_model=True: expected best, all or none"),
        ({"log_predictions": "yes"}, "expected true or false"),
        ({"log_every_n_steps": 0}, "expected a whole number of at least 1, or null"),
    ],
)
def test_what_wandb_would_refuse_fails_in_the_constructor(tmp_path, settings, words):
    with pytest.raises(FERError, match=words):
        arguments(tmp_path, **settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("WANDB_MODE", "sometimes", "WANDB_MODE=sometimes: expected online, offline or disabled"),
        ("WANDB_BASE_URL", "nonsense", "WANDB_BASE_URL=nonsense: no address of a W&B server"),
        ("WANDB_BASE_URL", "https://wandb.ai", "such as https://api"),
        ("WANDB_TAGS", "a,,b", "WANDB_TAGS: a tag is empty"),
        ("WANDB_PROJECT", "a:b", "WANDB_PROJECT=a:b: W&B takes no :"),
        ("WANDB_RUN_ID", "a/b", "WANDB_RUN_ID=a/b: no id of a W&B run"),
    ],
)
def test_nonsense_in_the_environment_fails_in_the_constructor(tmp_path, monkeypatch, name, value, words):
    monkeypatch.setenv(name, value)
    with pytest.raises(FERError, match=words):
        arguments(tmp_path)


def test_an_agent_decides_the_project_and_the_run_id(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    monkeypatch.setenv("WANDB_PROJECT", "team")
    found = arguments(tmp_path)
    assert not found.keys() & {"id", "project", "entity"}
    assert FailsafeWandbLogger(run_dir=tmp_path).version == "r1"


@pytest.mark.parametrize("run_id", ["../../other", r"..\other", "", " ", 5, "x" * 129])
def test_a_run_id_that_could_leave_the_folder_is_refused(tmp_path, run_id):
    with pytest.raises(FERError, match=r"logger\.run_id="):
        FailsafeWandbLogger(run_dir=tmp_path, run_id=run_id)
