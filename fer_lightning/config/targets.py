"""What a config read from a file may build: the allow-list of ``_target_``, and what a user adds to it.

A config in a checkpoint or a run folder is untrusted input, and Hydra builds whatever it names, such as
``torch.load`` or ``os.system``. A config that the user composes on a command line is the user's own, and may
name any target.
"""

import inspect
import sys
from collections.abc import Collection, Mapping
from typing import Any

from hydra.utils import get_object

from fer_lightning.core.errors import FERError

# The beginnings of allowed targets. A target must also be a class or a function named open_*, and be defined
# in one of the packages below: `fer_lightning.data.cache.shutil.rmtree` is not. Nodes below a target must be
# of the same kind, and a logger must be a Logger: Lightning's ExperimentWriter would make any folder.
ALLOWED_TARGETS = (
    "fer_lightning.models.",
    "fer_lightning.data.",
    "fer_lightning.training.classifier.FERClassifier",
    "fer_lightning.training.losses.",
    "fer_lightning.training.optimizers.SAM",
    "fer_lightning.training.callbacks.",
    "fer_lightning.training.trainer.Trainer",
    "fer_lightning.training.loggers.wandb.FailsafeWandbLogger",
    "fer_lightning.training.loggers.csv_logger.CSVLogger",
    "lightning.pytorch.Trainer",
    "lightning.pytorch.loggers.",
    "lightning.pytorch.callbacks.",
    "fer_lightning.search.pruning.TrialPruning",
    "optuna.pruners.",
    "torch.nn.",
    "torch.optim.",
    "torchvision.transforms.v2.",
)
_HOMES = (
    "fer_lightning.",
    "lightning.pytorch.",
    "optuna.pruners.",
    "torch.nn.modules.loss.",
    "torch.optim.",
    "torchvision.transforms.v2.",
)
_REQUIRED_BASE = {"lightning.pytorch.loggers.": "Logger", "lightning.pytorch.callbacks.": "Callback"}

# What else a node of one kind may hold: batch transforms of a data module, the pruner of a callback.
_ALSO_BELOW = {
    "fer_lightning.data.": ("torchvision.transforms.v2.",),
    "fer_lightning.search.pruning.TrialPruning": ("optuna.pruners.",),
}

ANY_TARGET = ("",)  # as ``trust``: for a config that the user composed


def is_trusted(target: object, trust: Collection[str]) -> bool:
    """Return whether a target is one that the user trusts: of a package, or a target itself."""
    return isinstance(target, str) and any(
        not prefix or target == prefix or target.startswith(f"{prefix}.") for prefix in trust
    )


def check_targets(
    node: Any, *, trust: Collection[str] = (), allowed: tuple[str, ...] = ALLOWED_TARGETS
) -> None:
    """Refuse targets that are not allowed at their place, and interpolations, which Hydra would resolve.

    Args:
        node: Plain containers.
        trust: Packages or targets that the user trusts besides the allow-list; ``ANY_TARGET`` for all.
        allowed: How a target may begin.

    Raises:
        FERError: With the target, and how to trust it.
    """
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if "_target_" in node and not is_trusted(target, trust):
            allowed = _check_target(target, allowed)
        for key, value in node.items():
            if not isinstance(key, str | int):  # numbers: {0: 2} of GradientAccumulationScheduler
                raise FERError(f"config: {key!r}: expected the name of a setting")
            check_targets(value, trust=trust, allowed=allowed)
    elif isinstance(node, list | tuple):
        for value in node:
            check_targets(value, trust=trust, allowed=allowed)
    elif isinstance(node, str) and "${" in node:
        raise FERError(f"config: {node!r}: an interpolation in a resolved config is not allowed")


def _is_a_users(package: str) -> bool:
    """Return whether a package may be the user's own: the others are trusted as far as the list says."""
    known = {*sys.stdlib_module_names, *(start.partition(".")[0] for start in ALLOWED_TARGETS)}
    return package.isidentifier() and package not in known


def _check_target(target: Any, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a target, or return which targets are allowed below it."""
    kind = next((start for start in allowed if isinstance(target, str) and target.startswith(start)), None)
    if kind is None:
        package = str(target).partition(".")[0]
        hint = f"; if you trust it, add trust=[{package}]" if _is_a_users(package) else ""
        raise FERError(
            f"config: _target_ {target} is not allowed in a config read from a file, expected one of "
            f"{', '.join(allowed)}...{hint}"
        )
    try:
        found = get_object(target)
    except (ImportError, ValueError, AttributeError) as error:
        raise FERError(f"config: _target_ {target} does not exist") from error
    is_opener = inspect.isfunction(found) and found.__name__.startswith("open_")
    if not (inspect.isclass(found) or is_opener) or not f"{found.__module__}.".startswith(_HOMES):
        raise FERError(f"config: _target_ {target} is not a class of an allowed package")
    base = _REQUIRED_BASE.get(kind)
    if base and base not in {each.__name__ for each in inspect.getmro(found)}:
        raise FERError(f"config: _target_ {target} is not a {base.lower()}")
    return (kind, *_ALSO_BELOW.get(kind, ()))


def named_targets(node: Any) -> tuple[str, ...]:
    """List the targets that a config node names, at any depth."""
    if isinstance(node, Mapping):
        own = (node["_target_"],) if isinstance(node.get("_target_"), str) else ()
        return own + tuple(target for value in node.values() for target in named_targets(value))
    if isinstance(node, list | tuple):
        return tuple(target for value in node for target in named_targets(value))
    return ()
