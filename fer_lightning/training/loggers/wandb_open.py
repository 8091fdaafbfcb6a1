"""Start a W&B run: online, or else offline."""

import glob
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from fer_lightning.training.loggers.wandb_session import (
    cache_for_service,
    check_writable,
    end_service,
    first_line,
    resolve_mode,
    timeouts,
)
from fer_lightning.training.loggers.wandb_settings import Mode

log = logging.getLogger(__name__)


def open_run(arguments: Mapping[str, Any], folder: Path, mode: Mode | None, run_id: str) -> wandb.Run | None:
    """Start a run as asked, or offline where it cannot be online.

    Args:
        arguments: Of ``wandb.init``.
        folder: The folder ``wandb`` of the run folder, made if it is missing.
        mode: Null is automatic, see ``FailsafeWandbLogger``.
        run_id: The id that the run will have.

    Returns:
        The run; None for ``disabled``.

    Raises:
        Exception: Whatever wandb raises where the run cannot be recorded offline either.
    """
    with cache_for_service(folder):  # the process may start when the key is looked up
        mode = resolve_mode(mode)
        if mode == "disabled":
            end_service()
            return None
        check_writable(folder)
        try:
            return _init(arguments, folder, mode, run_id)
        except Exception as error:
            if mode == "offline":
                raise
            log.warning("W&B can't be used online, so this run is recorded offline: %s", first_line(error))
            return _init(arguments, folder, "offline", run_id)


def _init(arguments: Mapping[str, Any], folder: Path, mode: Mode, run_id: str) -> wandb.Run:
    earlier = set(folder.glob("*"))  # a resumed run has earlier parts of the same id
    try:
        run = wandb.init(
            **arguments,
            dir=folder.parent,
            mode=mode,
            settings=wandb.Settings(
                console="off",
                silent=True,
                save_code=False,
                disable_git=True,
                finish_timeout_raises=True,
                reinit="create_new",  # by default a job would go on in a run that another left open
                use_dot_wandb=False,
                **timeouts(),
            ),
        )
        run.define_metric("epoch", hidden=True)
        run.define_metric("trainer/global_step", hidden=True)
        run.define_metric("*", step_metric="epoch", step_sync=True)
    except Exception:
        end_service()
        # `wandb sync` would publish an empty run.
        for path in set(folder.glob(f"*run-*-{glob.escape(run_id)}*")) - earlier:
            shutil.rmtree(path, ignore_errors=True)
        raise
    return run
