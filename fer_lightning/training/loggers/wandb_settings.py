"""Settings of a W&B run: from the command line, else from the environment, else our defaults."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import wandb

from fer_lightning.core.errors import FERError

Mode = Literal["online", "offline", "disabled"]
LogModel = Literal["best", "all", "none"]

DEFAULT_PROJECT = "fer_lightning"
VARIABLES = {
    "project": "WANDB_PROJECT",
    "entity": "WANDB_ENTITY",
    "group": "WANDB_RUN_GROUP",
    "job_type": "WANDB_JOB_TYPE",
    "tags": "WANDB_TAGS",
    "notes": "WANDB_NOTES",
    "name": "WANDB_NAME",
}
# The most letters that W&B's server takes; it answers a longer one with an error, when the run has begun.
_MAX_LETTERS = {"project": 128, "name": 128, "group": 128, "job_type": 64, "entity": 128}
_TAG_LETTERS = 64
_FORBIDDEN = {"project": r"/\#?%:", "entity": r"/\#?%:"}
_NOT_IN_IDS = r"""/\:;,#?'"""
_RUN_ID = re.compile(rf"[^\s{re.escape(_NOT_IN_IDS)}]{{1,128}}")
_ENVIRONMENT_MODES = ("online", "offline", "disabled", "dryrun", "run", "shared")


def from_environment(setting: str) -> Any:
    """Return what the environment says of a setting; None if it says nothing."""
    value = os.environ.get(VARIABLES[setting], "").strip()
    if not value:
        return None
    return [tag.strip() for tag in value.split(",")] if setting == "tags" else value


def in_wandb_sweep() -> bool:
    """Return whether a ``wandb agent`` started this process, which then decides project and run id."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def fill_settings(
    node: Mapping[str, Any], *, name: str, group: str | None, tags: Sequence[str]
) -> dict[str, Any]:
    """Fill what a command line and the environment leave open.

    Args:
        node: A logger's node; null means the environment, else our default.
        name: Default of the run's name.
        group: Default of the group.
        tags: Added to the tags that the user gives.

    Returns:
        The node with ``name``, ``group`` and ``tags``.
    """
    given = node.get("tags")
    if given is None:
        given = from_environment("tags") or []
    if isinstance(given, list):
        given = [*given, *(tag for tag in tags if tag not in given)]
    filled = dict(node) | {"tags": given}
    for key, default in (("name", name), ("group", group)):
        if node.get(key) is None:
            filled[key] = from_environment(key) or default
    return filled


def resolve_settings(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``wandb.init`` that name and describe a run, checked.

    Args:
        given: The logger's own settings; None where they say nothing.
        defaults: Of settings that the environment does not give either.

    Raises:
        FERError: If W&B would refuse one.
    """
    settings = {}
    for key, variable in VARIABLES.items():
        source, value = f"logger.wandb.{key}", given[key]
        if value is None and (value := from_environment(key)) is not None:
            source = variable
        if value is None:
            value = defaults.get(key)
        settings[key] = _check_tags(source, value or []) if key == "tags" else _check_text(source, key, value)
    return settings


def _check_text(source: str, key: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise FERError(f"{source}={value}: expected text; quote a number: {source}='\"{value}\"'")
    if not value.strip():
        raise FERError(f"{source}: is empty; give it letters, or null for the default")
    limit = _MAX_LETTERS.get(key)
    if limit is not None and len(value) > limit:
        raise FERError(f"{source}={value[:20]}...: has {len(value)} letters, W&B takes at most {limit}")
    found = [character for character in _FORBIDDEN.get(key, "") if character in value]
    if found:
        raise FERError(
            f"{source}={value}: W&B takes no {' '.join(found)} in it; use letters, digits, - and _"
        )
    return value


def _check_tags(source: str, tags: Any) -> list[str]:
    if not isinstance(tags, list | tuple):
        raise FERError(f"{source}={tags}: expected a list, such as logger.wandb.tags=[baseline]")
    for tag in tags:
        if not isinstance(tag, str):
            raise FERError(f"{source}: the tag {tag} is no text; quote it: 'logger.wandb.tags=[\"{tag}\"]'")
        if not tag.strip():
            raise FERError(f"{source}: a tag is empty; leave it out")
        if len(tag) > _TAG_LETTERS:
            raise FERError(
                f"{source}: the tag {tag[:20]}... has {len(tag)} letters, W&B takes at most {_TAG_LETTERS}"
            )
    return [*dict.fromkeys(tags)]


def check_options(mode: Any, log_model: Any, log_predictions: Any, log_every_n_steps: Any) -> None:
    """Check the settings that only our logger has.

    Raises:
        FERError: If one is not what it expects.
    """
    if mode is not None and mode not in get_args(Mode):
        raise FERError(f"logger.wandb.mode={mode}: expected null, online, offline or disabled")
    if log_model not in get_args(LogModel):
        raise FERError(f"logger.wandb.log_model={log_model}: expected best, all or none")
    if not isinstance(log_predictions, bool):
        raise FERError(f"logger.wandb.log_predictions={log_predictions}: expected true or false")
    steps = log_every_n_steps
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise FERError(
            f"logger.wandb.log_every_n_steps={steps}: expected a whole number of at least 1, or null"
        )


def check_run_id(source: str, run_id: Any) -> None:
    """Check the id of a run, which becomes part of folder names.

    Args:
        source: Where it comes from, for the message.
        run_id: An id; None for a new one.

    Raises:
        FERError: If W&B would refuse it.
    """
    if run_id is not None and not (isinstance(run_id, str) and _RUN_ID.fullmatch(run_id)):
        raise FERError(
            f"{source}={run_id}: no id of a W&B run: 1 to 128 letters without {_NOT_IN_IDS} and spaces"
        )


def check_environment() -> None:
    """Check the variables that wandb reads itself, and would refuse with a traceback.

    Raises:
        FERError: If one is nonsense.
    """
    mode = os.environ.get("WANDB_MODE")
    if mode and mode not in _ENVIRONMENT_MODES:
        raise FERError(f"WANDB_MODE={mode}: expected online, offline or disabled")
    server = os.environ.get("WANDB_BASE_URL")
    if server:
        try:
            wandb.Settings(base_url=server)
        except Exception as error:
            hint = re.search(r"did you mean ([^?]+)\?", str(error))
            example = hint[1] if hint else "https://api.wandb.ai"
            raise FERError(
                f"WANDB_BASE_URL={server}: no address of a W&B server, such as {example}"
            ) from error
    check_run_id("WANDB_RUN_ID", os.environ.get("WANDB_RUN_ID") or None)
