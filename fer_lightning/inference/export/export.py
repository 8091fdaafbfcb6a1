"""Exporting a network: describe, write, read again, compare, and only then put the files in their place."""

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fer_lightning.core import hardware
from fer_lightning.core.errors import FERError
from fer_lightning.core.files import write_atomically
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.inference.export.describe import describe_network
from fer_lightning.inference.export.folder import CARD, check_writable, export_folder
from fer_lightning.inference.export.formats import FORMATS, Format
from fer_lightning.inference.export.images import ExportImages, batch_of, load_images, spread_out
from fer_lightning.inference.export.int8 import (
    NUM_CALIBRATION,
    compare_accuracy,
    describe_comparison,
    measure_speed,
    quantise,
)
from fer_lightning.inference.export.onnx_file import import_or_refuse, save_model
from fer_lightning.inference.export.onnxruntime_web import find_runtime
from fer_lightning.inference.export.verify import Verification, check_same, verify
from fer_lightning.inference.export.web import write_web
from fer_lightning.inference.model_card import write_card
from fer_lightning.inference.network import SHIPPED, Network
from fer_lightning.inference.onnx_network import OnnxNetwork

_NEEDS = {
    "onnx": ("onnx", "onnxruntime"),
    "web": ("onnx", "onnxruntime"),
    "onnx-int8": ("onnx", "onnxruntime.quantization"),
}


class Exported(NamedTuple):
    """What an export wrote.

    Attributes:
        folder: Of the files.
        names: The files.
        verification: The comparison with the network.
        int8: What quantisation cost and gained, see ``describe_comparison``; None in float32.
    """

    folder: Path
    names: tuple[str, ...]
    verification: Verification
    int8: dict[str, Any] | None


def export(
    network: Network,
    format_name: str,
    folder: Path,
    *,
    root: str | None = None,
    trust: Collection[str] = (),
    ort: str | None = None,
) -> Exported:
    """Write a network in one of ``FORMATS``, with its model card.

    Args:
        network: From ``load_network``.
        format_name: A key of ``FORMATS``.
        folder: Where the files go; new, empty, or with an earlier export of this format.
        root: Where the data set of the network is; see ``load_images``.
        trust: Packages whose readers the network's description may name, besides this project's.
        ort: Where the files of onnxruntime-web are, for the format web; see ``find_runtime``.

    Raises:
        FERError: If a package is missing, the folder holds other files, or the file does not answer as the
            network does; then nothing is written.
    """
    form, is_int8 = FORMATS[format_name], format_name == "onnx-int8"
    for name in _NEEDS.get(format_name, ()):
        import_or_refuse(name)
    check_writable(folder, form.names)
    if format_name == "web":
        form = form._replace(write=partial(write_web, runtime=find_runtime(ort)))
    elif ort is not None:
        raise FERError(f"--ort {ort}: only for --format web")
    description = {**describe_network(network), "format": format_name, "exported": _describe_export()}
    images = load_images(network, root, trust=trust, required=is_int8)
    with export_folder(folder, form.names) as place:
        int8 = None
        if is_int8:
            assert images.data is not None
            found, int8 = _write_int8(network, form, description, place, images, images.data)
        else:
            run = form.write(network, description, place)
            found = verify(run, network, images.images, images.words, resizes=form.resizes)
            check_same(found, f"--format {format_name}")
        write_atomically(place / CARD, card(network, form, description, found, int8))
    return Exported(folder, form.names, found, int8)


def _describe_export() -> dict[str, Any]:
    """Describe the program that exports: its commit and the versions of its packages."""
    return {"git": hardware.describe_git(), "versions": hardware.describe_versions()}


