"""Settings that nothing reads, and settings that a command makes itself: both are errors."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from fer_lightning.config.types import TrainConfig
from fer_lightning.core.errors import FERError

TRAIN_KEYS = tuple(TrainConfig.__annotations__)
EVAL_KEYS = (
    "checkpoint",
    "split",
    "ensemble",
    "sample",
    "data",
    "predictor",
    "seed",
    "num_threads",
    "trust",
    "run_dir",
)
_ABSENT = object()

# Of predictors whose settings no constructor checks.
_PREDICTOR_SETTINGS = {"checkpoint": ("name", "tta"), "onnx": ("name",)}

# Settings that Lightning or a constructor takes, and that a run makes itself: how to set them.
_MADE_BY_THE_RUN = {
    "trainer.logger": "choose loggers with the group logger, such as logger=[wandb,csv]",
    "trainer.callbacks": "add a callback with +callbacks.NAME._target_=...",
    "trainer.default_root_dir": "choose the folder with hydra.run.dir=...",
    "trainer.enable_checkpointing": "a run always writes best.ckpt and last.ckpt (callbacks.checkpoint)",
    "trainer.barebones": "a run needs callbacks and metrics",
    "trainer.fast_dev_run": "use trainer=smoke, which also tests and reports",
    "classifier.backbone": "choose the network with model=...",
    "classifier.classes": "set data.classes and data.num_classes",
    "classifier.optimizer": "choose it with optimizer=...",
    "classifier.scheduler": "choose it with scheduler=...",
    "classifier.loss": "choose it with loss=...",
    "classifier.mean": "it is measured on the training images",
    "classifier.std": "it is measured on the training images",
    "data.source.root": "set data.root",
    "data.source.classes": "set data.classes",
    "data.source.image_size": "set data.image_size",
    "data.source.channels": "set data.channels",
}


def check_known_keys(config: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse a key of a command's config that nothing reads.

    Args:
        config: Plain.
        known: The command's top-level keys.

    Raises:
        FERError: With the setting that was probably meant, or the way to set it.
    """
    for key, value in config.items():
        if key not in known:
            shown = f"{key}={value}" if not isinstance(value, Mapping) else f"{key}.{next(iter(value), '')}"
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
            meant = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
            raise FERError(f"{shown}: nothing reads this setting; {meant}")
    for key in known:
        if key not in config:
            raise FERError(f"{key}: missing; leave out ~{key}, which removed it")
    predictor = config.get("predictor") or {}
    settings = _PREDICTOR_SETTINGS.get(str(predictor.get("name")))
    if settings is not None and (extra := next((key for key in predictor if key not in settings), None)):
        raise FERError(
            f"predictor.{extra}={predictor[extra]}: nothing reads this setting; "
            f"predictor={predictor['name']} has {' and '.join(settings[1:]) or 'none'}"
        )
    for name, instead in _MADE_BY_THE_RUN.items():
        found: Any = config
        for part in name.split("."):
            found = found.get(part, _ABSENT) if isinstance(found, Mapping) else _ABSENT
        if found is not _ABSENT:
            raise FERError(f"{name}={found}: a run sets this itself; {instead}")
