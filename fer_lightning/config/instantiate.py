"""Building objects from config nodes: the only way in which a config becomes code."""

import difflib
import inspect
import pkgutil
import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from hydra.utils import get_object
from hydra.utils import instantiate as hydra_instantiate

from fer_lightning.config.targets import ALLOWED_TARGETS, check_targets
from fer_lightning.core.errors import (
    FULL_ERROR_HINT,
    FERError,
    describe_error,
    is_bug,
    is_out_of_memory,
)

# Settings of other parts of a run, which people who know Lightning may look for here.
ELSEWHERE = {
    "num_workers": "the data set is one tensor in memory, from which batches are indexed without workers",
    "pin_memory": "the data set is one tensor, on the device where it fits",
    "persistent_workers": "the data set is one tensor in memory, from which batches are indexed "
    "without workers",
}


def instantiate(
    node: Any, *, name: str = "config", kind: str = "", trust: Collection[str] = (), **extra: Any
) -> Any:
    """Build the object that a plain config node describes.

    Args:
        node: A dict with ``_target_`` (and ``_partial_``), or an empty node, which gives None.
        name: Of the node in the config, for messages, such as ``model``.
        kind: How a target must begin that is not trusted, of those that are allowed:
            ``fer_lightning.models.``
        trust: What the config may name besides the allow-list, see ``check_targets``: ``ANY_TARGET`` for a
            config that the user composed, nothing for one read from a file.
        **extra: Further keyword arguments for the target.

    Raises:
        FERError: If a target is not allowed or does not exist, or a setting is unknown or refused.
    """
    if not isinstance(node, Mapping | None):
        raise FERError(f"{name}={node}: expected settings")
    if not node:
        return None
    if "_target_" not in node:
        key, value = next(iter(node.items()))
        raise FERError(
            f"{name}.{key}={value}: nothing reads this setting, since {name} has no _target_; choose an "
            f"option of the group {name}, or give {name}._target_"
        )
    check_targets(
        node, trust=trust, allowed=tuple(allowed for allowed in ALLOWED_TARGETS if allowed.startswith(kind))
    )
    check_keys(name, node, extra)
    try:
        return hydra_instantiate(node, **extra, _convert_="all")
    except Exception as error:
        cause = error.__cause__ if error.__cause__ is not None else error
        if isinstance(cause, FERError):
            raise cause from None
        if isinstance(cause, ImportError):  # of an optional package
            raise FERError(f"{name}: {' '.join(str(cause).split())}") from error
        # A missing key or a refused value. (Lightning is too heavy to import here.)
        refused = isinstance(cause, TypeError | ValueError | AttributeError | ArithmeticError)
        if refused or type(cause).__name__ == "MisconfigurationException":
            raise setting_error(name, partial(get_object(node["_target_"]), **node), cause) from error
        if is_out_of_memory(cause) or is_bug(cause) or isinstance(cause, OSError):
            raise cause from None  # without Hydra's own around it
        if type(cause) is RuntimeError:  # as Lightning reports what it refuses in the environment
            raise FERError(f"{name}: {' '.join(str(cause).split())}") from error
        raise FERError(f"{name}: {describe_error(cause)}; {FULL_ERROR_HINT}") from error


def check_keys(name: str, node: Mapping[str, Any], given: Collection[str] = ()) -> None:
    """Refuse settings, of a node and of the nodes in it, that nothing reads.

    Args:
        name: Of the node in the config, such as ``model``.
        node: Plain.
        given: Arguments that the program gives to the target, which a config cannot set.

    Raises:
        FERError: If a target does not exist, does not take a setting, or is given it by the program.
    """
    target = node.get("_target_")
    if isinstance(target, str):
        takes, takes_any = accepted_settings(load_target(name, target))
        for key in node:
            if key in given:
                raise FERError(f"{name}.{key}={node[key]}: the program sets this itself; leave it out")
        unknown = [key for key in node if not key.startswith("_") and not takes_any and key not in takes]
        if unknown:
            key, removals = unknown[0], " ".join(f"'~{name}.{key}'" for key in unknown)
            raise FERError(
                f"{unknown_setting(name, key, node[key], target, takes)} To remove what came with the option "
                f"of the group, add {removals}"
            )
    for key, value in node.items():
        if isinstance(value, Mapping):
            check_keys(f"{name}.{key}", value)


