"""Checks that no constructor can make: settings of the commands, and settings that depend on each other.

They need no torch and so answer at once. Every other setting is checked by the constructor that takes it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from fer_lightning.config.data_checks import check_data_node, shown
from fer_lightning.core.errors import FERError
from fer_lightning.core.processes import started_processes

_EXPECTED: dict[str, tuple[str, Callable[[Any], bool]]] = {}  # dotted key -> description and test


def _is_whole(value: object, lowest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= lowest


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_limit(value: Any) -> bool:
    return _is_whole(value, 1) or (isinstance(value, float) and 0 < value <= 1)


def _expect(words: str, test: Callable[[Any], bool], *keys: str) -> None:
    _EXPECTED.update(dict.fromkeys(keys, (words, test)))


_expect(
    "a whole number of at least 1",
    lambda value: _is_whole(value, 1),
    "trainer.max_epochs",
    "trainer.accumulate_grad_batches",
)
_expect(
    "a whole number of at least 1, or null",
    lambda value: value is None or _is_whole(value, 1),
    "num_threads",
    "early_stopping",
    "save_every_steps",
)
_expect(
    "a whole number of at least 1, or -1 for no limit",
    lambda value: value == -1 or _is_whole(value, 1),
    "trainer.max_steps",
)
_expect(
    "a positive number or null",
    lambda value: value is None or (_is_number(value) and value > 0),
    "save_every_minutes",
)
_expect(
    "a number of at least 0, or null",
    lambda value: value is None or (_is_number(value) and value >= 0),
    "trainer.gradient_clip_val",
)
_expect(
    "a whole number of batches (1), or a fraction of them (0.5; 1.0 is all)",
    _is_limit,
    "trainer.limit_train_batches",
    "trainer.limit_val_batches",
    "trainer.limit_predict_batches",
    "trainer.limit_test_batches",
)
_expect(
    "1.0: an epoch is validated once, at its end",
    lambda value: value == 1.0 and isinstance(value, float),
    "trainer.val_check_interval",
)
_expect(
    "a list of packages or targets, such as [my_package]",
    lambda value: isinstance(value, list) and all(isinstance(each, str) and each for each in value),
    "trust",
)
_expect(
    "1, since monitor is read after every epoch",
    lambda value: value == 1,
    "trainer.check_val_every_n_epoch",
)
_expect(
    "true or false",
    lambda value: isinstance(value, bool),
    "compile",
    "keep_epochs",
    "data.download",
)
_expect(
    "auto, or one of Lightning's in which the weights stay float32: 32-true, bf16-mixed or 16-mixed",
    lambda value: str(value) in ("auto", "32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16"),
    "trainer.precision",
)
_expect(
    "auto, a run or sweep folder, a checkpoint or null", lambda value: isinstance(value, str | None), "resume"
)
_expect(
    "a checkpoint, a run folder, or a list of them",
    lambda value: (
        isinstance(value, str | None)
        or (isinstance(value, list) and all(isinstance(each, str) for each in value))
    ),
    "checkpoint",
)
_expect("true, false or warn", lambda value: value in (True, False, "warn"), "trainer.deterministic")
_expect("a checkpoint, a run folder or null", lambda value: isinstance(value, str | None), "init_from")
_expect(
    f"a whole number from 0 to {2**32 - 1:,}", lambda value: _is_whole(value, 0) and value < 2**32, "seed"
)
_expect("train, val, test or all", lambda value: value in ("train", "val", "test", "all"), "split")


def _is_one_of_several(devices: object) -> bool:
    return isinstance(devices, list) and len(devices) == 1 and _is_whole(devices[0], 0)


def check_batch_limits(trainer: Mapping[str, Any], num_batches: Mapping[str, int]) -> None:
    """Refuse a fraction of the batches that is less than one batch.

    Args:
        trainer: A trainer node.
        num_batches: Number of batches for ``train``, ``val`` and ``predict``; 0 if the stage does not run.

    Raises:
        FERError: If ``limit_<stage>_batches`` leaves none.
    """
    for stage, num in num_batches.items():
        share = trainer.get(f"limit_{stage}_batches", 1.0)
        if num and isinstance(share, float) and int(num * share) < 1:
            raise FERError(
                f"trainer.limit_{stage}_batches={share}: less than one of the {num} batches; expected at "
                f"least {math.ceil(1000 / num) / 1000}, or 1 for one batch"
            )


def check_values(config: Mapping[str, Any]) -> None:
    """Check the settings of a command, and those that depend on each other.

    Args:
        config: Plain, of train.py or eval.py; missing keys are not checked.

    Raises:
        FERError: If a value is wrong.
    """
    for key, (words, test) in _EXPECTED.items():
        node, _, setting = key.rpartition(".")
        settings = config.get(node) or {} if node else config
        if setting in settings and not test(settings[setting]):
            raise FERError(f"{key}={shown(settings[setting])}: expected {words}")
    check_data_node(config["data"], optional="predictor" in config)
    trainer = config.get("trainer") or {}
    several = trainer.get("devices", 1) != 1 and not _is_one_of_several(trainer["devices"])
    if trainer.get("strategy", "auto") not in ("auto", "ddp_spawn"):
        raise FERError(
            "trainer: trains on one device, or with trainer=ddp on those of one machine (strategy=ddp_spawn: "
            "others start the command again, and with it a whole sweep); leave strategy out"
        )
    started = started_processes()
    num_nodes = 1 if started is None else started.num_nodes
    if trainer.get("num_nodes", num_nodes) != num_nodes:
        raise FERError(
            f"trainer.num_nodes={trainer['num_nodes']}: the command was started on {num_nodes}; leave it "
            "out, and start the command with torchrun or srun on each node"
        )
    if several and trainer.get("strategy") != "ddp_spawn":
        raise FERError(
            f"trainer.devices={trainer['devices']}: several devices are for trainer=ddp; expected 1, or a "
            "list of one, such as [0]"
        )
    data = config["data"]
    if config.get("early_stopping") and data.get("protocol") == "paper" and not data.get("val_fraction"):
        raise FERError(
            f"early_stopping={config['early_stopping']}: data.protocol=paper validates nothing; set "
            "data.val_fraction=0.1 to hold a tenth of train out, or data.protocol=official"
        )


REQUIRED_FOR_EVAL = (
    "seed",
    "model._target_",
    "data._target_",
    "data.name",
    "data.classes",
    "data.num_classes",
    "data.image_size",
    "data.protocol",
    "data.val_fraction",
    "data.batch_size",
    "data.eval_batch_size",
    "trainer.accelerator",
    "trainer.precision",
    "trainer.deterministic",
    "trainer.limit_predict_batches",
)
REQUIRED_FOR_TRAINING = (
    "classifier._target_",
    "optimizer._target_",
    "scheduler",
    "trainer._target_",
    "trainer.max_epochs",
)


def check_stored(config: Mapping[str, Any], where: object, *, trains: bool) -> None:
    """Check a config read from a file: required keys, their types, and everything ``check_values`` checks.

    Args:
        config: Plain.
        where: The file, for the message.
        trains: Whether it is to train; otherwise to evaluate.

    Raises:
        FERError: If a key is missing or a value is wrong.
    """
    for key in (*REQUIRED_FOR_EVAL, *(REQUIRED_FOR_TRAINING if trains else ())):
        node, _, setting = key.rpartition(".")
        settings = config.get(node) if node else config
        if not isinstance(settings, Mapping) or setting not in settings:
            raise FERError(f"{where}: its config has no {key}; expected one that train.py wrote")
    for key in ("data.name", "trainer.accelerator"):
        node, _, setting = key.rpartition(".")
        if not isinstance(config[node][setting], str):
            raise FERError(f"{where}: its config has {key}={config[node][setting]}, expected a string")
    try:
        check_values(config)
    except FERError as error:
        raise FERError(f"{where}: {error}") from error
