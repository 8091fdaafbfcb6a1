"""Configs as plain data: resolving them, comparing them, and building objects from them safely.

Imported before anything else by the commands, so it must stay cheap: hydra and omegaconf only.
"""

import hashlib
import inspect
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra.utils import get_object
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_lightning.core.errors import FERError

# A config can come from a stranger (a checkpoint carries one), and hydra builds what it names, torch.load and
# os.system included. Targets start with one of these, and are classes, or functions named open_*, that are
# defined in such a package themselves: `fer_lightning.data.cache.shutil.rmtree` is not. What stands below a
# target is of its own kind, and a logger is one: Lightning's ExperimentWriter makes any folder it is told to.
ALLOWED_TARGETS = (
    "fer_lightning.models.",
    "fer_lightning.data.",
    "fer_lightning.training.classifier.FERClassifier",
    "fer_lightning.training.loggers.wandb.FailsafeWandbLogger",
    "lightning.pytorch.Trainer",
    "lightning.pytorch.loggers.",
    "torch.optim.",
)
_HOMES = ("fer_lightning.", "lightning.pytorch.", "torch.optim.")

# What may differ between a run and its continuation: where it is, who watches, how long it goes on.
KEYS_IGNORED_ON_RESUME = (
    "resume",
    "run_dir",
    "logger",
    "num_threads",
    "keep_epochs",
    "save_every_minutes",
    "save_every_steps",
    "trainer.max_epochs",
)


CONF = Path(__file__).resolve().parents[2] / "conf"


def register_resolvers() -> None:
    """Make what the YAML files use known to OmegaConf.

    ``${short_id:}`` is six hex digits, the same all over one config; ``${groups:data,model}`` lists the
    options of these groups, a line each, for ``--help``.
    """
    OmegaConf.register_new_resolver("short_id", lambda: secrets.token_hex(3), use_cache=True, replace=True)
    OmegaConf.register_new_resolver(
        "groups",
        lambda *names: "\n".join(f"{name}: {', '.join(group_options(name))}" for name in names),
        replace=True,
    )


def group_options(group: str) -> list[str]:
    """Name the options of a config group; none where there is no such group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml")) if group else []


def to_plain(config: DictConfig) -> dict[str, Any]:
    """Resolve a config to dicts, lists and scalars.

    Raises:
        FERError: If an interpolation or a mandatory value is missing.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise FERError(f"config: {str(error).splitlines()[0]}") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def read_yaml(path: Path) -> Any:
    """Read a YAML file that may be a stranger's to plain containers, interpolations left as text.

    Returns:
        What it holds; None if there is no such file.

    Raises:
        FERError: If it is not YAML, or has an alias: with these a few lines mean billions of values.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if "*" in text and any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise FERError(f"{path}: refused: it has aliases (*), which a config of ours never has")
        return OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except FileNotFoundError:
        return None
    except FERError:
        raise
    except OSError as error:
        raise FERError(f"{path}: {error.strerror or error}") from error
    except (ValueError, AssertionError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise FERError(f"{path}: not readable as YAML ({reason[:200]})") from error


def read_config(path: Path) -> dict[str, Any]:
    """Read the resolved config of a run, which may be a stranger's.

    Raises:
        FERError: If it is no such file, names what this project does not build, or has an interpolation,
            which could read this machine's environment.
    """
    config = read_yaml(path)
    if not isinstance(config, dict):
        raise FERError(f"{path}: expected settings, found a {type(config).__name__}")
    try:
        _check(config)
    except FERError as error:
        raise FERError(f"{path}: {error}") from error
    return {str(key): value for key, value in config.items()}


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested dicts into one dict with dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Name the dotted keys in which two configs would train differently."""
    left, right = flatten(one), flatten(other)
    missing = object()
    return [
        key
        for key in sorted(left.keys() | right.keys())
        if not any(key == free or key.startswith(f"{free}.") for free in KEYS_IGNORED_ON_RESUME)
        and left.get(key, missing) != right.get(key, missing)
    ]


def config_hash(config: Mapping[str, Any]) -> str:
    """Hash a plain config, ``KEYS_IGNORED_ON_RESUME`` aside: equal for a run and its continuation."""
    kept = {
        key: value
        for key, value in flatten(config).items()
        if not any(key == free or key.startswith(f"{free}.") for free in KEYS_IGNORED_ON_RESUME)
    }
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def _check(node: Any, allowed: tuple[str, ...] = ALLOWED_TARGETS) -> None:
    """Refuse targets that are not allowed where they stand, and interpolations, which hydra would resolve."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            allowed = _check_target(node["_target_"], allowed)
        for key, value in node.items():
            if not isinstance(key, str):
                raise FERError(f"config: {key!r} is no name of a setting")
            _check(value, allowed)
    elif isinstance(node, list | tuple):
        for value in node:
            _check(value, allowed)
    elif isinstance(node, str) and "${" in node:
        raise FERError(f"config: {node!r}: an interpolation in a resolved config is not allowed")


def _check_target(target: Any, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a target, or give what is allowed below it."""
    kind = next((start for start in allowed if isinstance(target, str) and target.startswith(start)), None)
    if kind is None:
        raise FERError(f"config: _target_ {target} is not allowed, expected one of {', '.join(allowed)}...")
    try:
        found = get_object(target)
    except (ImportError, ValueError, AttributeError) as error:
        raise FERError(f"config: _target_ {target} does not exist") from error
    is_opener = inspect.isfunction(found) and found.__name__.startswith("open_")
    if not (inspect.isclass(found) or is_opener) or not f"{found.__module__}.".startswith(_HOMES):
        raise FERError(f"config: _target_ {target} is not a class of an allowed package")
    if kind == "lightning.pytorch.loggers." and "Logger" not in {
        base.__name__ for base in inspect.getmro(found)
    }:
        raise FERError(f"config: _target_ {target} is not a logger")
    return (kind,)


def instantiate(node: Any, kind: str = "", **extra: Any) -> Any:
    """Build the object a plain config node describes: the one door through which configs become code.

    Args:
        node: A dict with ``_target_`` (and ``_partial_``), or an empty node, which gives None.
        kind: How a target must begin, of those that are allowed: ``fer_lightning.models.``
        **extra: Further keyword arguments for the target.

    Raises:
        FERError: If a target is not on the allow-list, does not exist, or does not take its keys.
    """
    if not node or "_target_" not in node:
        return None
    _check(node, tuple(allowed for allowed in ALLOWED_TARGETS if allowed.startswith(kind)))
    try:
        return hydra_instantiate(node, **extra, _convert_="all")
    except Exception as error:
        cause = error.__cause__ if error.__cause__ is not None else error
        if isinstance(cause, FERError):
            raise cause from None
        # A misspelt or missing key, or a refused value. (Lightning is too heavy to import here.)
        refused = isinstance(cause, TypeError | ValueError | AttributeError | MemoryError)
        if refused or type(cause).__name__ == "MisconfigurationException":
            raise FERError(f"config: {node['_target_']}: {cause}") from error
        raise
