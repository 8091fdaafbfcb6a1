"""Quantisation to int8: static for convolutions, dynamic for everything else."""

import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.evaluation.stats import PairedTest, compare_pairs, wilson_interval
from fer_lightning.inference.export.onnx_file import import_or_refuse
from fer_lightning.inference.export.verify import Run, batches_of

NUM_CALIBRATION = 512  # training images
MAX_LOSS = 0.02  # of accuracy, if it is significant
_STATIC = ["Conv", "Relu", "Add", "MaxPool", "GlobalAveragePool", "Gemm", "MatMul"]
_DYNAMIC = ["LSTM", "Gemm", "MatMul"]
_ROUNDS = 15


class Quantised(NamedTuple):
    """A model in int8.

    Attributes:
        model: An ``onnx.ModelProto``.
        method: How it was made, in words.
    """

    model: Any
    method: str


def quantise(model: Any, images: NDArray[np.uint8]) -> Quantised:
    """Quantise a model to int8.

    Networks with convolutions are quantised with fixed ranges, as QDQ, each channel of a weight with its own
    scale: dynamic ranges would make convolutions 4 to 5 times slower. Others take the ranges of each batch.

    Args:
        model: An ``onnx.ModelProto`` of ``build_model``; it is not changed.
        images: ``(N, C, S, S)`` uint8 training images, which set the ranges.
    """
    quantization = import_or_refuse("onnxruntime.quantization")
    onnx = import_or_refuse("onnx")
    before = onnx.ModelProto()
    before.CopyFrom(model)
    onnx.helper.set_model_props(before, {"onnx.quant.pre_process": "onnxruntime.quant"})  # no advice on it
    operators = {node.op_type for node in before.graph.node}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        target = str(Path(folder) / "int8.onnx")
        if "Conv" in operators:
            quantization.quantize_static(
                before,
                target,
                _reader(quantization, images),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                op_types_to_quantize=_STATIC,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
            method = f"static QDQ per channel, ranges of {len(images):,} training images"
        else:
            quantization.quantize_dynamic(before, target, op_types_to_quantize=_DYNAMIC)
            method = (
                "dynamic: the ranges are those of each batch, so an answer depends on the other images in it"
            )
        after = onnx.load(target)
    if not any("Quant" in node.op_type for node in after.graph.node):
        raise FERError(
            f"--format onnx-int8: ONNX Runtime quantises none of {', '.join(sorted(operators))}; "
            "use --format onnx"
        )
    return Quantised(after, method)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep ONNX Runtime's advice to its developers, which goes to the root logger, from the terminal."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _reader(quantization: Any, images: NDArray[np.uint8]) -> Any:
    """Make a reader of batches, of the base class that ONNX Runtime wants."""

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc] # its package may be missing
        def __init__(self) -> None:
            self._batches = batches_of(images, 64)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"images": batch}

    return Reader()


def compare_accuracy(
    float32: Run, int8: Run, images: NDArray[np.uint8], labels: NDArray[np.int64]
) -> tuple[PairedTest, dict[str, float]]:
    """Compare the answers of two files on the same images.

    Returns:
        The paired test of int8 minus float32, and the accuracy of ``int8`` and ``float32``, in [0, 1].

    Raises:
        FERError: If int8 is significantly less accurate, by more than ``MAX_LOSS``.
    """
    right = {
        name: np.concatenate([run(part).argmax(axis=1) for part in batches_of(images, 64)]) == labels
        for name, run in (("int8", int8), ("float32", float32))
    }
    (test,) = compare_pairs(right)
    accuracies = {name: float(each.mean()) for name, each in right.items()}
    if test.difference < -MAX_LOSS and test.p_value < 0.05:
        raise FERError(
            f"--format onnx-int8: {100 * accuracies['int8']:.2f} % of {test.n:,} images are right, "
            "in float32 "
            f"{100 * accuracies['float32']:.2f} %: more than {100 * MAX_LOSS:.0f} points less; use "
            "--format onnx; no "
            "file was written"
        )
    return test, accuracies


def describe_comparison(
    test: PairedTest, accuracies: dict[str, float], split: str, name: str
) -> dict[str, Any]:
    """Describe a comparison for the card: accuracies, their difference with its interval, McNemar's p."""
    return {
        "split": split,
        "dataset": name,
        "n": test.n,
        "acc_int8": accuracies["int8"],
        "acc_int8_ci95": list(wilson_interval(accuracies["int8"], test.n)),
        "acc_float32": accuracies["float32"],
        "difference": test.difference,
        "difference_ci95": list(test.interval),
        "only_int8_right": test.only_first,
        "only_float32_right": test.only_second,
        "p_value": test.p_value,
    }


def measure_speed(
    runs: dict[str, Run], images: NDArray[np.uint8], batches: Sequence[int] = (1, 64)
) -> dict[str, dict[str, float]]:
    """Measure milliseconds for one face, in turns, as medians.

    Args:
        runs: By name, each on one thread.
        images: ``(N, C, S, S)`` uint8; repeated where a batch has more.
        batches: Faces at a time.

    Returns:
        Batch size as text -> name -> milliseconds per face.
    """
    found: dict[str, dict[str, float]] = {}
    for size in batches:
        batch = np.resize(images, (size, *images.shape[1:]))
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(_ROUNDS):
            for name, run in runs.items():
                start = time.perf_counter()
                run(batch)
                times[name].append((time.perf_counter() - start) * 1000 / size)
        found[str(size)] = {name: float(np.median(values)) for name, values in times.items()}
    return found
