"""Messages for mistyped overrides, in place of Hydra's.

``explain_override`` composes the config again without the mistyped override, to find what was meant.
"""

import difflib
import re
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_lightning.config.compare import flatten
from fer_lightning.config.folders import CONF, group_options, is_group, search_path_override
from fer_lightning.config.instantiate import ELSEWHERE, accepted_settings, load_target, unknown_setting
from fer_lightning.core.program import quoted_override, shell_quote


def explain_override(error: Exception, config_name: str) -> str | None:
    """Describe which override is wrong, and what may have been meant.

    Args:
        error: What Hydra or OmegaConf raised while composing the config.
        config_name: ``train`` or ``eval``.

    Returns:
        A sentence; None for an error that is not about an override.
    """
    text = str(error)
    given = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if isinstance(error, OverrideParseException):
        return _explain_syntax(error.override, given)
    if "does not support sweep type" in text:
        parser = OverridesParser.create()
        typed = next(typed for typed in given if parser.parse_override(typed).is_interval_sweep())
        key = typed.partition("=")[0]
        return (
            f"{typed}: this sweeper takes the values themselves, such as {key}=1,2; hydra/sweeper=optuna "
            "searches an interval"
        )
    if found := re.match(r"Could not override '(.+?)'", text):
        return _explain_unknown(_typed(found[1], given), found[1], given, config_name)
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        close = next(iter(difflib.get_close_matches(option, error.options, n=1)), None)
        return (
            f"{group}={option}: no such option; expected one of {', '.join(error.options)}"
            f"{f' (did you mean {close}?)' if close else ''}"
        )
    if found := re.match(r".*Could not load '(\w+)/(\w+)'", text):  # of a list of options
        return f"{found[1]}={found[2]}: no such option; expected some of {', '.join(group_options(found[1]))}"
    if found := re.match(r"Ambiguous value for argument '(.+)'", text):
        key, _, value = found[1].partition("=")
        return (
            f"{found[1]}: a comma lists the values of a sweep, which needs -m; one value with a comma is "
            f"quoted ({_quoted(key, value)}), a list is in brackets ({shlex.quote(f'{key}=[{value}]')})"
        )
    if found := re.match(r"Could not append to config. An item is already at '(.+?)'", text):
        typed = _typed(found[1], given)
        return f"{typed}: the config has this setting; change it without the +: {typed.lstrip('+')}"
    if text.startswith("Config group override must be a string or a list"):
        typed = next(typed for typed in given if _names_no_option(typed))
        options = ", ".join(group_options(typed.partition("=")[0]))
        if not options:  # =3
            return f"{typed}: expected key=value"
        return f"{typed}: expected one of {options}; leave it out for what the config chooses by itself"
    found = re.match(r"Error merging override (.+)", text)
    if found and "Cannot merge" in f"{text} {error.__cause__}":
        typed = _typed(found[1].lstrip("+~").partition("=")[0], given)
        is_list = typed.partition("=")[2].startswith("[")
        expected = "settings by name, found a list" if is_list else "a list, such as [a,b], found settings"
        return f"{typed}: expected {expected}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        cause = f" {error.__cause__}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
        text = re.sub(r"\s*reference_type=\S+", "", text + cause).partition("Config search path:")[0]
        return " ".join(re.sub(r"(?m)^\s*(full_key:|object_type=|See https:).*$", "", text).split())
    return _explain_refused(error, given, config_name)


def _explain_refused(error: Exception, given: Sequence[str], config_name: str) -> str | None:
    """Explain an override that makes composing the config fail with an error, without which it does not."""

    def fails(overrides: Sequence[str]) -> bool:
        try:
            _compose(config_name, overrides)
        except Exception as again:  # noqa: BLE001 - any that the command ended with
            return (type(again), str(again)) == (type(error), str(error))
        return False

    parser = OverridesParser.create()
    tried = [typed for typed in given if not parser.parse_override(typed).is_sweep_override()]
    if not fails(tried):
        return None
    without = {typed: [other for other in tried if other != typed] for typed in tried}
    blamed = next((typed for typed, others in without.items() if not fails(others)), None)
    if blamed is None:
        return None
    key, _, value = blamed.lstrip("+").partition("=")
    above, _, last = key.rpartition(".")
    config = _compose(config_name, without[blamed])[0]
    if flatten(config).get(above, ...) is None:
        whole = shlex.quote(f"{above}={{{last}: {value}}}")
        return f"{blamed}: {above} is null and has no settings; set it as a whole, {whole}"
    return f"{blamed}: cannot be put into the config ({' '.join(str(error).split()) or type(error).__name__})"


