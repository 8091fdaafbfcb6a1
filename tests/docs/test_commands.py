"""Every command in the documents works: overrides compose, arguments are parsed, files and targets exist."""

import argparse
import os
import re
import shlex
import sys
import tomllib
from importlib import import_module

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from fer_lightning.config.checks import check_values
from fer_lightning.config.known_keys import TRAIN_KEYS, check_known_keys
from fer_lightning.config.resolve import compose_config, to_plain
from tests.commands import ROOT
from tests.docs.documents import commands

COMMANDS = commands()
HYDRA = {
    "python train.py": "train", "fer-lightning train": "train", "python -m fer_lightning train": "train",
    "python eval.py": "eval", "fer-lightning eval": "eval",
}  # fmt: skip
PARSED = {
    "fer-lightning predict": "fer_lightning.cli.predict",
    "fer-lightning export": "fer_lightning.cli.export",
    "fer-lightning report": "fer_lightning.cli.report",
    "fer-lightning benchmark": "fer_lightning.cli.benchmark",
    "fer-lightning audit": "fer_lightning.cli.audit",
    "fer-lightning wandb": "fer_lightning.cli.wandb",
    "python -m fer_lightning.predict": "fer_lightning.cli.predict",
    "python -m fer_lightning.export": "fer_lightning.cli.export",
    "python -m fer_lightning.report": "fer_lightning.cli.report",
    "python -m fer_lightning.data.audit": "fer_lightning.cli.audit",
    "python -m benchmarks": "benchmarks.__main__",
}  # fmt: skip
# Programs of others, with the arguments that were tried.
OTHERS = re.compile(
    r"export \w+=|ollama pull |pre-commit install$|python -m http\.server --directory "
    r"|wandb (sweep --project \S+ docs/wandb_sweep\.yaml|agent ENTITY/fer_lightning/ID)$"
    r"|optuna-dashboard outputs/sweeps/mine/study\.journal$"
    r"|wandb (leet|sync) outputs/DATE/RUN/wandb$"
    r"|eval \"\$\((python (train|eval)\.py|fer-lightning train) -sc install=bash\)\"$"
)


def starting_with(programs):
    """The commands that begin with one of these programs, without variables and what Slurm or torch adds."""
    found = []
    for document, line in COMMANDS:
        text = re.sub(r"^((\w+=\S+|srun( --[\w-]+=\S+)*|sbatch) )+", "", line)
        text = re.sub(r"^torchrun (--[\w-]+ \S+ )+", "python ", text)
        for program in programs:
            if text == program or text.startswith(f"{program} "):
                arguments = text.removeprefix(program).strip()
                found.append(pytest.param(program, arguments, id=f"{document}: {line}"))
                break
    return found


def overrides_of(arguments):
    """The overrides of the first job of a command, without Hydra's option of a sweep."""
    words = [word for word in shlex.split(arguments) if word != "-m"]
    parsed = OverridesParser.create().parse_overrides(words)
    for override, text in zip(parsed, words, strict=True):
        if override.is_sweep_override():
            interval = override.is_interval_sweep()
            value = override.value().start if interval else next(override.sweep_string_iterator())
            text = f"{override.get_key_element()}={value}"
        yield text


@pytest.mark.parametrize(("program", "arguments"), starting_with(HYDRA))
def test_every_command_of_hydra_composes(program, arguments):
    if arguments in ("--help", "--cfg job", "-sc install=bash"):
        return
    name = HYDRA[program]
    composed = compose_config(name, list(overrides_of(arguments)))
    if name == "train":
        assert composed.model
        composed.run_dir = "run"
        config = to_plain(composed)
        check_known_keys(config, TRAIN_KEYS)
        check_values(config)


class ParsedError(BaseException):
    """Arguments were parsed; nothing catches this one."""


@pytest.mark.parametrize(("program", "arguments"), starting_with(PARSED))
def test_every_other_command_is_parsed(program, arguments, monkeypatch, capsys):
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser, given=None, namespace=None):
        parse(parser, given, namespace)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.setattr(sys, "argv", [program, *shlex.split(arguments)])
    try:
        import_module(PARSED[program]).main()
    except ParsedError:
        return
    except SystemExit:
        pass
    pytest.fail(capsys.readouterr().err)


def rest():
    """The commands that neither of the tests above checks."""
    checked = {parameter.id for programs in (HYDRA, PARSED) for parameter in starting_with(programs)}
    return [
        pytest.param(line, id=f"{document}: {line}")
        for document, line in COMMANDS
        if f"{document}: {line}" not in checked
    ]


@pytest.mark.parametrize("line", rest())
def test_every_command_names_what_exists(line):
    text = re.sub(r"^((\w+=\S+|srun) )+", "", line)
    if found := re.fullmatch(r'pip install (?:-e )?"?\.(?:\[(\w+)\])?"?', text):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert found[1] is None or found[1] in project["optional-dependencies"]
    elif found := re.fullmatch(r"make (\w+)", text):
        assert f"\n{found[1]}:" in (ROOT / "Makefile").read_text()
    elif found := re.match(r"(?:bash|python) (\S+\.(?:sh|py))", text):
        assert (ROOT / found[1]).is_file()
        assert not found[1].endswith(".sh") or os.access(ROOT / found[1], os.R_OK)
    elif found := re.match(r"python -m (benchmarks\.\w+)", text):
        assert (ROOT / found[1].replace(".", "/")).with_suffix(".py").is_file()
    elif text.startswith("pytest"):
        paths = [word for word in shlex.split(text)[1:] if word.startswith("tests/")]
        assert all((ROOT / path).exists() for path in paths)
    else:
        assert OTHERS.match(text), f"{text}: an unknown program; add a check for it"


def test_the_documents_hold_the_commands_that_are_checked():
    assert len(starting_with(HYDRA)) >= 110
    assert len(starting_with(PARSED)) >= 25
    assert sum("predictor=llm" in line for _, line in COMMANDS) >= 4
