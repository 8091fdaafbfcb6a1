"""Paths in configs read from files, which may be written by someone else: where a run reads and writes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fer_lightning.core.errors import FERError
from fer_lightning.core.program import pasteable

# Places that are only read, and only as images, labels, predictions or weights.
_READ = ("data.root", "data.source", "data.soft_targets", "init_from", "resume", "overrides")
# Places that the program sets itself, whatever a file says.
_REPLACED = ("run_dir", "data.cache_dir")
_REPLACED_OF_LOGGERS = ("run_dir", "save_dir")
# Text for people, which may look like a path.
_TEXT = ("logger.wandb.notes", "logger.wandb.name", "logger.wandb.tags", "data.classes", "data.name")


def with_own_places(stored: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored config that writes where this command says: its cache is the user's own.

    Args:
        stored: Read from a run folder or a checkpoint.
        own: The command's config, with its defaults and overrides.
    """
    if not isinstance(stored.get("data"), Mapping):
        return dict(stored)
    data = {key: value for key, value in stored["data"].items() if key != "cache_dir"}
    if (cache_dir := (own.get("data") or {}).get("cache_dir")) is not None:
        data["cache_dir"] = cache_dir
    return {**stored, "data": data}


def check_places(stored: Mapping[str, Any], file: Path, folder: Path) -> None:
    """Refuse a stored config that may write outside the run folder.

    Any text with ``..`` in it or an absolute path may name a place; ``with_own_places`` and the run replace
    those that every run has.

    Args:
        stored: The config.
        file: Where it was read, for the message.
        folder: The run folder.

    Raises:
        FERError: With the setting.
    """
    for key, value in _texts(stored):
        if _is_below(key, (*_READ, *_REPLACED, *_TEXT)) or (
            key.startswith("logger.") and key.endswith(_REPLACED_OF_LOGGERS)
        ):
            continue
        if _leads_out(Path(value), folder):
            raise FERError(
                f"{file}: {key}={value} leads out of the run folder, and is not followed out of a file; if "
                f"it is yours, repeat the command with resume=auto and {pasteable('hydra.run.dir', folder)}"
            )


def _leads_out(path: Path, folder: Path) -> bool:
    if ".." in path.parts or path.parts[:1] == ("~",):
        return True
    if not path.is_absolute():
        return False
    try:
        return not path.resolve().is_relative_to(folder.absolute().resolve())
    except (OSError, ValueError, RuntimeError):  # no path, or a link that leads to itself
        return True


def _is_below(key: str, names: tuple[str, ...]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _texts(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text in a config with its dotted key; items of lists are numbered."""
    if isinstance(node, str):
        yield prefix, node
    elif isinstance(node, Mapping | list | tuple):
        pairs = node.items() if isinstance(node, Mapping) else enumerate(node)
        for key, value in pairs:
            yield from _texts(value, f"{prefix}.{key}" if prefix else str(key))
