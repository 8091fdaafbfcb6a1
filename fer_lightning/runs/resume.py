"""Which folder a command works in: a new one, or that of the run it continues."""

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fer_lightning.config.resolve import config_hash, differences, flatten, read_config
from fer_lightning.core.errors import FERError
from fer_lightning.runs.folder import Run, unfinished_runs

log = logging.getLogger(__name__)


# What a finished run need not have in common with a command that asks for it.
MACHINE_KEYS = (
    "trainer.accelerator",
    "trainer.precision",
    "optimizer.fused",
    "data.root",
    "data.cache_dir",
)


def is_bare_resume(resume: str | None, overrides: Sequence[str]) -> bool:
    """Tell whether ``resume=PATH`` is all that was typed, so that the run's own config is followed."""
    return resume not in (None, "auto") and all(override.startswith("resume=") for override in overrides)


def open_run(
    config: dict[str, Any], *, folder_given: bool, overrides: Sequence[str]
) -> tuple[Run, dict[str, Any]]:
    """Open the folder that ``resume`` leads to.

    Args:
        config: The command's plain config; its data located, unless it ``is_bare_resume``.
        folder_given: Whether ``hydra.run.dir`` or ``hydra.sweep.dir`` stands on the command line.
        overrides: The command's overrides, ``hydra.`` ones aside.

    Returns:
        The locked run and the config to follow. A run whose record says ``finished`` is not to be touched.

    Raises:
        FERError: If the folder holds another run, is in use, or there is nothing where ``resume`` points.
    """
    folder, resume = Path(config["run_dir"]), config["resume"]
    if resume is None:
        run = Run(folder)
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
    run = Run(target)
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
        matching = (
            path for path, record in unfinished_runs(Path("outputs")) if record.get("config_hash") == wanted
        )
        return next(matching, folder)
    path = Path(resume).expanduser()
    if path.is_file():
        path = path.parent
    if not (path / "run.json").is_file():
        raise FERError(f"resume={resume}: no run there (a run folder holds run.json); check the path")
    return path


def _continued(config: dict[str, Any], run: Run, overrides: Sequence[str]) -> dict[str, Any]:
    """Take the run's own config, or the command's where the two would train alike."""
    stored_file = run.folder / "config.yaml"
    if run.record.get("state") == "finished":
        if not is_bare_resume(config["resume"], overrides) and stored_file.is_file():
            _check_alike(read_config(stored_file), config, run.folder, but=MACHINE_KEYS)
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
    laid_out = config.get("scheduler", {}).get("interval") == "step" or flatten(config).get(
        "data.augment.sides"
    )
    if laid_out and config["trainer"]["max_epochs"] != stored["trainer"]["max_epochs"]:
        raise _mismatch_error(run.folder, ["trainer.max_epochs (which the schedule was laid out for)"])
    return _in_folder(config, run, config["resume"])


def _check_alike(
    stored: dict[str, Any], config: dict[str, Any], folder: Path, but: tuple[str, ...] = ()
) -> None:
    """Refuse to take a run for that of another config."""
    changed = [key for key in differences(stored, config) if key not in but]
    if changed:
        raise _mismatch_error(folder, changed)


def _mismatch_error(folder: Path, changed: list[str]) -> FERError:
    return FERError(
        f"{folder}: was started with another config, which differs in {', '.join(changed[:8])}; "
        "repeat the same overrides, or give resume=PATH alone"
    )


def _check_version(stored: dict[str, Any], config: dict[str, Any], folder: Path) -> None:
    """Refuse the config of another version, which lacks settings that this one reads.

    Args:
        stored: The run's.
        config: This command's: every config has its keys, and every trainer the trainer's.
        folder: Of the run.
    """
    trainer = stored.get("trainer")
    lacking = [key for key in config if key not in stored]
    lacking += [
        f"trainer.{key}" for key in config["trainer"] if isinstance(trainer, dict) and key not in trainer
    ]
    if lacking:
        raise FERError(
            f"{folder}: was started by another version, whose config has no {', '.join(lacking)}; go on with "
            f"that version (run.json names its commit), or start a new run with init_from={folder}"
        )


def _in_folder(config: dict[str, Any], run: Run, resume: str) -> dict[str, Any]:
    """Name the run's own folder, which was not known, or another, when the config was resolved."""
    own: dict[str, Any] = {"run_dir": str(run.folder), "resume": resume}
    if config.get("logger"):
        own["logger"] = {
            key: str(run.folder) if key in ("run_dir", "save_dir") else value
            for key, value in config["logger"].items()
        }
    return config | own


def remove_if_empty(folder: Path) -> None:
    """Remove the folder hydra made for a job that did not need it, and what is empty above it in outputs/.

    Folders above it elsewhere are the user's: the working directory would be among them.
    """
    ours = Path("outputs").absolute()
    with contextlib.suppress(OSError):
        folder.rmdir()
        for parent in folder.absolute().parents:
            if parent != ours and ours not in parent.parents:
                break
            parent.rmdir()