def _write_int8(
    network: Network,
    form: Format,
    description: dict[str, Any],
    place: Path,
    images: ExportImages,
    data: FERDataModule,
) -> tuple[Verification, dict[str, Any]]:
    """Write float32 first, check it, quantise it, and compare the two."""
    onnx, path = import_or_refuse("onnx"), place / "model.onnx"
    float32 = form.write(network, description, place)
    check_same(
        verify(float32, network, images.images, images.words), "--format onnx-int8, before quantisation"
    )
    train = spread_out(data.rows["train"], NUM_CALIBRATION)
    quantised = quantise(onnx.load(path), batch_of(data, train))
    float32_path = place / "float32.onnx"
    path.rename(float32_path)
    split = "val" if len(data.rows["val"]) else "test"
    rows = data.split_rows(split)
    if not len(rows):
        raise FERError(
            "--format onnx-int8: the data set has neither val nor test images to compare accuracies on"
        )
    described = {**description, "precision": "int8"}
    save_model(quantised.model, path, described, description["classes"])
    pixels, labels = batch_of(data, rows), np.asarray(data.faces.labels[rows])
    test, accuracies = compare_accuracy(OnnxNetwork(float32_path), OnnxNetwork(path), pixels, labels)
    int8 = describe_comparison(test, accuracies, split, str(data.name))
    runs = {"float32": OnnxNetwork(float32_path, num_threads=1), "int8": OnnxNetwork(path, num_threads=1)}
    int8 |= {
        "method": quantised.method,
        "bytes": {"float32": float32_path.stat().st_size, "int8": path.stat().st_size},
        "ms_per_face": measure_speed(dict(runs), pixels[:64]),
    }
    found = verify(OnnxNetwork(path), network, images.images, images.words)
    float32_path.unlink()
    return found, int8


def card(
    network: Network,
    form: Format,
    description: Mapping[str, Any],
    found: Verification,
    int8: Mapping[str, Any] | None,
) -> str:
    """Write the card of an export."""
    image = description["image"]
    return write_card(
        description,
        usage=form.usage.format(size=image["size"], channels=image["channels"]),
        files=form.contents,
        measured="Of the checkpoint, before it was exported:",
        verification=describe_verification(found) + ("" if int8 is None else f"\n\n{describe_int8(int8)}"),
        licence="mit" if network.path == SHIPPED else None,
    )


def describe_verification(found: Verification) -> str:
    """Describe a comparison with the network in Markdown."""
    batches = ", ".join(f"{value:.2g} at batch {size}" for size, value in found.differences.items())
    text = (
        f"Verified on {found.images}: the largest difference of a probability from the network in "
        f"PyTorch is {batches}; "
        f"{100 * found.same_answers:.2f} % of the answers are the same."
    )
    if found.resized is not None:
        text += (
            " On faces of other sizes, which the file resizes as Pillow does but for a grey level "
            "here and there, it is "
            f"{found.resized:.2g}."
        )
    return text


def describe_int8(int8: Mapping[str, Any]) -> str:
    """Describe what quantisation cost and gained in Markdown."""
    low, high = (100 * value for value in int8["difference_ci95"])
    speeds = "\n".join(
        f"| {size} | {times['float32']:.3f} | {times['int8']:.3f} |"
        for size, times in int8["ms_per_face"].items()
    )
    return (
        f"Quantisation: {int8['method']}. On the {int8['n']:,} {int8['split']} images of {int8['dataset']} "
        f"{100 * int8['acc_int8']:.2f} % are right, in float32 {100 * int8['acc_float32']:.2f} %: a "
        "difference of "
        f"{100 * int8['difference']:+.2f} points (95 % CI {low:+.2f} to {high:+.2f}; "
        f"{int8['only_int8_right']} right in int8 "
        f"alone, {int8['only_float32_right']} in float32 alone, exact McNemar p = {int8['p_value']:.2g}).\n\n"
        f"| batch | float32, ms per face | int8, ms per face |\n| --: | --: | --: |\n{speeds}\n\n"
        "Medians on one thread of the machine that exported; on another one they differ. "
        f"{int8['bytes']['int8']:,} bytes, in float32 {int8['bytes']['float32']:,}."
    )
