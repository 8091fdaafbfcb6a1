"""Locate the data set that a run uses: from what a config asks for to what a machine holds."""

import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fer_lightning.core.errors import FERError
from fer_lightning.data.faces import Log
from fer_lightning.data.readers.fer2013 import HOW_TO_GET, LOOKED_FOR, open_fer2013
from fer_lightning.data.readers.files import scan_folder

HANDLE = "msambare/fer2013"
LOCAL = Path("data/fer2013")
CONNECT_SECONDS = 3.0

# The source that data=auto falls back to, with the defaults of its constructor.
SYNTHETIC_SOURCE = {"_target_": "fer_lightning.data.synthetic.source.SyntheticFaces", "_partial_": True}


def locate(node: Mapping[str, Any], *, log: Log) -> dict[str, Any]:
    """Decide which data set a run uses.

    Args:
        node: The resolved ``data`` config as plain containers.
        log: Receives a sentence if ``auto`` falls back to the synthetic faces or FER-2013 is downloaded.

    Returns:
        The node of the data set, without ``download`` and with an absolute ``root`` and ``soft_targets``.
        ``auto`` becomes ``fer2013``, or ``synthetic`` with another ``source`` and no ``root``; all other
        settings are kept.

    Raises:
        FERError: If a given place holds no usable data set, or if ``fer2013`` is not found anywhere.
    """
    found = {key: value for key, value in node.items() if key != "download"}
    if isinstance(node.get("source"), Mapping):
        found["source"] = _absolute(node["source"])
    if isinstance(teacher := node.get("soft_targets"), str) and teacher.strip():
        found["soft_targets"] = str(Path(teacher).expanduser().absolute())
    name, root = node["name"], node.get("root")
    if name == "synthetic" and root is not None:
        raise FERError(f"data.root={root}: synthetic faces have no root; name a data set (data=fer2013)")
    if name == "image_folder" and root is None:
        raise FERError("data.root: missing, data=image_folder needs a folder or zip of class folders")
    if name not in ("auto", "fer2013"):
        if root is not None:
            path = Path(root).expanduser().absolute()
            if not os.path.exists(path):  # noqa: PTH110 - False for a name that is too long, too
                raise FERError(
                    f"data.root={root}: no such file or folder; name its place now with data.root="
                )
            found["root"] = str(path)
        return found
    tried: list[str] = []
    place = _find(node, tried, log)
    if place is not None:
        return found | {"name": "fer2013", "root": str(place)}
    if name == "auto":
        log(
            f"FER-2013 was not found ({'; '.join(tried)}): using the built-in SYNTHETIC faces, whose results "
            f"do not transfer to photographs. {HOW_TO_GET}"
        )
        return found | {"name": "synthetic", "source": dict(SYNTHETIC_SOURCE), "root": None}
    raise FERError(
        f"data=fer2013: not found ({'; '.join(tried)}); {LOOKED_FOR}. {HOW_TO_GET}. To run without it: "
        "data=synthetic"
    )


def _absolute(source: Mapping[str, Any]) -> dict[str, Any]:
    """Make the paths of further files absolute: a run is continued from anywhere."""
    result = dict(source)
    if isinstance(labels := source.get("labels"), str):
        result["labels"] = str(Path(labels).expanduser().absolute())
    if isinstance(group := source.get("group"), Mapping) and isinstance(group.get("csv"), str):
        result["group"] = dict(group) | {"csv": str(Path(group["csv"]).expanduser().absolute())}
    return result


def _find(node: Mapping[str, Any], tried: list[str], log: Log) -> Path | None:
    """Try each place in order, and append to ``tried`` why it did not serve."""
    for origin, value in (("data.root", node.get("root")), ("FER2013_ROOT", os.environ.get("FER2013_ROOT"))):
        if value:
            return _usable(Path(value), node, origin)
        tried.append(f"{origin} is not set")
    if not LOCAL.exists():
        tried.append(f"{LOCAL.absolute()} does not exist")
    elif LOCAL.is_dir() and not ((listing := scan_folder(LOCAL, depth=0)).files or listing.folders):
        tried.append(f"{LOCAL.absolute()} is empty")
    else:
        return _usable(LOCAL, node, "data/fer2013")
    if not node.get("download", True):
        tried.append("data.download=false forbids a download")
        return None
    try:
        return _usable(_kaggle_copy() or _download(log), node, "kagglehub")
    except Exception as error:  # noqa: BLE001 - kagglehub may raise anything; data=auto goes on without it
        tried.append(f"no download from Kaggle ({' '.join(str(error).split()) or type(error).__name__})")
        return None


def _usable(place: Path, node: Mapping[str, Any], origin: str) -> Path:
    place = place.expanduser().absolute()
    try:
        open_fer2013(root=place, classes=node["classes"], image_size=node["image_size"])
    except FERError as error:
        raise FERError(f"{origin}: {error}") from error
    return place


def _kaggle_copy() -> Path | None:
    """Find an earlier download, which works without a network."""
    cache = Path(os.environ.get("KAGGLEHUB_CACHE") or "~/.cache/kagglehub").expanduser() / "datasets" / HANDLE
    copies = [cache / "versions" / marker.stem for marker in sorted(cache.glob("*.complete"))]
    return next((copy for copy in reversed(copies) if copy.is_dir()), None)


def _download(log: Log) -> Path:
    if not _kaggle_answers():
        raise FERError(f"www.kaggle.com did not answer within {CONNECT_SECONDS:.0f} s")
    import kagglehub  # slow to import, and only needed for a download

    log(f"downloading FER-2013 ({HANDLE}) from Kaggle")
    return Path(kagglehub.dataset_download(HANDLE))


def _kaggle_answers() -> bool:
    """Try to connect, in a thread because looking up a host name has no timeout."""
    answered = threading.Event()

    def connect() -> None:
        with suppress(OSError), socket.create_connection(("www.kaggle.com", 443), timeout=CONNECT_SECONDS):
            answered.set()

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    return answered.is_set()
