"""The images on which an export is verified and calibrated."""

import logging
import re
from collections.abc import Collection
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.locate import locate
from fer_lightning.data.synthetic.source import SyntheticFaces
from fer_lightning.inference.network import Network
from fer_lightning.inference.stored_predictors import with_data_settings
from fer_lightning.training.build import build_datamodule

log = logging.getLogger(__name__)

NUM_IMAGES = 512


class ExportImages(NamedTuple):
    """Images for an export.

    Attributes:
        images: ``(N, C, S, S)`` uint8, to compare a file with its network.
        words: What they are.
        data: The data set that the network was trained on, after ``setup``; None if it is not there.
    """

    images: NDArray[np.uint8]
    words: str
    data: FERDataModule | None


def load_images(
    network: Network, root: str | None = None, *, trust: Collection[str] = (), required: bool = False
) -> ExportImages:
    """Load images of the data set that a network remembers, or else synthetic faces.

    Args:
        network: From ``load_network``.
        root: Where the data set is now; None for the place that the network remembers, or where ``locate``
            looks. Nothing is downloaded.
        trust: Packages whose readers the network's description may name, besides this project's.
        required: Whether the data set has to be there.

    Raises:
        FERError: If the data set is required or its root is given, and it cannot be read.
    """
    try:
        data = _open_data(network, root, trust)
    except FERError as error:
        if root is not None:
            raise FERError(f"--data {root}: {str(error).removeprefix(f'data.root={root}: ')}") from error
        if required:
            raise FERError(
                "--format onnx-int8: the images that trained the network are needed to set the "
                "ranges, and were not "
                f"found ({_reason(error)}); name their place with --data"
            ) from error
        log.warning(
            "verified on synthetic faces: the images that trained the network were not found (%s); "
            "name their place "
            "with --data",
            _reason(error),
        )
        return ExportImages(*_synthetic(network), None)
    split = next(split for split in ("test", "val", "train") if len(data.rows[split]))
    rows = spread_out(data.rows[split], NUM_IMAGES)
    images = batch_of(data, rows)
    return ExportImages(images, f"{len(rows):,} {split} images of {data.name}", data)


def _reason(error: FERError) -> str:
    """Shorten a message that gives advice on settings of train.py, which this command does not have."""
    places = re.search(r"not found \((.*?)\); ", str(error))
    return places[1].replace("; data.download=false forbids a download", "") if places else str(error)


def spread_out(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Take some rows, at equal distances: data sets are often sorted by class."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64))]


def batch_of(data: FERDataModule, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return ``(N, C, S, S)`` uint8 images of a data set."""
    images = data.faces.images[rows]
    return images[:, None] if images.ndim == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _open_data(network: Network, root: str | None, trust: Collection[str]) -> FERDataModule:
    metadata = with_data_settings(network.metadata)
    stored: Any = metadata.config.get("data")
    if not isinstance(stored, dict) or "name" not in stored or "_target_" not in stored:
        raise FERError(f"{network.path}: it remembers no data set")
    node = {
        key: value for key, value in stored.items() if key not in ("cache_dir", "augment", "batch_transforms")
    }
    node |= {"download": False}
    if root is not None:
        node["root"] = root
    try:
        node = locate(node, log=log.warning)
    except FERError:
        if root is not None or stored.get("root") is None:
            raise
        node = locate(node | {"root": None}, log=log.warning)  # it was trained on another machine
    data = build_datamodule(node, trust=trust)
    data.prepare_data()
    data.setup()
    return data


def _synthetic(network: Network) -> tuple[NDArray[np.uint8], str]:
    model = network.metadata.config["model"]
    data = FERDataModule(
        name="synthetic",
        source=partial(SyntheticFaces, num_train=7, num_val=7, num_test=NUM_IMAGES, class_balance="uniform"),
        image_size=model["image_size"],
        channels=model.get("in_channels", 1),
    )
    data.prepare_data()
    data.setup()
    return batch_of(data, data.rows["test"]), f"{NUM_IMAGES} synthetic faces"