def _typed(key: str, given: Sequence[str]) -> str:
    """Return the override of a key as it was typed."""
    return next((typed for typed in given if typed.lstrip("+~").partition("=")[0] == key), key)


def _names_no_option(typed: str) -> bool:
    """Return whether an override gives a group a value that cannot name an option, such as null."""
    override = OverridesParser.create().parse_override(typed)
    return is_group(override.key_or_group) and not isinstance(override.value(), str | list)


def _explain_syntax(typed: str, given: Sequence[str]) -> str:
    """Explain an override that Hydra's grammar refuses, and quote it."""
    key, equals, value = typed.partition("=")
    before = given[given.index(typed) - 1] if typed in given[1:] else ""
    if not equals and "=" in before:
        key, _, value = before.partition("=")
        quoted = _quoted(key, f"{value} {typed}")
        return f"{typed}: expected key=value; a value with a space is quoted twice: {quoted}"
    if not equals:
        return f"{typed}: expected key=value"
    quoted = _quoted(key, value)
    try:
        OverridesParser.create().parse_override(quoted_override(key, value))
    except HydraException:
        return f"{typed}: cannot be read; expected key=value"
    return f"{typed}: this value must be quoted, once for the shell and once for the config: {quoted}"


def _quoted(key: str, value: str) -> str:
    """Quote a value for Hydra and for a shell."""
    return shell_quote(quoted_override(key, value))


def _explain_unknown(typed: str, key: str, given: Sequence[str], config_name: str) -> str:
    """Explain an override of an unknown key: which option has it, or what may have been meant."""
    choices = [other for other in given if _chooses(other) and other != typed]
    of_a_run = ""
    if any(other.startswith("resume=") for other in given):
        of_a_run = (
            f"{typed}: this command's own config has no such setting; that of the run to continue is given "
            f"with a +: {shlex.quote(f'+{typed}')}"
        )
    config, chosen = _compose(config_name, choices)
    group, _, rest = key.partition(".")
    if rest and group in chosen:
        others = [other for other in choices if not other.startswith(f"{group}=")]
        owners = [
            f"{group}={option}"
            for option in group_options(group)
            if key in set(_keys(_compose(config_name, [*others, f"{group}={option}"])[0]))
        ]
        if owners and of_a_run:
            return of_a_run
        if owners:
            return f"{typed}: a setting of {' and '.join(owners)}; this command has {group}={chosen[group]}"
    close = _close_keys(key, {*_keys(config), *chosen})
    if close and key.rpartition(".")[2] not in ELSEWHERE:
        return f"{typed}: no such setting or group; did you mean {' or '.join(close)}?"
    node, _, setting = key.rpartition(".")
    target = flatten(config).get(f"{node}._target_")
    if target is not None:
        takes, takes_any = accepted_settings(load_target(node, target))
        if takes_any or setting in takes:
            return (
                f"{typed}: no such setting in the config; what else {target} takes is given with a +: "
                f"{shlex.quote(f'+{typed}')}"
            )
        return unknown_setting(node, setting, typed.partition("=")[2], target, takes)
    if group_options(key):
        return f"{typed}: {key} is no group of this command, expected one of {', '.join(chosen)}"
    return (
        of_a_run
        or f"{typed}: no such setting or group; --help lists the groups, and --cfg job prints all settings"
    )


def _chooses(typed: str) -> bool:
    """Return whether an override chooses an option of a group, such as model or hydra/launcher."""
    group, _, option = typed.partition("=")
    return "/" in group or option in group_options(group)


def _compose(config_name: str, overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compose the config with some overrides; return it with Hydra's settings, and the chosen options."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [*overrides, *search_path_override(sys.argv[1:])]
        composed = compose(config_name, overrides=overrides, return_hydra_config=True)
    config = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(config, dict)
    chosen = {
        group: option
        for group, option in config["hydra"]["runtime"]["choices"].items()
        if not group.startswith("hydra")
    }
    return {str(key): value for key, value in config.items()}, chosen


def _keys(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a config, including those of nodes."""
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")


def _close_keys(key: str, known: Collection[str]) -> list[str]:
    """Find keys that look like a key, or that end like it if its beginning was left out."""
    known = [name for name in known if not key.startswith(f"{name}.")]
    if alike := difflib.get_close_matches(key, known, n=1, cutoff=0.75):
        return alike
    last = key.rpartition(".")[2]
    ours = [name for name in known if not name.startswith("hydra.")]
    if ending := [name for name in ours if name.rpartition(".")[2] == last]:
        return sorted(ending)[:3]
    ends = difflib.get_close_matches(last, {name.rpartition(".")[2] for name in ours}, n=1, cutoff=0.75)
    return sorted(name for name in ours if name.rpartition(".")[2] in ends)[:3]
