"""Choosing the folder of a run: a new one, or that of the run to continue."""

import contextlib
import copy
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fer_lightning.config.checks import check_stored
from fer_lightning.config.compare import (
    KEYS_IGNORED_ON_RESUME,
    MACHINE_KEYS,
    PLACE_KEYS,
    config_hash,
    differences,
    flatten,
)
from fer_lightning.config.folders import group_options
from fer_lightning.config.instantiate import takes_total_steps
from fer_lightning.config.places import check_places, with_own_places
from fer_lightning.config.resolve import compose_defaults
from fer_lightning.config.stored import read_config, read_yaml
from fer_lightning.config.targets import ANY_TARGET, named_targets
from fer_lightning.core.errors import FERError
from fer_lightning.core.files import check_not_special, newest_unlocked
from fer_lightning.core.processes import num_processes
from fer_lightning.core.program import pasteable
from fer_lightning.runs.folder import RunFolder

log = logging.getLogger(__name__)


def follows_stored_config(resume: str | None) -> bool:
    """Return whether a command follows the config of the run that it continues: with ``resume=PATH``."""
    return resume not in (None, "auto")


def open_run(
    config: dict[str, Any], *, folder_given: bool, overrides: Sequence[str]
) -> tuple[RunFolder, dict[str, Any]]:
    """Open the folder that ``resume`` leads to.

    Args:
        config: The command's plain config; its data located, unless it ``follows_stored_config``.
        folder_given: Whether the command line gives ``hydra.run.dir`` or ``hydra.sweep.dir``.
        overrides: The command's overrides without the ``hydra.`` ones.

    Returns:
        The locked run and the config to follow. The caller must not change a finished run.

    Raises:
        FERError: If the folder holds another run, is in use, or ``resume`` names no run.
    """
    folder, resume = Path(config["run_dir"]), config["resume"]
    if resume is None:
        run = RunFolder(folder)
        if not run.is_new:
            state = run.record.get("state")
            run.release()
            raise FERError(
                f"{folder}: already holds a run ({state}); continue it with resume=auto, "
                "or choose another hydra.run.dir"
            )
        run.claim()
        return run, config
    target = _target(config, folder, folder_given)
    if target != folder:
        remove_if_empty(folder)
    run = RunFolder(target)
    if run.is_new and resume == "auto" and not (target / "config.yaml").is_file():
        run.claim()
        log.info("resume=auto: nothing to resume, starting in %s", target)
        return run, config
    try:
        return run, _continued(config, run, overrides)
    except FERError:
        run.release()
        raise


def _target(config: dict[str, Any], folder: Path, folder_given: bool) -> Path:
    resume = config["resume"]
    if resume == "auto":
        if folder_given:
            return folder
        wanted = config_hash(config)
        unfinished = newest_unlocked(Path("outputs").glob("*/*/run.json"))
        return next((path for path, record in unfinished if record.get("config_hash") == wanted), folder)
    path = Path(resume).expanduser()
    check_not_special(path, given=f"resume={resume}")
    if path.is_file():
        path = path.parent
    if not any((path / name).is_file() for name in ("run.json", "config.yaml")):
        raise FERError(f"resume={resume}: no run there (a run folder holds run.json); check the path")
    return path


def _begin_new_record(run: RunFolder, config: Mapping[str, Any]) -> None:
    """Begin the record of a run whose ``run.json`` is lost, with what its other files say."""
    found = read_yaml(run.folder / "overrides.yaml")
    overrides = [str(each) for each in found] if isinstance(found, list) else []
    model = str(config["model"].get("_target_")).rpartition(".")[2].lower()
    pairs = [each.partition("=") for each in overrides]
    choices = {group: option for group, _, option in pairs if option in group_options(group)}
    log.warning("WARNING: %s: run.json is missing; a new record begins", run.folder)
    run.update(state="interrupted", overrides=overrides, model=model, choices={"model": model, **choices})


