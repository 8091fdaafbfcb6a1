"""Configs read from run folders, which are untrusted input."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_lightning.config.targets import check_targets
from fer_lightning.core.errors import FERError
from fer_lightning.core.files import check_not_special


def read_yaml(path: Path) -> Any:
    """Read an untrusted YAML file to plain containers; interpolations stay text.

    Returns:
        Its content; None if there is no such file.

    Raises:
        FERError: If it is not YAML, or has aliases, with which a few lines can mean billions of values.
    """
    check_not_special(path)
    try:
        text = path.read_text(encoding="utf-8")
        if "*" in text and any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise FERError(f"{path}: rejected: YAML aliases (*) are not allowed")
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


def read_config(path: Path, *, trust: Collection[str] = ()) -> dict[str, Any]:
    """Read the resolved config of a run, which is untrusted input.

    Args:
        path: The file.
        trust: What it may name besides the allow-list, see ``check_targets``; ``ANY_TARGET`` for a config
            that is only compared, and builds nothing.

    Raises:
        FERError: If it is not a config, names a target that is not allowed, or has an interpolation, which
            could read this machine's environment.
    """
    config = read_yaml(path)
    if not isinstance(config, dict):
        raise FERError(f"{path}: expected settings, found a {type(config).__name__}")
    try:
        check_targets(config, trust=trust)
    except FERError as error:
        raise FERError(f"{path}: {error}") from error
    return {str(key): value for key, value in config.items()}
