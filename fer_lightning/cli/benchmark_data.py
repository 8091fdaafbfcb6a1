"""The data sets of ``fer-lightning benchmark --data``: from names and places to data modules."""

import difflib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fer_lightning.cli.audit import class_names
from fer_lightning.config.folders import group_options
from fer_lightning.config.instantiate import accepted_settings, load_target
from fer_lightning.config.resolve import compose_config, to_plain
from fer_lightning.config.targets import ANY_TARGET
from fer_lightning.core.errors import FERError
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.locate import locate
from fer_lightning.data.readers.csv_images import CSVImages
from fer_lightning.data.readers.image_folder import ImageFolder
from fer_lightning.evaluation.shared_classes import find_shared_classes
from fer_lightning.training.build import build_datamodule

log = logging.getLogger("fer_lightning")


class Item(NamedTuple):
    """A data set that the command names.

    Attributes:
        given: As it was written, for messages.
        name: An option of the config group ``data``.
        root: Its place; None for the option's own.
    """

    given: str
    name: str
    root: str | None

    @property
    def place(self) -> Path | None:
        """The root as an absolute path."""
        return None if self.root is None else Path(self.root).expanduser().resolve()

    def fault(self, reason: object) -> FERError:
        """Return an error that names this data set."""
        return FERError(f"--data {self.given}: {reason}")


def parse_items(texts: Sequence[str]) -> list[Item]:
    """Read the names of data sets, each with its place after a colon.

    Args:
        texts: Values of ``--data``, each with items separated by commas.

    Raises:
        FERError: If a name is unknown or empty, or a data set is named twice.
    """
    options = group_options("data")
    items: list[Item] = []
    for given in (item.strip() for text in texts for item in text.split(",")):
        name, _, root = given.partition(":")
        item = Item(given, name, root or None)
        if not given:
            raise FERError(f"--data {','.join(texts)}: an empty name; write NAME or NAME:PATH")
        if name not in options:
            close = difflib.get_close_matches(name, options, n=1)
            meant = f"did you mean {close[0]}? " if close else ""
            raise item.fault(f"no such data set; {meant}Expected one of {', '.join(options)}, or NAME:PATH")
        if any((item.name, item.place) == (other.name, other.place) for other in items):
            raise item.fault("named twice; name each data set once")
        items.append(item)
    return items


def open_data(item: Item, remembered: Mapping[str, Any], known: Sequence[str], split: str) -> FERDataModule:
    """Build the data module of a data set, with the image size of a network and its own classes.

    Args:
        item: The data set.
        remembered: The data node of the network.
        known: The classes of the network.
        split: ``test``, ``val``, ``train`` or ``all``.

    Raises:
        FERError: If the data set is not there, or cannot be read in this image size.
    """
    node = to_plain(compose_config("eval", [f"data={item.name}"]))["data"]
    node = {key: value for key, value in node.items() if value is not None}
    images = {key: remembered[key] for key in ("image_size", "channels") if key in remembered}
    node |= images | {"root": item.root}
    if item.place is not None and not item.place.exists():
        raise item.fault("no such file or folder; check the path")
    reader = load_target("data.source", node["source"]["_target_"])
    takes, _ = accepted_settings(reader)
    if "partial" in takes and item.name != "ferplus":  # whose place may be $FER2013_ROOT
        if item.place is None:
            raise item.fault(f"its place is missing; write {item.name}:PATH")
        whole = {"val_ratio": 0.0, "test_ratio": 0.0} if split == "all" else {}
        settings = {"partial": True} | whole
        node["source"] |= {key: value for key, value in settings.items() if key in takes}
        if reader is ImageFolder:
            node["classes"] = _all_classes(item.place, known)
        elif reader is CSVImages:  # rows of other classes are left out, and counted
            node["classes"] = [*known]
        node["num_classes"] = len(node["classes"])
    try:
        return build_datamodule(locate(node, log=log.warning), trust=ANY_TARGET)
    except FERError as error:
        hint = f"; its place is given as {item.name}:PATH" if item.root is None else ""
        raise item.fault(f"{error}{hint}") from error


def _all_classes(root: Path, known: Sequence[str]) -> list[str]:
    """List the classes of a network, then those of class folders that it lacks."""
    found = class_names(root)
    others = find_shared_classes(np.arange(len(found)), found, known).labels < 0
    return [*known, *(name for name, other in zip(found, others, strict=True) if other)]
