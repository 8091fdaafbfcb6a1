"""The commands of docs/extending.md: every key is read, and every target exists and takes its settings."""

import re
import shlex

import pytest
from omegaconf import OmegaConf

from fer_lightning.config.checks import check_values
from fer_lightning.config.instantiate import check_keys
from fer_lightning.config.known_keys import TRAIN_KEYS, check_known_keys
from fer_lightning.config.resolve import compose_config, to_plain
from tests.commands import ROOT
from tests.extending.conftest import documented_modules

TEXT = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python train.py (.+)$", TEXT, re.MULTILINE)


def nodes(config, name=""):
    for key, value in config.items() if isinstance(config, dict) else enumerate(config):
        if isinstance(value, dict | list):
            if isinstance(value, dict) and "_target_" in value:
                yield f"{name}{key}", value
            else:
                yield from nodes(value, f"{name}{key}.")


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize("line", [line for line in COMMANDS if "resume=" not in line])
def test_every_key_and_target_of_a_documented_command_is_read(line):
    if "timm" in line:
        pytest.importorskip("timm")
    composed = compose_config("train", shlex.split(line))
    composed.run_dir = "run"
    config = to_plain(composed)
    check_known_keys(config, TRAIN_KEYS)
    check_values(config)
    found = dict(nodes(config))
    found["optimizer"].pop("fused", None)
    assert {"model", "optimizer", "loss", "data", "trainer"} <= found.keys()
    for name, node in found.items():
        if name != "logger.mine":  # whose module is the reader's
            check_keys(name, node)


def test_the_document_has_every_recipe():
    assert len(COMMANDS) >= 28
    assert {
        "my_package/net.py",
        "my_package/schedules.py",
        "my_package/reader.py",
    } <= documented_modules().keys()


def test_documented_logger_file_composes(tmp_path):
    code = re.search(r"```yaml\n(# @package logger.mlflow\n.*?)```", TEXT, re.DOTALL)[1]
    (tmp_path / "logger").mkdir()
    (tmp_path / "logger/mlflow.yaml").write_text(code)
    config = compose_config("train", ["logger=[mlflow,csv]", f"hydra.searchpath=[file://{tmp_path}]"])
    assert list(OmegaConf.to_container(config.logger)) == ["mlflow", "csv"]
