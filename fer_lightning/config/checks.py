"""Every setting checked before anything is decoded and before a run has a folder.

``check_values`` needs no torch and answers at once; ``check_parts`` builds each part on trial.
"""

import difflib
import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from hydra.utils import get_object

from fer_lightning.config.resolve import ALLOWED_TARGETS, instantiate
from fer_lightning.core.errors import FERError, check_seed

_EXPECTED: dict[str, tuple[str, Callable[[Any], bool]]] = {}  # dotted key -> in words, and as a test


def _is_whole(value: object, lowest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= lowest


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_part(value: Any) -> bool:
    return _is_whole(value, 1) or (isinstance(value, float) and 0 < value <= 1)


def _expect(words: str, test: Callable[[Any], bool], *keys: str) -> None:
    _EXPECTED.update(dict.fromkeys(keys, (words, test)))


_expect(
    "a whole number of at least 1",
    lambda value: _is_whole(value, 1),
    *("trainer.max_epochs", "trainer.accumulate_grad_batches"),
    *("data.batch_size", "data.eval_batch_size", "data.image_size", "data.num_classes"),
)
_expect(
    "a whole number of at least 1, or null",
    lambda value: value is None or _is_whole(value, 1),
    *("num_threads", "early_stopping", "save_every_steps"),
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
    "a whole number of batches (1), or a part of them (0.5; 1.0 is all)",
    _is_part,
    *(f"trainer.limit_{stage}_batches" for stage in ("train", "val", "predict")),
)
_expect(
    "1, since every epoch is judged by monitor",
    lambda value: value == 1,
    "trainer.check_val_every_n_epoch",
)
_expect(
    "true or false",
    lambda value: isinstance(value, bool),
    *("compile", "keep_epochs", "data.drop_leaks", "data.download"),
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
_expect("official or paper", lambda value: value in ("official", "paper"), "data.protocol")
_expect("error or skip", lambda value: value in ("error", "skip"), "data.on_bad")
_expect("a number in [0, 1)", lambda value: _is_number(value) and 0 <= value < 1, "data.val_fraction")
_expect("a number of at least 0", lambda value: _is_number(value) and value >= 0, "data.in_memory_gb")
_expect(
    "a list of at least two different names, such as [happy,sad]",
    lambda value: isinstance(value, list) and len(set(map(str, value))) == len(value) >= 2,
    "data.classes",
)
_expect(
    "a checkpoint, a run folder or null",
    lambda value: isinstance(value, str | None),
    "init_from",
    "data.root",
)


def _is_one_of_several(devices: object) -> bool:
    return isinstance(devices, list) and len(devices) == 1 and _is_whole(devices[0], 0)


def check_batch_limits(trainer: Mapping[str, Any], num_batches: Mapping[str, int]) -> None:
    """Refuse a part of the batches that is less than one of them.

    Args:
        trainer: A trainer node.
        num_batches: How many there are for ``train``, ``val`` and ``predict``; 0 where nothing is done.

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
    """Refuse settings that are no such number, word or list, and two that do not go together.

    Args:
        config: Plain, of train.py or eval.py; keys that it lacks are not missed.

    Raises:
        FERError: If one is.
    """
    check_seed(config["seed"])
    for key, (words, test) in _EXPECTED.items():
        node, _, setting = key.rpartition(".")
        settings = config.get(node) or {} if node else config
        if setting in settings and not test(settings[setting]):
            raise FERError(f"{key}={settings[setting]}: expected {words}")
    trainer = config.get("trainer") or {}
    several = trainer.get("devices", 1) != 1 and not _is_one_of_several(trainer["devices"])
    if trainer.get("strategy", "auto") not in ("auto", "ddp_spawn") or trainer.get("num_nodes", 1) != 1:
        raise FERError(
            "trainer: trains on one device, or with trainer=ddp on those of one machine (strategy=ddp_spawn: "
            "others start the command again, and with it a whole sweep); leave strategy and num_nodes out"
        )
    if several and trainer.get("strategy") != "ddp_spawn":
        raise FERError(
            f"trainer.devices={trainer['devices']}: several devices are for trainer=ddp; expected 1, or a "
            "list of one, such as [0]"
        )
    data = config["data"]
    if config.get("early_stopping") and data["protocol"] == "paper" and not data["val_fraction"]:
        raise FERError(
            f"early_stopping={config['early_stopping']}: data.protocol=paper validates nothing; set "
            "data.val_fraction=0.1 to hold a tenth of train out, or data.protocol=official"
        )


# What eval.py reads of a config, and what train.py reads besides.
REQUIRED_FOR_EVAL = (
    *("seed", "model._target_"),
    *(f"data.{key}" for key in ("_target_", "name", "classes", "num_classes", "image_size", "cache_dir")),
    *(f"data.{key}" for key in ("protocol", "val_fraction", "batch_size", "eval_batch_size")),
    *(f"trainer.{key}" for key in ("accelerator", "precision", "deterministic", "limit_predict_batches")),
)
REQUIRED_FOR_TRAINING = (
    *("classifier._target_", "optimizer._target_", "scheduler.interval", "scheduler.schedule"),
    *("trainer._target_", "trainer.max_epochs"),
)


def check_stored(config: Mapping[str, Any], where: object, *, trains: bool) -> None:
    """Refuse a config out of a file, which no command composed, where settings lack or are of another kind.

    Args:
        config: Plain.
        where: The file, for the message.
        trains: Whether training goes on by it; else it is evaluated by it.

    Raises:
        FERError: If something is amiss.
    """
    for key in (*REQUIRED_FOR_EVAL, *(REQUIRED_FOR_TRAINING if trains else ())):
        node, _, setting = key.rpartition(".")
        settings = config.get(node) if node else config
        if not isinstance(settings, Mapping) or setting not in settings:
            raise FERError(f"{where}: its config has no {key}; expected one that train.py wrote")
    for key in ("data.name", "data.cache_dir", "trainer.accelerator"):
        node, _, setting = key.rpartition(".")
        if not isinstance(config[node][setting], str):
            raise FERError(f"{where}: its config has {key}={config[node][setting]}, expected a text")
    try:
        check_values(config)
    except FERError as error:
        raise FERError(f"{where}: {error}") from error


def check_parts(config: Mapping[str, Any]) -> None:
    """Build network, optimiser, schedule, classifier and trainer on trial; nothing is allocated or kept.

    Args:
        config: Plain, its arithmetic chosen.

    Raises:
        FERError: If one of them refuses its settings; the sentence names the setting.
    """
    import torch
    from torch import nn

    from fer_lightning.evaluation.metrics import check_monitor
    from fer_lightning.training.checkpoint import build_backbone, find_checkpoint, init_backbone

    classes = tuple(map(str, config["data"]["classes"]))
    check_monitor(config["monitor"], config["monitor_mode"], len(classes))
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*meta parameter.*")  # weights copied to it go nowhere
        backbone = _build("model", config["model"], lambda node: build_backbone(node, channels_last=False))
        if config["init_from"] is not None:
            try:
                checkpoint = find_checkpoint(config["init_from"])
            except FERError as error:
                raise FERError(f"init_from={error}") from None
            init_backbone(backbone, checkpoint, classes, lambda _: None)
    some = nn.Parameter(torch.zeros(1))
    optimizer = _build("optimizer", config["optimizer"], lambda node: instantiate(node)([some]))
    scheduler = config["scheduler"]
    total = {"total_steps": 100} if scheduler["interval"] == "step" else {}
    if scheduler["schedule"]:

        def schedule(node: Mapping[str, Any]) -> None:
            made = instantiate(node)(optimizer, **total)
            optimizer.step()  # torch warns of a schedule that moves on before it
            made.step()

        _build("scheduler.schedule", scheduler["schedule"], schedule)
    parts = {
        "backbone": nn.Linear(1, 1),
        "classes": classes,
        "mean": 0.0,
        "std": 1.0,
        "scheduler_interval": scheduler["interval"],
        "class_counts": [1] * len(classes),
    }
    _build("classifier", config["classifier"], lambda node: instantiate(node, **parts))
    quiet = {"logger": False, "enable_checkpointing": False}
    _build("trainer", config["trainer"], lambda node: instantiate({**node, **quiet}))
    logger = config.get("logger") or {}
    if not isinstance(logger, Mapping):
        raise FERError(f"logger={logger}: expected settings")
    if str(logger.get("_target_")).startswith("fer_lightning."):
        _build("logger", logger, instantiate)
    else:  # another may reach for its server
        _check_keys("logger", logger)
    check_data(config["data"])


def check_data(node: Mapping[str, Any]) -> None:
    """Build a data module on trial, and the source too where it needs no place on the disk.

    Raises:
        FERError: If one of them refuses its settings.
    """
    own = {key: value for key, value in node.items() if key != "download"}
    data = _build("data", own, instantiate)
    try:
        if not callable(data.source):
            raise TypeError("no reader")
        if node["name"] == "synthetic":
            data.source(root=None, classes=data.classes, image_size=data.image_size)
    except TypeError as error:
        raise FERError(f"data.source={node['source']}: {error}; expected one as in conf/data") from error


def _build(name: str, node: Mapping[str, Any], make: Callable[[Mapping[str, Any]], Any]) -> Any:
    """Build a part, and find the setting that it refuses: the one without which it can be built."""
    if not isinstance(node, Mapping):
        raise FERError(f"{name}={node}: expected settings")
    _check_keys(name, node)
    try:
        return make(node)
    except FERError as error:
        if error.__cause__ is None:  # a sentence of its own
            raise
        reason: BaseException = error.__cause__.__cause__ or error.__cause__
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        reason = error
    settings = {key: value for key, value in node.items() if not key.startswith("_")}
    blamed = None
    for key in settings:
        try:
            make({other: kept for other, kept in node.items() if other != key})
        except Exception:  # noqa: BLE001, S112 - not this one, or another one too
            continue
        blamed = key
        break
    words = " ".join(str(reason).split())
    if blamed is None:  # one that cannot be left out: a word, perhaps, among numbers
        texts = [key for key, value in settings.items() if isinstance(value, str)]
        blamed = texts[0] if len(texts) == 1 else None
    if blamed is None:
        raise FERError(f"{name}: {words}") from reason
    if isinstance(reason, TypeError):  # '<=' not supported between instances of 'float' and 'str'
        default = inspect.signature(get_object(node["_target_"])).parameters[blamed].default
        words = "expected another kind of value"
        words += "" if default is inspect.Parameter.empty else f", such as {default}"
    raise FERError(f"{name}.{blamed}={settings[blamed]}: {words}") from reason


def _check_keys(name: str, node: Mapping[str, Any]) -> None:
    """Refuse settings, of a node and of those in it, that what they build does not take."""
    target = node.get("_target_")
    if isinstance(target, str) and target.startswith(ALLOWED_TARGETS):
        try:
            takes = list(inspect.signature(get_object(target)).parameters)
        except (ImportError, ValueError, AttributeError):
            takes = list(node)  # there is no such target, of which instantiate will tell
        for key in node:
            if not key.startswith("_") and key not in takes:
                close = difflib.get_close_matches(key, takes, n=1)
                meant = f"did you mean {name}.{close[0]}?" if close else f"it takes {', '.join(takes)}"
                built = target.rpartition(".")[2]
                raise FERError(f"{name}.{key}={node[key]}: {built} has no such setting; {meant}")
    for key, value in node.items():
        if isinstance(value, Mapping):
            _check_keys(f"{name}.{key}", value)
