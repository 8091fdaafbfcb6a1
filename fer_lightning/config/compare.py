"""Comparing configs: which settings may differ between runs that count as the same."""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

# Settings that may differ between a run and its continuation: where it is, who watches, how long it goes on.
KEYS_IGNORED_ON_RESUME = (
    "resume",
    "run_dir",
    "trust",
    "logger",
    "num_threads",
    "keep_epochs",
    "save_every_minutes",
    "save_every_steps",
    "callbacks.checkpoint.keep_epochs",
    "callbacks.checkpoint.every_minutes",
    "callbacks.checkpoint.every_steps",
    "callbacks.progress",
    "trainer.max_epochs",
    "trainer.strategy",
    "trainer.devices",
    "data.cache_dir",
)
# Where images and soft targets are: their hashes say whether a run goes on with the same ones.
PLACE_KEYS = ("data.root", "data.source.labels", "data.source.group.csv", "data.soft_targets")
# Settings that the machine decides: a finished run is the same run on another machine.
MACHINE_KEYS = (
    "trainer.accelerator",
    "trainer.precision",
    "optimizer.fused",
    "data.root",
)
# Settings in which repetitions of one configuration may differ: the seed, and where and on what they ran.
REPETITION_KEYS = (
    "seed",
    "resume",
    "run_dir",
    "trust",
    "logger",
    "num_threads",
    "data.seed",
    "data.root",
    "data.cache_dir",
    "trainer._target_",  # ours is Lightning's, which older runs name
    "trainer.accelerator",
    "trainer.devices",
)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested dicts into one dict with dotted keys; lists and dicts with numeric keys stay values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value and all(isinstance(name, str) for name in value):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _without(flat: Mapping[str, Any], ignored: Collection[str]) -> dict[str, Any]:
    """Leave out the ignored keys and the keys below them."""
    return {
        key: value
        for key, value in flat.items()
        if not any(key == name or key.startswith(f"{name}.") for name in ignored)
    }


def differences(
    one: Mapping[str, Any],
    other: Mapping[str, Any],
    ignored: Collection[str] = KEYS_IGNORED_ON_RESUME,
    *,
    in_both: bool = False,
) -> list[str]:
    """List the dotted keys in which two configs differ.

    Args:
        one: A plain config.
        other: Another.
        ignored: Keys to leave out, with all keys below them.
        in_both: Compare only keys that both have: a key of one alone came with another version.
    """
    left, right = (_without(flatten(config), ignored) for config in (one, other))
    missing = object()
    keys = left.keys() & right.keys() if in_both else left.keys() | right.keys()
    return sorted(key for key in keys if left.get(key, missing) != right.get(key, missing))


def config_hash(config: Mapping[str, Any]) -> str:
    """Hash a plain config without ``KEYS_IGNORED_ON_RESUME``: equal for a run and its continuation."""
    kept = _without(flatten(config), KEYS_IGNORED_ON_RESUME)
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]