def unknown_setting(name: str, key: str, value: Any, target: str, takes: Collection[str]) -> str:
    """Describe a setting that a target does not take, and what may have been meant."""
    built = target.rpartition(".")[2]
    if key in ELSEWHERE:
        return f"{name}.{key}={value}: {built} has no such setting: {ELSEWHERE[key]}"
    close = difflib.get_close_matches(key, takes, n=1)
    meant = f"did you mean {name}.{close[0]}?" if close else f"it takes {', '.join(takes)}."
    return f"{name}.{key}={value}: {built} has no such setting; {meant}"


def load_target(name: str, target: str) -> Any:
    """Import what a target names.

    Raises:
        FERError: If there is no such thing, or a package that it needs is not installed.
    """
    try:
        return pkgutil.resolve_name(target)
    except (ImportError, ValueError, AttributeError) as error:
        missing: BaseException = error
        while missing.__cause__ is not None and not isinstance(missing, ModuleNotFoundError):
            missing = missing.__cause__
        absent = missing.name if isinstance(missing, ModuleNotFoundError) else None
        reason = f"does not exist ({' '.join(str(error).split())[:200]})"
        if absent and absent.partition(".")[0] != target.partition(".")[0]:
            reason = f"needs the package {absent}, which is not installed"
        raise FERError(f"{name}._target_={target}: {reason}") from error


def accepted_settings(made: Callable[..., Any]) -> tuple[list[str], bool]:
    """Return the keyword arguments that a class or a function takes, and whether it takes any others.

    ``**settings`` of a constructor are those of the next constructor in the order of inheritance.
    """
    constructors = (
        [vars(base)["__init__"] for base in inspect.getmro(made) if "__init__" in vars(base)]
        if inspect.isclass(made)
        else [made]
    )
    names: list[str] = []
    for constructor in constructors:
        try:
            parameters = inspect.signature(constructor).parameters.values()
        except (ValueError, TypeError):  # of a class written in C
            return names, True
        kinds = {parameter.kind for parameter in parameters}
        names += [
            each.name
            for each in parameters
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
            and each.name not in ("self", *names)
        ]
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            return names, False
    return names, True


def takes_total_steps(node: Any) -> bool:
    """Return whether a scheduler's node builds one that is given its number of steps."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        return False
    return "total_steps" in accepted_settings(get_object(node["_target_"]))[0]


def setting_error(name: str, made: Any, error: BaseException) -> FERError:
    """Describe why something could not be built, by the setting that its constructor complains about.

    Args:
        name: Of the node in the config, such as ``optimizer``.
        made: A ``functools.partial`` of the constructor with the settings, or any callable.
        error: What it raised.
    """
    words = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(made, partial):
        return FERError(f"{name}: {words}")
    settings = {key: value for key, value in made.keywords.items() if not key.startswith("_")}
    defaults = {key: value.default for key, value in inspect.signature(made.func).parameters.items()}
    texts = [
        key
        for key, value in settings.items()
        if (isinstance(value, str) and not isinstance(defaults.get(key), str))
        or (value is None and defaults.get(key, ...) is not None)
    ]
    if isinstance(error, TypeError) and len(texts) == 1:  # '<=' not supported between 'float' and 'str'
        default = defaults.get(texts[0], inspect.Parameter.empty)
        example = "" if default in (inspect.Parameter.empty, None) else f", such as {default}"
        return FERError(f"{name}.{texts[0]}={settings[texts[0]]}: expected another kind of value{example}")
    by_name = [key for key in settings if re.search(rf"\b{re.escape(key)}\b", words, re.IGNORECASE)]
    by_value = [
        key
        for key, value in settings.items()
        if isinstance(value, int | float | str)
        and re.search(rf"(?<![\w.]){re.escape(str(value))}(?![\w.])", words)
    ]
    for keys in (by_name, by_value):
        if len(keys) == 1:
            return FERError(f"{name}.{keys[0]}={settings[keys[0]]}: {words}")
    return FERError(f"{name}: {words}")
