"""Opening the source of a data module: from a reader, or built before."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from fer_lightning.core.errors import FERError
from fer_lightning.data.faces import Log, Source
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.data.locate import locate
from fer_lightning.data.readers.fer2013 import open_fer2013
from fer_lightning.data.synthetic.source import SyntheticFaces

Reader = Callable[..., Source]

# The defaults of the data module. A source that was built before has values of its own for them.
IMAGE_DEFAULTS: dict[str, Any] = {"classes": EXPRESSIONS, "image_size": 48, "channels": 1}


def is_source(value: object) -> bool:
    """Return whether a value is a built source, not a reader."""
    return not isinstance(value, type) and hasattr(value, "records") and hasattr(value, "cache_key")


def image_settings(
    source: object, *, classes: Sequence[str], image_size: int, channels: int
) -> dict[str, Any]:
    """Choose class list, image size and channels: those of a built source, or those given.

    Raises:
        FERError: If a given value is neither the default nor that of the built source.
    """
    given = {"classes": tuple(map(str, classes)), "image_size": image_size, "channels": channels}
    if not is_source(source):
        return given
    built = {
        "classes": tuple(map(str, source.classes)),  # type: ignore[attr-defined]
        "image_size": source.image_size,  # type: ignore[attr-defined]
        "channels": getattr(source, "channels", 1),
    }
    for key, value in given.items():
        if value not in (built[key], IMAGE_DEFAULTS[key]):
            raise FERError(f"data.{key}={value}: the source was built with {built[key]}; leave it out")
    return built


def must_be_located(source: object, name: str, root: str | None) -> bool:
    """Return whether FER-2013 still has to be looked for: no root was given, or the name is ``auto``."""
    reader = source
    while isinstance(reader, partial):
        if "root" in reader.keywords:
            return False
        reader = reader.func
    return reader is open_fer2013 and (root is None or name == "auto")


def open_source(
    reader: Reader | Source,
    name: str,
    root: str | None,
    *,
    download: bool,
    settings: Mapping[str, Any],
    log: Log,
) -> tuple[str | None, Source]:
    """Open the source of a data module, after looking for FER-2013 if that is needed.

    Args:
        reader: A reader, or a source that was built before.
        name: Of the data set; FER-2013 named ``auto`` falls back to the synthetic faces.
        root: The place of the images; None for FER-2013 in the places that ``locate`` knows, and for a source
            without a place.
        download: Whether FER-2013 may be downloaded.
        settings: ``classes``, ``image_size`` and ``channels``.
        log: Receives a sentence about a download or the synthetic faces.

    Returns:
        The root, and the source.

    Raises:
        FERError: If FER-2013 is not found, if the reader needs a root or cannot read colour images, or if
            the source has a fault.
    """
    if is_source(reader):
        return root, cast(Source, reader)
    if not callable(reader):
        raise FERError(f"data.source={reader}: expected a reader, as in conf/data")
    if must_be_located(reader, name, root):
        wanted = "auto" if name == "auto" else "fer2013"
        found = locate({"name": wanted, "root": root, "download": download, **settings}, log=log)
        root = found["root"]
        if found["name"] == "synthetic":
            reader = SyntheticFaces
    return root, _call(reader, root, settings)


def _call(reader: Reader, root: str | None, settings: Mapping[str, Any]) -> Source:
    """Call a reader with those of ``root`` and the settings that it takes."""
    name, channels = _name(reader), settings["channels"]
    parameters = inspect.signature(reader).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if "channels" not in parameters and not takes_any and channels != 1:
        raise FERError(f"data.channels={channels}: {name} has no setting channels, it reads grey images only")
    missing = FERError(f"data.root: missing, {name} needs the file or folder of the images")
    if root is None and "root" in parameters and parameters["root"].default is inspect.Parameter.empty:
        raise missing
    offered = {"root": root, **settings}
    if root is None:  # the reader's own default
        del offered["root"]
    if "channels" not in parameters and channels == 1:
        del offered["channels"]
    try:
        source = reader(**{key: value for key, value in offered.items() if takes_any or key in parameters})
    except TypeError as error:
        if root is None and takes_any and "root" not in parameters:
            raise missing from error
        raise
    if not is_source(source):
        raise FERError(
            f"data.source={name}: it returned {type(source).__name__}, expected a source of images"
        )
    if (found := getattr(source, "channels", 1)) != channels:
        raise FERError(f"data.channels={channels}: {name} opened a source of {found} channels")
    return source


def _name(reader: object) -> str:
    while isinstance(reader, partial):
        reader = reader.func
    return getattr(reader, "__name__", type(reader).__name__)


def describe_reader(reader: object) -> dict[str, Any]:
    """Return the config node of a reader, or of the class of a source that was built before."""
    settings: dict[str, Any] = {}
    while isinstance(reader, partial):
        settings = {**reader.keywords, **settings}
        reader = reader.func
    made: Any = type(reader) if is_source(reader) else reader
    return {"_target_": f"{made.__module__}.{made.__qualname__}", "_partial_": True, **settings}
