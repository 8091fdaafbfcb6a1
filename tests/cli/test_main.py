"""``fer-lightning``, as ``python -m fer_lightning``: commands, their names in messages, completion."""

import json
import subprocess

import pytest

from fer_lightning.cli import main as cli
from tests.commands import ROOT, TINY, environment, run, sentence, succeed

FER = ("-m", "fer_lightning")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_usage_lists_every_command(arguments, cache, tmp_path):
    printed = succeed(*FER, *arguments, cwd=tmp_path, cache=cache).stdout
    for name in cli._ALL:
        assert f"\n  {name} " in printed


@pytest.mark.parametrize(
    "command",
    [(*FER, "--version"), (*FER, "train", "--version"), ("train.py", "--version"), ("eval.py", "--version")],
)
def test_version_is_ours(command, cache, tmp_path):
    assert succeed(*command, cwd=tmp_path, cache=cache).stdout == "fer_lightning 0.1.0\n"


@pytest.mark.parametrize("name", list(cli._ALL))
def test_help_names_the_command_as_it_was_typed(name, cache, tmp_path):
    printed = " ".join(succeed(*FER, name, "--help", cwd=tmp_path, cache=cache).stdout.split())
    assert f"sage: python -m fer_lightning {name} " in printed
    assert f"{name}.py" not in printed


def test_module_s_own_help_names_the_module(cache, tmp_path):
    for module, name in (
        ("report", "report"),
        ("predict", "predict"),
        ("export", "export"),
        ("data.audit", "audit"),
    ):
        printed = succeed("-m", f"fer_lightning.{module}", "--help", cwd=tmp_path, cache=cache).stdout
        assert printed.startswith(f"usage: python -m fer_lightning.{module} "), name


@pytest.mark.slow
def test_installed_commands_are_named_in_messages(cache, tmp_path):
    command = (*FER, "train", "model=mlp", *TINY, "trainer=smoke", "logger=none", "hydra.run.dir=run")
    succeed(*command, cwd=tmp_path, cache=cache)
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["command"].startswith("python -m fer_lightning train model=mlp data=synthetic")
    evaluated = succeed(*FER, "eval", "checkpoint=run", "hydra.run.dir=eval", cwd=tmp_path, cache=cache)
    assert "test accuracy" in evaluated.stdout
    page = succeed(*FER, "report", "run", cwd=tmp_path, cache=cache).stdout
    assert page.strip() == "run/report.html"
    assert run(*FER, "predict", "run/nowhere.png", cwd=tmp_path, cache=cache).returncode == 1


def test_error_of_an_installed_command_has_its_exit_code(cache, tmp_path):
    assert "error: modle=mlp: no such setting" in sentence(
        run(*FER, "train", "modle=mlp", cwd=tmp_path, cache=cache)
    )
    assert run(*FER, "predict", cwd=tmp_path, cache=cache).returncode == 2


@pytest.mark.parametrize(
    ("install", "typed", "offered"),
    [
        ("python train.py", "python train.py model=", {"model=cnn", "model=mlp"}),
        ("python eval.py", "python eval.py predictor=", {"predictor=llm", "predictor=checkpoint"}),
        ("python train.py", "python train.py model=cnn optimizer.l", {"optimizer.lr="}),
    ],
)
def test_bash_completes_overrides_of_the_scripts(install, typed, offered, cache):
    script = (
        f'eval "$({install} -sc install=bash)"; COMP_LINE="{typed}"; COMP_CWORD={len(typed.split()) - 1}; '
        "COMP_POINT=${#COMP_LINE}; hydra_bash_completion; echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=environment(cache), capture_output=True, text=True
    )
    assert offered <= set(done.stdout.split()), done.stdout + done.stderr


def test_completion_of_fer_lightning_is_that_of_the_command_in_the_line(cache, tmp_path):
    for typed, offered in (("train model=r", "model=resnet model=rnn"), ("eval spl", "split=")):
        done = succeed(
            *FER, "-sc", "query=bash", cwd=tmp_path, cache=cache, COMP_LINE=f"fer-lightning {typed}"
        )
        assert done.stdout.strip() == offered
