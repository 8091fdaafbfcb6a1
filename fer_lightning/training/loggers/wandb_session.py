"""The process and the settings of W&B, from outside its logger."""

import logging
import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import wandb

from fer_lightning.training.loggers.wandb_settings import Mode

# Seconds, unless $WANDB_INIT_TIMEOUT and $WANDB_FINISH_TIMEOUT say otherwise.
INIT_TIMEOUT = 20.0  # wandb waits 90 for a server that cannot be reached, at the start of every job
FINISH_TIMEOUT = 60.0  # wandb waits for an upload without end; `wandb sync` can send the rest later

log = logging.getLogger(__name__)


def resolve_mode(mode: Mode | None) -> Mode:
    """Decide the mode without ever letting wandb ask for a key."""
    # Settings of the process: messages about keys follow these, not those of the run.
    settings = wandb.setup(settings=wandb.Settings(silent=True)).settings
    wanted = mode or settings.mode  # $WANDB_MODE, else what `wandb offline` wrote to a file, else online
    if wanted == "disabled":
        return "disabled"
    if wanted in ("offline", "dryrun"):
        return "offline"
    if has_key(settings.base_url):
        return "online"
    if mode or os.environ.get("WANDB_MODE"):
        log.warning("W&B has no key for %s, so this run is recorded offline", settings.base_url)
    return "offline"


def has_key(server: str) -> bool:
    """Return whether wandb finds a key for a server, without asking for one."""
    # Not a public function, but the same search that decides whether wandb.init would ask for a key: the
    # environment, netrc, W&B's settings file.
    from wandb.sdk.lib import wbauth

    try:
        auth = wbauth.authenticate_session(
            host=server, source="fer_lightning", prompt=False, update_session=False
        )
    except wandb.errors.AuthenticationError:
        return True  # there is one, malformed: wandb.init says what is wrong with it
    return auth is not None


def timeouts() -> dict[str, Any]:
    """Limit how long wandb may delay a run, unless the environment does, which a setting would override."""
    ours = {"init_timeout": INIT_TIMEOUT, "finish_timeout": FINISH_TIMEOUT}
    return {name: seconds for name, seconds in ours.items() if f"WANDB_{name.upper()}" not in os.environ}


def check_writable(folder: Path) -> None:
    """Raise ``OSError`` if wandb would silently write to the system's temporary folder instead."""
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


@contextmanager
def tables_staged_in(folder: Path) -> Iterator[None]:
    """Keep the files that wandb uploads a table from in ``folder`` instead of the user's home.

    An offline run needs them until it is synced, and no setting but the environment moves them.
    """
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = str(folder)
    try:
        yield
    finally:
        _restore("WANDB_DATA_DIR", before)


def end_service() -> None:
    """End wandb's background process and drop what it put into the environment."""
    with suppress(Exception):  # it was killed
        wandb.teardown()


@contextmanager
def cache_for_service(folder: Path) -> Iterator[None]:
    """Give wandb's process a place for its log where the user's home folder is missing or not writable.

    It would print the log on the terminal instead.

    Args:
        folder: The run's folder of W&B files, which may be missing.
    """
    try:
        home = os.environ.get("XDG_CACHE_HOME") or str(Path(os.environ["HOME"]) / ".cache")
        check_writable(Path(home) / "wandb")
    except (KeyError, OSError):
        before = os.environ.get("XDG_CACHE_HOME")
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        try:
            yield
        finally:
            _restore("XDG_CACHE_HOME", before)
    else:
        yield


def _restore(variable: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(variable, None)
    else:
        os.environ[variable] = value


def offline_commands(folder: Path) -> str:
    """Return the commands that show and publish the offline runs of a run's ``wandb`` folder, each on a line.

    Those of a run that was resumed have one id. `wandb sync` sends them in the order of their start, each to
    the end of the one before, and leaves out those that it has sent.
    """
    here = Path.cwd()
    path = shlex.quote(str(folder.relative_to(here) if folder.is_relative_to(here) else folder))
    return f"recorded offline; to look at it, or to publish it:\n  wandb leet {path}\n  wandb sync {path}"


def first_line(error: Exception) -> str:
    """Return the first line of an error; wandb's continue with advice that does not apply here."""
    return next(iter(str(error).splitlines()), type(error).__name__)
