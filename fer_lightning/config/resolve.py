"""A composed config as plain containers, and the resolvers that the YAML files use.

The commands import it before anything else, so it must stay cheap: hydra and omegaconf only.
"""

import secrets
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_lightning.core.errors import FERError

CONF = Path(__file__).resolve().parents[2] / "conf"


def register_resolvers() -> None:
    """Register the resolvers that the YAML files use.

    ``${short_id:}`` is six hex digits, the same everywhere in one config. ``${groups:data,model}`` lists the
    options of these groups for ``--help``, one line per group.
    """
    OmegaConf.register_new_resolver("short_id", lambda: secrets.token_hex(3), use_cache=True, replace=True)
    OmegaConf.register_new_resolver(
        "groups",
        lambda *names: "\n".join(f"{name}: {', '.join(group_options(name))}" for name in names),
        replace=True,
    )


def group_options(group: str) -> list[str]:
    """List the options of a config group; an unknown group has none."""
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
