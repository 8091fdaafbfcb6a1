"""The name of a run: what sets it apart from others, as in ``mlp-s0-lr1e-3``."""

import hashlib
import re
from collections.abc import Iterator, Sequence

from fer_lightning.config.compare import KEYS_IGNORED_ON_RESUME, MACHINE_KEYS
from fer_lightning.config.folders import group_options

MAX_LENGTH = 64  # a legend cuts longer ones; W&B refuses more than 128

# Settings that have a place of their own in the name, and those that change no result.
_LEFT_OUT = {
    *KEYS_IGNORED_ON_RESUME,
    *MACHINE_KEYS,
    *("model", "seed", "experiment", "data", "hydra", "data.download", "trainer.devices"),
} - {"trainer.max_epochs"}
_SHORT = {
    "optimizer.weight_decay": "wd",
    "optimizer.momentum": "mom",
    "data.batch_size": "bs",
    "data.val_fraction": "val",
    "data.augment": "augment",
    "trainer.max_epochs": "e",
    "trainer.gradient_clip_val": "clip",
    "trainer.accumulate_grad_batches": "accum",
    "classifier.label_smoothing": "ls",
    "classifier.class_weights": "cw",
    "classifier.ema_decay": "ema",
    "model.dropout": "drop",
    "early_stopping": "patience",
    "init_from": "init",
}


def run_name(
    model: str,
    seed: int,
    overrides: Sequence[str],
    *,
    experiment: str | None = None,
    dataset: str = "fer2013",
) -> str:
    """Name a run by its model, its seed and what was changed.

    Args:
        model: The chosen option of ``model``, or a class name.
        seed: The run's seed.
        overrides: The command's overrides, such as ``optimizer.lr=0.001``. Those of the machine, the logger
            and the run folder are left out.
        experiment: The chosen experiment; ``_<model>`` at its end is left out.
        dataset: Name of the data set, shown unless it is FER-2013.

    Returns:
        At most 64 letters, digits, dots, underscores and hyphens. Where the settings do not fit, the last
        ones are replaced by a hash of theirs, so that two jobs of a sweep never share a name.
    """
    parts = [model, f"s{seed}"]
    if experiment is not None:
        parts.append(experiment.removesuffix(f"_{model}"))
    if dataset != "fer2013":
        parts.append(dataset)
    parts += _changes(overrides)
    return _joined([re.sub(r"[^A-Za-z0-9_.-]+", "_", part).strip("_-") or "x" for part in parts])


def _changes(overrides: Sequence[str]) -> Iterator[str]:
    """Yield the short form of each override that sets runs apart; a repeated key counts once, at its end."""
    settings: dict[str, str] = {}
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        settings.pop(key, None)
        settings[key] = value
    for key, value in settings.items():
        if key in _LEFT_OUT or key.split(".")[0] in ("logger", "hydra") or key.startswith("hydra/"):
            continue
        if key == "trainer":  # the others say where a run is trained, not how
            if value == "smoke":
                yield value
        elif value in group_options(key):
            yield value if value != "none" else f"no_{key}"
        elif key == "init_from":
            yield "finetuned"
        else:
            yield _setting(_SHORT.get(key) or key.rpartition(".")[2], value.strip("'\""))


def _setting(name: str, value: str) -> str:
    if value.lower() in ("true", "false", "null", ""):
        return name if value.lower() == "true" else f"no_{name}"
    if value.startswith("["):
        value = "x".join(part.strip().strip("'\"") for part in value.strip("[]").split(","))
    number = _short_number(value)
    return f"{name}{number}" if number[:1].isdigit() else f"{name}_{number}"


def _short_number(value: str) -> str:
    """Write a fraction in its shortest form: ``0.001`` and ``1.0e-03`` become ``1e-3``."""
    try:
        number = float(value)
    except ValueError:
        return value
    if value.lstrip("-").isdigit():
        return value
    mantissa, _, exponent = f"{number:e}".partition("e")
    if not exponent:  # nan, inf
        return value
    scientific = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return min(f"{number:g}", scientific, key=len)


def _joined(parts: Sequence[str]) -> str:
    name = "-".join(parts)
    if len(name) <= MAX_LENGTH:
        return name
    code = hashlib.sha256(name.encode()).hexdigest()[:6]
    room = MAX_LENGTH - len(code) - 1
    kept = parts[0][:room]
    for part in parts[1:]:
        if len(kept) + 1 + len(part) > room:
            break
        kept += f"-{part}"
    return f"{kept}-{code}"