def _continued(config: dict[str, Any], run: RunFolder, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the run's own config, or the command's where the two train the same."""
    stored_file, resume = run.folder / "config.yaml", config["resume"]
    finished = run.record.get("state") == "finished"
    if not stored_file.is_file():
        if finished:
            return config
        if resume == "auto":
            return _in_folder(config, run, resume)
        raise FERError(f"{run.folder}: stopped before anything was trained; start it again with resume=auto")
    follows = follows_stored_config(resume)
    typed = _typed_settings(config, overrides) if follows else config
    trust = (*config["trust"], *named_targets(config)) if follows and not finished else ANY_TARGET
    stored = read_config(stored_file, trust=trust)
    if follows:
        if not finished:
            _check_version(stored, config, run)
            check_places(stored, run.folder / "config.yaml", run.folder)
        stored = with_own_places(stored, config)
        _warn_of_another_account(stored, config, typed, run.folder)
        config = _overlaid(stored, typed)
    _check_alike(
        stored,
        config,
        run.folder,
        (
            *KEYS_IGNORED_ON_RESUME,
            *PLACE_KEYS,
            *(MACHINE_KEYS if finished else ()),
            *(("data.batch_size",) if _takes_same_steps(config, run) else ()),
        ),
    )
    if finished:
        return config
    if run.is_new:
        check_stored(stored, stored_file, trains=True)
        _begin_new_record(run, stored)
    has_fixed_length = takes_total_steps(config.get("scheduler")) or flatten(config).get("data.augment.sides")
    if has_fixed_length and config["trainer"]["max_epochs"] != stored["trainer"]["max_epochs"]:
        raise _mismatch_error(run.folder, ["trainer.max_epochs (on which the schedule depends)"])
    return _in_folder(config, run, resume)


def _takes_same_steps(config: Mapping[str, Any], run: RunFolder) -> bool:
    """Return whether a config takes the steps of a run on as many images, in any number of processes."""
    size = config.get("data", {}).get("batch_size")
    before = run.record.get("images_per_step")
    return isinstance(size, int) and size * num_processes(config["trainer"]) == before


def _typed_settings(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return what the overrides of a command set, by dotted keys, settings that refer to them included."""
    if all(override.startswith(("resume=", "trust=")) for override in overrides):
        return {}
    typed = {override.lstrip("+~").partition("=")[0] for override in overrides}
    values = flatten(config)
    unlike = ("resume", "run_dir", "trust", "logger", *MACHINE_KEYS)
    changed = {*differences(compose_defaults("train"), config, unlike), *typed} - {
        "resume",
        "trust",
        "logger",
    }
    settings = {key: values[key] for key in changed if key in values}
    if any(key.partition(".")[0] == "logger" for key in typed):
        settings["logger"] = config["logger"]
    return settings


def _overlaid(stored: Mapping[str, Any], typed: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with some settings replaced or added, given by dotted keys."""
    result = copy.deepcopy(dict(stored))
    for key, value in typed.items():
        *nodes, last = key.split(".")
        node = result
        for name in nodes:
            node = node.setdefault(name, {})
        node[last] = value
    return result


def _check_alike(
    stored: dict[str, Any],
    config: dict[str, Any],
    folder: Path,
    ignored: tuple[str, ...],
) -> None:
    """Refuse to continue a run with another config."""
    changed = differences(stored, config, ignored)
    if changed:
        raise _mismatch_error(folder, changed)


def _mismatch_error(folder: Path, changed: list[str]) -> FERError:
    return FERError(
        f"{folder}: was started with another config, which differs in {', '.join(changed[:8])}; "
        "repeat the same overrides, or leave those out that differ"
    )


def _check_version(stored: dict[str, Any], config: dict[str, Any], run: RunFolder) -> None:
    """Refuse the config of another version, which has not all settings that this one reads, or a cut one.

    Args:
        stored: The run's config.
        config: This command's config, whose keys and trainer keys are required.
        run: The run.
    """
    folder, recorded = run.folder, run.record.get("config_hash")
    trainer = stored.get("trainer")
    keys = list(config)
    lacking = [key for key in keys if key not in stored]
    ends_early = bool(lacking) and lacking == keys[-len(lacking) :]
    lacking += [
        f"trainer.{key}"
        for key in config["trainer"]
        if isinstance(trainer, dict) and key not in trainer and f"trainer.{key}" not in KEYS_IGNORED_ON_RESUME
    ]
    if ends_early and recorded not in (None, config_hash(stored)):
        raise FERError(
            f"{folder / 'config.yaml'}: cut or altered: it has no {', '.join(lacking)}, and is not what "
            "run.json recorded; remove it, and repeat the overrides in overrides.yaml with resume=auto "
            f"and {pasteable('hydra.run.dir', folder)}"
        )
    if lacking:
        raise FERError(
            f"{folder}: was started by another version, whose config has no {', '.join(lacking)}; continue "
            "with that version (run.json names its commit), or start a new run with "
            f"{pasteable('init_from', folder)}"
        )


def _warn_of_another_account(
    stored: Mapping[str, Any], config: Mapping[str, Any], typed: Mapping[str, Any], folder: Path
) -> None:
    """Say which account and project of W&B a stored config names, if this command names others."""
    if "logger" in typed:
        return
    loggers = stored.get("logger")
    for name, node in loggers.items() if isinstance(loggers, Mapping) else ():
        own = (config.get("logger") or {}).get(name) or {}
        given = {key: node.get(key) for key in ("entity", "project") if isinstance(node, Mapping)}
        others = {
            key: value
            for key, value in given.items()
            if value not in (None, own.get(key) or os.environ.get(f"WANDB_{key.upper()}"))
        }
        if others:
            places = ", ".join(f"{key} {value}" for key, value in others.items())
            log.warning(
                "WARNING: logger.%s of %s sends this run to %s; choose others with logger.%s.%s=..., or none "
                "with logger=none",
                name,
                folder / "config.yaml",
                places,
                name,
                next(iter(others)),
            )


def _in_folder(config: dict[str, Any], run: RunFolder, resume: str) -> dict[str, Any]:
    """Put the run's folder into a config that was resolved with another one."""
    own: dict[str, Any] = {"run_dir": str(run.folder), "resume": resume}
    own["logger"] = {
        name: {
            key: str(run.folder) if key in ("run_dir", "save_dir") else value for key, value in node.items()
        }
        for name, node in config["logger"].items()
        if isinstance(node, dict)
    }
    return config | own


def remove_if_empty(folder: Path) -> None:
    """Remove the folder that Hydra made for a job that did not use it, and empty parents within outputs/.

    Other parents are the user's, such as the working directory.
    """
    ours = Path("outputs").absolute()
    with contextlib.suppress(OSError):
        folder.rmdir()
        for parent in folder.absolute().parents:
            if parent != ours and ours not in parent.parents:
                break
            parent.rmdir()
