"""The folders that hold config groups: ours, and those that a command adds.

A command adds folders with ``--config-dir`` and ``hydra.searchpath``. The commands import this before
anything else, so it must stay cheap: hydra only.
"""

import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import check_not_special

_PACKAGE = Path(__file__).resolve().parents[1]
_CHECKOUT = _PACKAGE.parent
# conf/ is at the top of a checkout; an installed package has a copy of it (fer_lightning/conf is a link).
CONF = (_CHECKOUT if (_CHECKOUT / "train.py").is_file() else _PACKAGE) / "conf"

CONFIG_DIR = "--config-dir="
_SEARCH_PATH = "hydra.searchpath="


def group_options(group: str) -> list[str]:
    """List the options of a config group that this command can choose; an unknown group has none."""
    folders = [CONF, *(folder for _, folder in added_folders(sys.argv[1:]))]
    return sorted(
        {path.stem for folder in folders for path in (folder / group).glob("*.yaml")} if group else ()
    )


def is_group(name: str) -> bool:
    """Return whether a config group of this name exists, in our folder or in one that the command adds."""
    return any(
        (folder / name).is_dir() for folder in [CONF, *(path for _, path in added_folders(sys.argv[1:]))]
    )


def added_folders(arguments: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Yield the folders that a command adds to the search path of Hydra, each with the argument that adds it.

    Args:
        arguments: As ``sort_arguments`` returns them.
    """
    for argument in arguments:
        if argument.startswith(CONFIG_DIR):
            yield argument, Path(argument.removeprefix(CONFIG_DIR))
        elif argument.lstrip("+").startswith(_SEARCH_PATH):
            try:
                places = OverridesParser.create().parse_override(argument).value()
            except HydraException:  # which Hydra then reports
                continue
            for place in places if isinstance(places, list) else []:
                for folder in _folders_of(str(place)):
                    yield argument, folder


def search_path_override(arguments: Sequence[str]) -> list[str]:
    """Return the override that adds the folders of a command when its config is composed again."""
    paths = [str(folder.absolute()).replace('"', '\\"') for _, folder in added_folders(arguments)]
    places = ",".join(f'"file://{path}"' for path in paths)
    return [f"{_SEARCH_PATH}[{places}]"] if places else []


def check_added_folders(arguments: Sequence[str]) -> None:
    """Refuse an added folder that does not exist, or that has a file which Hydra would ignore.

    Raises:
        FERError: If so; of two files with the same name, Hydra reads the one in our folder.
    """
    for argument, folder in added_folders(arguments):
        if not folder.is_dir():
            raise FERError(
                f"{argument}: {folder} is no folder; expected one that holds config groups, such as model/"
            )
        if folder.resolve() == CONF.resolve():
            continue
        for path in sorted(folder.rglob("*.yaml")):
            check_not_special(path, given=f"{argument}: {path}")
        for path in sorted(CONF.rglob("*.yaml")):
            name = path.relative_to(CONF)
            if (folder / name).is_file():
                raise FERError(
                    f"{argument}: {folder / name} would be ignored, since fer_lightning has a config of this "
                    "name; give it another name"
                )


def _folders_of(place: str) -> list[Path]:
    """Return the folders that an entry of ``hydra.searchpath`` names: a path, ``file://`` or ``pkg://``."""
    scheme, _, name = place.rpartition("://")
    if scheme != "pkg":
        return [Path(name)]
    package, *below = name.replace("/", ".").split(".")
    try:
        found = find_spec(package)
    except (ImportError, ValueError):
        found = None
    roots = (found.submodule_search_locations or []) if found else []
    return [Path(root, *below) for root in roots] or [Path(name)]


# Groups of which a run can have several options.
_SEVERAL = ("logger", "callbacks", "experiment")


def check_single_options(arguments: Sequence[str]) -> None:
    """Refuse a list of options for a group of which a run has one; Hydra would merge their settings.

    Raises:
        FERError: With the override.
    """
    for argument in arguments:
        group, _, value = argument.lstrip("+").partition("=")
        options = value.strip("'\"[] ")
        if value.startswith("[") and group not in _SEVERAL and is_group(group):
            raise FERError(
                f"{argument}: a run has one option of this group; a sweep has several: -m {group}={options}"
            )
