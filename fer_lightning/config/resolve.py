"""A composed config as plain containers, and the resolvers that the YAML files use.

The commands import it before anything else, so it must stay cheap: hydra and omegaconf only.
"""

import secrets
from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_lightning.config.folders import CONF, group_options
from fer_lightning.core.errors import FERError


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


def drop_plugin_options() -> None:
    """Remove the options of launchers that plugins of Hydra brought and ``conf/hydra/launcher`` replaces.

    Hydra would validate ours against theirs, which lack some keys.
    """
    Plugins.instance()  # imports them; they store their options then
    stored = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    for option in group_options("hydra/launcher"):
        stored.pop(f"{option}.yaml", None)


def compose_config(config_name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose a command's config outside of the command.

    Args:
        config_name: ``train`` or ``eval``.
        overrides: As on the command line, such as ``model=mlp``.
    """
    register_resolvers()
    drop_plugin_options()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(config_name, overrides=list(overrides))


def compose_defaults(config_name: str) -> dict[str, Any]:
    """Return the plain config of a command without overrides, within a command or outside."""
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        return to_plain(compose_config(config_name))
    finally:
        GlobalHydra.instance().hydra = before


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
