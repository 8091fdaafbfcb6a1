"""Writing a network as ONNX: one graph from faces of any size to calibrated probabilities."""

import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import replacing
from fer_lightning.inference.export.graph import LUMA, ProbabilityNetwork
from fer_lightning.inference.onnx_network import INPUT, KEY, OUTPUT

OPSET = 18  # the first whose Resize has antialiasing
IR_VERSION = 8  # that of opset 18, for older programs
INSTALL = "pip install onnx onnxruntime"  # of the extra `export`


def import_or_refuse(name: str) -> Any:
    """Import a package of the extra ``export``.

    Raises:
        FERError: With the command that installs it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise FERError(f"export: {name.partition('.')[0]} is not installed; {INSTALL}") from error


def build_model(network: ProbabilityNetwork) -> Any:
    """Build the ``onnx.ModelProto`` of a network, with a batch of any number.

    Args:
        network: In evaluation mode.

    Returns:
        A model from ``images``, ``(N, 1 or 3, H, W)`` uint8, to ``probs``, ``(N, num_classes)`` float32.
    """
    onnx = import_or_refuse("onnx")
    core = onnx.load_model_from_string(_trace(network))
    core.ir_version = IR_VERSION
    model = onnx.compose.merge_models(
        build_preprocessing(network), core, io_map=[("sized", "pixels")], name="fer_lightning"
    )
    del model.opset_import[:]  # merging lists the same one twice
    model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    model.ir_version = IR_VERSION
    model.producer_name = "fer_lightning"
    onnx.checker.check_model(model)
    return model


def _trace(network: ProbabilityNetwork) -> bytes:
    """Export the core by torch's tracer: a second, where that of ``torch.export`` takes half a minute."""
    example = torch.zeros(2, network.channels, network.size, network.size, dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        path = Path(folder) / "core.onnx"
        warnings.simplefilter("ignore")  # on checks of shapes, which hold for every batch; on its age
        torch.onnx.export(
            network.core,
            (example,),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=[OUTPUT],
            dynamic_axes={"pixels": {0: "N"}, OUTPUT: {0: "N"}},
        )
        return path.read_bytes()


def build_preprocessing(network: ProbabilityNetwork) -> Any:
    """Build what comes before a network: grey levels or colours, then the size, in whole numbers.

    Returns:
        An ``onnx.ModelProto`` from ``images``, see ``build_model``, to ``sized``, ``(N, C, S, S)`` uint8.
    """
    onnx = import_or_refuse("onnx")
    node, constant = onnx.helper.make_node, onnx.numpy_helper.from_array
    # A grey image becomes three equal channels, whose luma is exactly the grey level.
    nodes = [node("Expand", [INPUT, "rgb_shape"], ["rgb"])]
    constants = [constant(np.array([1, 3, 1, 1], np.int64), "rgb_shape")]
    if network.channels == 1:
        constants += [
            constant(np.array(LUMA, np.int32).reshape(1, 3, 1, 1), "luma"),
            constant(np.array([1], np.int64), "channel_axis"),
            constant(np.array(0x8000, np.int32), "half"),
            constant(np.array(65536, np.int32), "whole"),
        ]
        nodes += [
            node("Cast", ["rgb"], ["rgb_int"], to=onnx.TensorProto.INT32),
            node("Mul", ["rgb_int", "luma"], ["weighted"]),
            node("ReduceSum", ["weighted", "channel_axis"], ["luma_sum"], keepdims=1),
            node("Add", ["luma_sum", "half"], ["luma_half"]),
            node("Div", ["luma_half", "whole"], ["grey_int"]),
            node("Cast", ["grey_int"], ["plain"], to=onnx.TensorProto.UINT8),
        ]
    # The arithmetic of Pillow: a = -0.5, weights renormalised at the border.
    constants.append(constant(np.array([network.size] * 2, np.int64), "size"))
    nodes.append(
        node(
            "Resize",
            ["plain" if network.channels == 1 else "rgb", "", "", "size"],
            ["sized"],
            mode="cubic",
            cubic_coeff_a=-0.5,
            antialias=1,
            exclude_outside=1,
            coordinate_transformation_mode="half_pixel",
            axes=[2, 3],
        )
    )
    info, uint8 = onnx.helper.make_tensor_value_info, onnx.TensorProto.UINT8
    graph = onnx.helper.make_graph(
        nodes,
        "preprocessing",
        [info(INPUT, uint8, ["N", "C", "H", "W"])],
        [info("sized", uint8, ["N", network.channels, network.size, network.size])],
        constants,
    )
    opset = onnx.helper.make_opsetid("", OPSET)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)


def save_model(model: Any, path: Path, description: Mapping[str, Any], classes: Sequence[str]) -> None:
    """Write a model with its description in the metadata, whole or not at all.

    Args:
        model: An ``onnx.ModelProto``; the entries of its metadata are replaced.
        path: The file.
        description: Plain values, see ``describe.describe_network``.
        classes: Also an entry of its own, for programs that know nothing of this project.
    """
    onnx = import_or_refuse("onnx")
    properties = {
        KEY: json.dumps(description, allow_nan=False),
        "classes": json.dumps(list(classes)),
    }
    onnx.helper.set_model_props(model, properties)
    with replacing(path) as file:
        file.write(model.SerializeToString())
