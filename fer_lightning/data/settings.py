"""The checks of a data module's settings: each is refused by its constructor, before anything is read."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fer_lightning.config.data_checks import MAX_IMAGE_SIZE
from fer_lightning.core.errors import FERError
from fer_lightning.data.decode import check_channels

_MAX_LISTED = 20  # class names in an error


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_settings(data: Any) -> None:
    """Refuse settings that are out of range or do not go together.

    Args:
        data: A data module whose attributes are its settings.
    """
    for key in ("image_size", "num_classes", "batch_size", "eval_batch_size"):
        if not _is_count(value := getattr(data, key)):
            raise FERError(f"data.{key}={value}: expected a whole number of at least 1")
    if data.image_size > MAX_IMAGE_SIZE:
        raise FERError(f"data.image_size={data.image_size}: expected at most {MAX_IMAGE_SIZE:,} pixels")
    if data.seed != 0 and not _is_count(data.seed):
        raise FERError(f"seed={data.seed}: expected a whole number of at least 0")
    check_channels(data.channels)
    _check_num_classes(data.num_classes, data.classes)
    truths = (True, False)
    for key, choices in (
        ("protocol", ("official", "paper")),
        ("on_bad", ("error", "skip")),
        ("near_duplicates", ("together", "ignore")),
        ("predict_split", ("train", "val", "test", "all")),
        ("drop_leaks", truths),
        ("download", truths),
    ):
        value = getattr(data, key)
        if value not in choices or (choices is truths and not isinstance(value, bool)):
            *others, last = map(str, choices)
            expected = f"{', '.join(others)} or {last}"
            raise FERError(f"data.{key}={value}: expected {expected.lower()}")
    for key, words, limit in (
        ("val_fraction", "a number in [0, 1)", math.nextafter(1.0, 0.0)),
        ("batch_transforms_until", "a number in [0, 1]", 1.0),
        ("in_memory_gb", "a number of at least 0", sys.float_info.max),
    ):
        value = getattr(data, key)
        if not _is_number(value) or not 0 <= value <= limit:
            raise FERError(f"data.{key}={value}: expected {words}")
    _check_soft_targets(data)
    sides = list(data.augment.sides)
    if sides and sides[-1] != data.image_size:
        raise FERError(
            f"data.augment.sides={sides}: the last must be data.image_size={data.image_size}, on which the "
            "network is tested; change it, or set data.augment.sides=[]"
        )


def _check_soft_targets(data: Any) -> None:
    path, weight = data.soft_targets, data.soft_targets_weight
    temperature = data.soft_targets_temperature
    if path is not None and not (isinstance(path, str | Path) and str(path).strip()):
        raise FERError(f"data.soft_targets={path}: expected a file, predictions_train.npz, or null")
    if not _is_number(weight) or not 0 <= weight <= 1:
        raise FERError(f"data.soft_targets_weight={weight}: expected a number in [0, 1]")
    if not _is_number(temperature) or not 0 < temperature < float("inf"):
        raise FERError(f"data.soft_targets_temperature={temperature}: expected a number above 0")


def _check_num_classes(num_classes: int, classes: Sequence[str]) -> None:
    if num_classes != len(classes):
        shown = ", ".join(classes if len(classes) <= _MAX_LISTED else [*classes[:_MAX_LISTED], "..."])
        raise FERError(
            f"data.num_classes={num_classes}: data.classes names {len(classes)} different classes ({shown}); "
            "set both"
        )
