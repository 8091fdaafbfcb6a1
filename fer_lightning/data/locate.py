"""Where the data is: from what a config asks for to what a machine holds."""

import os
import socket
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fer_lightning.core.errors import FERError
from fer_lightning.data.readers.fer2013 import HOW_TO_GET, LOOKED_FOR, open_fer2013
from fer_lightning.data.readers.files import scan_folder

HANDLE = "msambare/fer2013"
LOCAL = Path("data/fer2013")
CONNECT_SECONDS = 3.0

# What a fallback keeps of its own; every other setting that both nodes have is the user's to choose.
_OWN_KEYS = {"_target_", "name", "root", "source", "classes", "num_classes", "image_size"}

Say = Callable[[str], None]


def locate(node: Mapping[str, Any], *, say: Say, given: Collection[str] | None = None) -> dict[str, Any]:
    """Decide which data set a run uses.

    Args:
        node: The resolved ``data`` config as plain containers. ``download`` and ``fallback`` are consumed.
        say: Takes a sentence for people, such as ``print``.
        given: The settings that the user named, which a fallback takes over; None for all that both have.

    Returns:
        The node of the data set, with constructor keys alone and ``root`` as an absolute path. ``auto`` has
        become ``fer2013``, or its fallback with the settings that both share.

    Raises:
        FERError: If a place that was named holds nothing usable, or if ``fer2013`` is found nowhere.
    """
    found = {key: value for key, value in node.items() if key not in ("download", "fallback")}
    name, root = node["name"], node.get("root")
    if name == "synthetic" and root is not None:
        raise FERError(f"data.root={root}: synthetic faces have no root; name a data set (data=fer2013)")
    if name == "image_folder" and root is None:
        raise FERError("data.root: missing, data=image_folder needs a folder or zip of class folders")
    if name not in ("auto", "fer2013"):
        if root is not None:
            path = Path(root).expanduser().absolute()
            if not path.exists():
                raise FERError(f"data.root={root}: no such file or folder")
            found["root"] = str(path)
        return found
    looked: list[str] = []
    place = _find(node, looked, say)
    if place is not None:
        return found | {"name": "fer2013", "root": str(place)}
    if name == "auto":
        say(
            f"FER-2013 was not found ({'; '.join(looked)}): using the built-in SYNTHETIC faces, whose scores "
            f"say nothing about photographs. {HOW_TO_GET}"
        )
        fallback: dict[str, Any] = dict(node["fallback"])
        shared = {
            key: node[key]
            for key in fallback
            if key in node and key not in _OWN_KEYS and (given is None or key in given)
        }
        return locate(fallback | shared, say=say)
    raise FERError(
        f"data=fer2013: not found ({'; '.join(looked)}); {LOOKED_FOR}. {HOW_TO_GET}. To do without: "
        "data=synthetic"
    )


def _find(node: Mapping[str, Any], looked: list[str], say: Say) -> Path | None:
    """Look at each place in its order, and note what was found there."""
    for origin, value in (("data.root", node.get("root")), ("FER2013_ROOT", os.environ.get("FER2013_ROOT"))):
        if value:
            return _usable(Path(value), node, origin)
        looked.append(f"{origin} is not set")
    if not LOCAL.exists():
        looked.append(f"{LOCAL.absolute()} does not exist")
    elif LOCAL.is_dir() and not ((listing := scan_folder(LOCAL, depth=0)).files or listing.folders):
        looked.append(f"{LOCAL.absolute()} is empty")
    else:
        return _usable(LOCAL, node, "data/fer2013")
    if not node.get("download", True):
        looked.append("data.download=false forbids a download")
        return None
    try:
        return _usable(_kaggle_copy() or _download(say), node, "kagglehub")
    except Exception as error:  # noqa: BLE001 - whatever a download dies of, there are other ways
        looked.append(f"no download from Kaggle ({' '.join(str(error).split()) or type(error).__name__})")
        return None


def _usable(place: Path, node: Mapping[str, Any], origin: str) -> Path:
    place = place.expanduser().absolute()
    try:
        open_fer2013(root=place, classes=node["classes"], image_size=node["image_size"])
    except FERError as error:
        raise FERError(f"{origin}: {error}") from error
    return place


def _kaggle_copy() -> Path | None:
    """Find what an earlier download left, so that a machine without network goes on using it."""
    cache = Path(os.environ.get("KAGGLEHUB_CACHE") or "~/.cache/kagglehub").expanduser() / "datasets" / HANDLE
    copies = [cache / "versions" / marker.stem for marker in sorted(cache.glob("*.complete"))]
    return next((copy for copy in reversed(copies) if copy.is_dir()), None)


def _download(say: Say) -> Path:
    if not _kaggle_answers():
        raise FERError(f"www.kaggle.com did not answer within {CONNECT_SECONDS:.0f} s")
    import kagglehub  # only a first start needs it, and it takes its time

    say(f"downloading FER-2013 ({HANDLE}) from Kaggle")
    return Path(kagglehub.dataset_download(HANDLE))


def _kaggle_answers() -> bool:
    """Try to connect, in a thread because looking up the name has no timeout of its own."""
    answered = threading.Event()

    def connect() -> None:
        with suppress(OSError), socket.create_connection(("www.kaggle.com", 443), timeout=CONNECT_SECONDS):
            answered.set()

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    return answered.is_set()
