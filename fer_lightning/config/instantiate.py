"""Building objects from config nodes: the only way in which a config becomes code."""

import difflib
import inspect
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from hydra.utils import get_object
from hydra.utils import instantiate as hydra_instantiate

from fer_lightning.core.errors import FERError

# A config is untrusted input (every checkpoint carries one), and Hydra builds whatever it names, such as
# torch.load or os.system. So a target must start with one of these, be a class or a function named open_*,
# and be defined in that package: `fer_lightning.data.cache.shutil.rmtree` is not. Nodes below a target must
# be of the same kind, and a logger must be a Logger: Lightning's ExperimentWriter would make any folder.
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


def check_targets(node: Any, allowed: tuple[str, ...] = ALLOWED_TARGETS) -> None:
    """Refuse targets that are not allowed at their place, and interpolations, which Hydra would resolve."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            allowed = _check_target(node["_target_"], allowed)
        for key, value in node.items():
            if not isinstance(key, str):
                raise FERError(f"config: {key!r}: expected the name of a setting")
            check_targets(value, allowed)
    elif isinstance(node, list | tuple):
        for value in node:
            check_targets(value, allowed)
    elif isinstance(node, str) and "${" in node:
        raise FERError(f"config: {node!r}: an interpolation in a resolved config is not allowed")


def _check_target(target: Any, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a target, or return which targets are allowed below it."""
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


def instantiate(node: Any, *, name: str = "config", kind: str = "", **extra: Any) -> Any:
    """Build the object that a plain config node describes.

    Args:
        node: A dict with ``_target_`` (and ``_partial_``), or an empty node, which gives None.
        name: Of the node in the config, for messages, such as ``model``.
        kind: How a target must begin, of those that are allowed: ``fer_lightning.models.``
        **extra: Further keyword arguments for the target.

    Raises:
        FERError: If a target is not on the allow-list or does not exist, or a setting is unknown or refused.
    """
    if not isinstance(node, Mapping | None):
        raise FERError(f"{name}={node}: expected settings")
    if not node or "_target_" not in node:
        return None
    check_targets(node, tuple(allowed for allowed in ALLOWED_TARGETS if allowed.startswith(kind)))
    check_keys(name, node)
    try:
        return hydra_instantiate(node, **extra, _convert_="all")
    except Exception as error:
        cause = error.__cause__ if error.__cause__ is not None else error
        if isinstance(cause, FERError):
            raise cause from None
        # A missing key or a refused value. (Lightning is too heavy to import here.)
        refused = isinstance(cause, TypeError | ValueError | AttributeError | ArithmeticError)
        if refused or type(cause).__name__ == "MisconfigurationException":
            raise setting_error(name, partial(get_object(node["_target_"]), **node), cause) from error
        raise cause from None  # without Hydra's own around it


def check_keys(name: str, node: Mapping[str, Any]) -> None:
    """Refuse settings, of a node and of the nodes in it, that their targets do not take."""
    target = node.get("_target_")
    if isinstance(target, str) and target.startswith(ALLOWED_TARGETS):
        try:
            takes = list(inspect.signature(get_object(target)).parameters)
        except (ImportError, ValueError, AttributeError):
            takes = list(node)  # there is no such target, which check_targets reports
        for key in node:
            if not key.startswith("_") and key not in takes:
                close = difflib.get_close_matches(key, takes, n=1)
                meant = f"did you mean {name}.{close[0]}?" if close else f"it takes {', '.join(takes)}"
                built = target.rpartition(".")[2]
                raise FERError(f"{name}.{key}={node[key]}: {built} has no such setting; {meant}")
    for key, value in node.items():
        if isinstance(value, Mapping):
            check_keys(f"{name}.{key}", value)


def takes_total_steps(node: Any) -> bool:
    """Return whether a scheduler's node builds one that is given its number of steps."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        return False
    return "total_steps" in inspect.signature(get_object(node["_target_"])).parameters


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
        if isinstance(value, str) and not isinstance(defaults.get(key), str)
    ]
    if isinstance(error, TypeError) and len(texts) == 1:  # '<=' not supported between 'float' and 'str'
        default = defaults.get(texts[0], inspect.Parameter.empty)
        example = "" if default in (inspect.Parameter.empty, None) else f", such as {default}"
        return FERError(f"{name}.{texts[0]}={settings[texts[0]]}: expected another kind of value{example}")
    by_name = [key for key in settings if re.search(rf"\b{re.escape(key)}\b", words)]
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
