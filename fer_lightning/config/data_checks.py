"""The checks of a data node that need no data: types of settings and of list items."""

from collections.abc import Mapping, Sequence
from typing import Any

from fer_lightning.core.errors import FERError

MAX_NAME = 100  # letters of a class name, which is part of every id and of folder names
MAX_IMAGE_SIZE = 2_048  # pixels of a side; a network for more would take gigabytes
_MAX_SHOWN = 200  # letters of a value in a message


def shown(value: object) -> str:
    """Write a value for a message, cut if it is long."""
    text = str(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def check_classes(classes: Any) -> None:
    """Refuse anything but a list of at least two different class names; whole numbers count as names.

    Raises:
        FERError: With the item that is none.
    """
    given = f"data.classes={shown(classes)}"
    start = f"{given}: expected a list of at least two different names, such as [happy,sad]"
    if not isinstance(classes, Sequence) or isinstance(classes, str | bytes) or len(classes) < 2:
        raise FERError(start)
    for number, name in enumerate(classes):
        if fault := _fault_of_name(name):
            raise FERError(f"{start}; item {number} (from 0), {shown(repr(name))}, {fault}")
    names = list(map(str, classes))
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise FERError(f"{start}; {twice!r} occurs twice")


def _fault_of_name(name: object) -> str:
    """Say why a list item is no class name; empty if it is one."""
    if isinstance(name, bool) or not isinstance(name, str | int):
        return f"is {_kind(name)}; quote a name that is read as something else, such as 'true'"
    text = str(name)
    if not text.strip():
        return "is empty"
    if len(text) > MAX_NAME:
        return f"has {len(text)} letters, expected at most {MAX_NAME}"
    if not text.isprintable() or "/" in text:
        return "has characters that no folder or terminal can show"
    return ""


def _kind(value: object) -> str:
    if value is None:
        return "null"
    words = {bool: "true or false", float: "a number", dict: "settings", list: "a list"}
    return words.get(type(value), f"a {type(value).__name__}")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


_COUNTS = {"data.image_size": (1, MAX_IMAGE_SIZE), "data.num_classes": (1, 2**31)}


def check_data_node(node: Any, *, optional: bool = False) -> None:
    """Check the types of the settings that every data node has, where they are given.

    Args:
        node: Plain, of train.py, of eval.py, or of a stored config.
        optional: Whether null leaves a setting to a checkpoint.

    Raises:
        FERError: With the setting, what was found and what was expected.
    """
    if not isinstance(node, Mapping):
        raise FERError(f"data={shown(node)}: expected settings, as in conf/data")
    node = {key: value for key, value in node.items() if value is not None} if optional else node
    for key in ("_target_", "name"):
        if key in node and not _is_text(node[key]):
            words = "the name of the data set" if key == "name" else "the name of a class"
            raise FERError(f"data.{key}={shown(node[key])}: expected {words}")
    for key in ("root", "cache_dir"):
        left_out = node.get(key) is None and (key == "root" or key not in node or "_target_" not in node)
        if not left_out and not _is_text(node[key]):
            words = "a zip, a folder, a CSV or null" if key == "root" else "a folder"
            raise FERError(f"data.{key}={shown(node[key])}: expected {words}")
    for setting, (low, high) in _COUNTS.items():
        key = setting.partition(".")[2]
        if key in node and not _is_whole(node[key], low, high):
            upto = (
                f" and at most {high:,}" if key == "image_size" and _is_whole(node[key], high, 2**63) else ""
            )
            raise FERError(f"{setting}={shown(node[key])}: expected a whole number of at least {low}{upto}")
    if "channels" in node and (isinstance(node["channels"], bool) or node["channels"] not in (1, 3)):
        raise FERError(f"data.channels={shown(node['channels'])}: expected 1 (grey) or 3 (colour)")
    if "classes" in node:
        check_classes(node["classes"])
    source = node.get("source", {"_target_": "x"})
    if not isinstance(source, Mapping) or not _is_text(source.get("_target_")):
        raise FERError(
            f"data.source={shown(source)}: expected a reader with its settings, as in conf/data; leave it "
            "out, or choose one with data=image_folder"
        )
