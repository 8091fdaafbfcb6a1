"""The title of a run's page, and what is needed to reproduce the run."""

import shlex
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from fer_lightning.core.names import dataset_title, model_title
from fer_lightning.report.run_results import RunResults
from fer_lightning.report.tables import duration


def run_title(run: RunResults) -> str:
    """Return the title of a run: ``ResNet-15 on FER-2013, seed 0, 30 epochs``, without what is unknown."""
    return ", ".join([run_name(run), *seed_of(run), *_epochs(run)])


def run_name(run: RunResults) -> str:
    """Return model and data of a run: ``ResNet-15 on FER-2013``."""
    return f"{model_title(run.model, _node(run.settings, 'model'))} on {dataset_title(run.dataset)}"


def seed_of(run: RunResults) -> list[str]:
    """Return ``seed 0``, or nothing if the run has none."""
    seed = run.info.get("seed")
    return [] if seed is None else [f"seed {seed}"]


def _epochs(run: RunResults) -> list[str]:
    count = _num_epochs(run)
    return [f"{count} epoch{'' if count == 1 else 's'}"] if count else []


def _num_epochs(run: RunResults) -> int:
    return len(run.info.get("epoch_seconds") or ()) or len(run.history.get("epoch") or ())


def subtitle(run: RunResults) -> str:
    """Return the line below the title: state, experiment, start, and the names of run and folder."""
    experiment = next((text.partition("=")[2] for text in run.overrides if "experiment=" in text), None)
    parts = [
        run.state,
        experiment and f"experiment {experiment}",
        readable_date(run.info.get("started")),
        run.info.get("name"),
        run.folder.name,
    ]
    return " · ".join(dict.fromkeys(str(part) for part in parts if part))


def readable_date(date: str | None) -> str | None:
    """Convert ``2026-11-27T10:20:10.703+00:00`` to ``27 November 2026, 10:20 UTC``."""
    if not date:
        return None
    try:
        moment = datetime.fromisoformat(date)
    except ValueError:
        return date
    zone = f" {moment.tzname()}" if moment.tzinfo else ""
    return f"{moment.day} {moment:%B %Y, %H:%M}{zone}"


def provenance(run: RunResults) -> list[tuple[str, Any]]:
    """List what is needed to reproduce a run; the template leaves out what is unknown."""
    info = run.info
    git, machine, durations = (info.get(key) or {} for key in ("git", "machine", "durations"))
    speed, parameters = info.get("images_per_s"), info.get("num_parameters")
    memory = machine.get("memory_gib")
    commit = (git.get("commit"), git.get("dirty") and "with uncommitted changes")
    hardware = (
        machine.get("cpu"),
        machine.get("cores") and f"{machine['cores']} cores",
        memory and f"{memory:.0f} GiB",
        machine.get("accelerator"),
        machine.get("platform"),
    )
    times = [f"{key.removesuffix('_s')} {duration(value)}" for key, value in durations.items()]
    versions = [f"{name} {version}" for name, version in (info.get("versions") or {}).items()]
    return [
        *_command(run),
        ("seed", info.get("seed")),
        *_training(run),
        ("parameters", parameters and f"{parameters:,}"),
        ("precision", info.get("precision")),
        ("memory format", "channels last" if info.get("channels_last") else None),
        ("CPU threads", info.get("num_threads")),
        ("training speed", speed and f"{speed:,.0f} images/s"),
        ("times", ", ".join(times)),
        ("started", readable_date(info.get("started"))),
        ("ended", readable_date(info.get("ended"))),
        ("commit", " ".join(part for part in commit if part)),
        ("machine", ", ".join(str(part) for part in hardware if part)),
        ("versions", ", ".join(versions)),
    ]


def _command(run: RunResults) -> list[tuple[str, Any]]:
    """Name the overrides only where the command does not, as in that of a run that was resumed."""
    command = run.info.get("command")
    words: set[str] = set()
    with suppress(ValueError):  # unbalanced quotes
        words = set(shlex.split(command or ""))
    named = command and all(override in words for override in run.overrides)
    return [("command", command), ("overrides", "" if named else " ".join(run.overrides))]


def _training(run: RunResults) -> list[tuple[str, Any]]:
    settings = run.settings
    optimizer, scheduler = _node(settings, "optimizer"), _node(settings, "scheduler")
    rate, schedule = optimizer.get("lr"), _class_name(scheduler)
    planned, trained = _node(settings, "trainer").get("max_epochs"), _num_epochs(run)
    epochs: Any = trained or None
    if planned is not None and trained:
        epochs = f"{trained} of {planned} planned"
    others = [
        key if value is True else f"{key} {value}"
        for key, value in optimizer.items()
        if key not in ("_target_", "_partial_", "lr", "fused", "params")
        and isinstance(value, int | float | list)
        and value is not False
    ]
    name = _class_name(optimizer)
    return [
        ("optimizer", f"{name} ({', '.join(others)})" if name and others else name),
        ("learning rate", rate if rate is None or not schedule else f"{rate}, schedule {schedule}"),
        ("batch size", _node(settings, "data").get("batch_size")),
        ("epochs", epochs),
    ]


def _node(settings: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    node = settings.get(key)
    return node if isinstance(node, Mapping) else {}


def _class_name(node: Mapping[str, Any]) -> str:
    return str(node.get("_target_") or "").rpartition(".")[2]
