"""Choosing the folder of a run: a new one, or that of the run to continue."""

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fer_lightning.config.compare import (
    KEYS_IGNORED_ON_RESUME,
    MACHINE_KEYS,
    config_hash,
    differences,
    flatten,
)
from fer_lightning.config.instantiate import takes_total_steps
from fer_lightning.config.stored import read_config
from fer_lightning.core.errors import FERError
from fer_lightning.core.files import newest_unlocked
from fer_lightning.runs.folder import RunFolder

log = logging.getLogger(__name__)


def is_bare_resume(resume: str | None, overrides: Sequence[str]) -> bool:
    """Return whether ``resume=PATH`` is the only override, so that the run's own config is followed."""
    return resume not in (None, "auto") and all(override.startswith("resume=") for override in overrides)


def open_run(
    config: dict[str, Any], *, folder_given: bool, overrides: Sequence[str]
) -> tuple[RunFolder, dict[str, Any]]:
    """Open the folder that ``resume`` leads to.

    Args:
        config: The command's plain config; its data located, unless it ``is_bare_resume``.
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
        return run, config
    target = _target(config, folder, folder_given)
    if target != folder:
        remove_if_empty(folder)
    run = RunFolder(target)
    if run.is_new and resume == "auto":
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
    if path.is_file():
        path = path.parent
    if not (path / "run.json").is_file():
        raise FERError(f"resume={resume}: no run there (a run folder holds run.json); check the path")
    return path


def _continued(config: dict[str, Any], run: RunFolder, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the run's own config, or the command's where the two train the same."""
    stored_file = run.folder / "config.yaml"
    if run.record.get("state") == "finished":
        if not is_bare_resume(config["resume"], overrides) and stored_file.is_file():
            ignored = (*KEYS_IGNORED_ON_RESUME, *MACHINE_KEYS)
            _check_alike(read_config(stored_file), config, run.folder, ignored)
        return config
    if not stored_file.is_file():
        if config["resume"] == "auto":
            return _in_folder(config, run, config["resume"])
        raise FERError(f"{run.folder}: stopped before anything was trained; start it again with resume=auto")
    stored = read_config(stored_file)
    if is_bare_resume(config["resume"], overrides):
        _check_version(stored, config, run.folder)
        return _in_folder(stored, run, config["resume"])
    _check_alike(stored, config, run.folder)
    has_fixed_length = takes_total_steps(config.get("scheduler")) or flatten(config).get("data.augment.sides")
    if has_fixed_length and config["trainer"]["max_epochs"] != stored["trainer"]["max_epochs"]:
        raise _mismatch_error(run.folder, ["trainer.max_epochs (on which the schedule depends)"])
    return _in_folder(config, run, config["resume"])


def _check_alike(
    stored: dict[str, Any],
    config: dict[str, Any],
    folder: Path,
    ignored: tuple[str, ...] = KEYS_IGNORED_ON_RESUME,
) -> None:
    """Refuse to continue a run with another config."""
    changed = differences(stored, config, ignored)
    if changed:
        raise _mismatch_error(folder, changed)


def _mismatch_error(folder: Path, changed: list[str]) -> FERError:
    return FERError(
        f"{folder}: was started with another config, which differs in {', '.join(changed[:8])}; "
        "repeat the same overrides, or give resume=PATH alone"
    )


def _check_version(stored: dict[str, Any], config: dict[str, Any], folder: Path) -> None:
    """Refuse the config of another version, which has not all settings that this one reads.

    Args:
        stored: The run's config.
        config: This command's config, whose keys and trainer keys are required.
        folder: The run folder.
    """
    trainer = stored.get("trainer")
    lacking = [key for key in config if key not in stored]
    lacking += [
        f"trainer.{key}" for key in config["trainer"] if isinstance(trainer, dict) and key not in trainer
    ]
    if lacking:
        raise FERError(
            f"{folder}: was started by another version, whose config has no {', '.join(lacking)}; continue "
            f"with that version (run.json names its commit), or start a new run with init_from={folder}"
        )


def _in_folder(config: dict[str, Any], run: RunFolder, resume: str) -> dict[str, Any]:
    """Put the run's folder into a config that was resolved with another one."""
    own: dict[str, Any] = {"run_dir": str(run.folder), "resume": resume}
    if config.get("logger"):
        own["logger"] = {
            key: str(run.folder) if key in ("run_dir", "save_dir") else value
            for key, value in config["logger"].items()
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
