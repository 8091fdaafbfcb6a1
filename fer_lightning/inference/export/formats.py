"""The formats of an export: what each writes, how it is run again, and how its card says to load it."""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import replacing, write_json
from fer_lightning.inference.export.folder import CARD
from fer_lightning.inference.export.graph import ProbabilityNetwork
from fer_lightning.inference.export.onnx_file import build_model, save_model
from fer_lightning.inference.export.onnxruntime_web import VERSION as ORT_VERSION
from fer_lightning.inference.export.verify import Run, reference
from fer_lightning.inference.export.web import NAMES as WEB_NAMES
from fer_lightning.inference.export.web import USAGE as WEB_USAGE
from fer_lightning.inference.export.web import write_web
from fer_lightning.inference.network import Network, load_network
from fer_lightning.inference.onnx_network import OnnxNetwork
from fer_lightning.training.checkpoint_reader import brief


class Format(NamedTuple):
    """One format.

    Attributes:
        names: The files of its folder.
        write: Writes the files but the card, given the network, its description and the folder; returns a
            function that runs what was written, read again from the folder.
        resizes: Whether the files take faces of any size.
        contents: What the files hold, for the card.
        usage: How to load them, Markdown; ``{size}`` and ``{channels}`` are filled in.
    """

    names: tuple[str, ...]
    write: Callable[[Network, Mapping[str, Any], Path], Run]
    resizes: bool
    contents: str
    usage: str


def write_onnx(network: Network, description: Mapping[str, Any], folder: Path) -> Run:
    """Write ``model.onnx`` in float32."""
    model = build_model(ProbabilityNetwork(network))
    save_model(model, folder / "model.onnx", description, description["classes"])
    return OnnxNetwork(folder / "model.onnx")


def write_safetensors(network: Network, description: Mapping[str, Any], folder: Path) -> Run:
    """Write ``model.safetensors`` and ``config.json``, a folder for the Hugging Face Hub."""
    weights = {name: value.detach().contiguous() for name, value in _inference_weights(network).items()}
    content = save(weights, metadata={"format": "pt"})
    with replacing(folder / "model.safetensors") as file:
        file.write(content)
    described = {**description, "sha256": hashlib.sha256(content).hexdigest()}
    write_json(folder / "config.json", json.loads(json.dumps(described)))
    again = load_network(folder / "model.safetensors", trust=trusted_by(network))
    return lambda images: reference(again, images)


def trusted_by(network: Network) -> tuple[str, ...]:
    """Return the package of a network, which is loaded already."""
    return (str(network.metadata.config["model"]["_target_"]).partition(".")[0],)


def _inference_weights(network: Network) -> dict[str, torch.Tensor]:
    """Return the weights that predict, under the names that a checkpoint gives them."""
    state = network.classifier.state_dict()
    return {name: value for name, value in state.items() if not name.startswith("averaged.")}


def write_torch_export(network: Network, description: Mapping[str, Any], folder: Path) -> Run:
    """Write ``model.pt2`` by ``torch.export``, with the description as one of its extra files."""
    module = ProbabilityNetwork(network)
    example = torch.zeros(2, module.channels, module.size + 1, module.size + 2, dtype=torch.uint8)
    dynamic = torch.export.Dim.DYNAMIC
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, on its own parts
        try:
            program = torch.export.export(
                module, (example,), dynamic_shapes={"images": {0: dynamic, 2: dynamic, 3: dynamic}}
            )
        except Exception as error:  # torch.export raises many kinds for what it cannot trace
            raise FERError(
                f"--format torch-export: torch cannot trace this network ({brief(error, 200)}); use "
                "--format onnx"
            ) from error
        with replacing(folder / "model.pt2") as file:
            torch.export.save(program, file, extra_files={"fer_lightning.json": json.dumps(description)})
        loaded = torch.export.load(folder / "model.pt2").module()

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            probs: NDArray[np.float32] = loaded(torch.from_numpy(np.ascontiguousarray(images))).numpy()
        return probs

    return run


_ONNX_USAGE = """```python
import json

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("model.onnx")
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
face = np.asarray(Image.open("face.png").convert("RGB"))  # cropped to one face, of any size
(probs,) = session.run(["probs"], {{"images": face.transpose(2, 0, 1)[None]}})
print(dict(zip(classes, probs[0].tolist())))
```

`images` are uint8, `(N, 1, H, W)` grey or `(N, 3, H, W)` RGB; any number, height and width. `probs` are
float32, `(N, classes)`, calibrated. Grey levels, the size of {size} pixels, normalisation, the mirror image
(if the network uses it) and the temperature are part of the graph. The entry
`fer_lightning` of the metadata is a JSON with the classes, the normalisation, the data fingerprint, the
commit and the settings of the network.

`python eval.py predictor=onnx checkpoint=model.onnx` evaluates it on the data set that it remembers."""

_SAFETENSORS_USAGE = """```python
from fer_lightning import FERPredictor

predictor = FERPredictor.load("FOLDER")  # this folder
faces = predictor("photo.jpg")
```

`python eval.py checkpoint=FOLDER` evaluates it. For the Hugging Face Hub (`pip install huggingface_hub`):

```python
from fer_lightning.inference.hub import HubNetwork

network = HubNetwork.from_pretrained("FOLDER")  # or "USER/NAME" on the Hub
probs = network(images)  # (N, 1 or 3, H, W) uint8 -> (N, classes) float32, calibrated
```

`hf upload USER/NAME FOLDER` puts the folder on the Hub; nothing here does that by itself."""

_TORCH_USAGE = """```python
import torch

network = torch.export.load("model.pt2").module()
probs = network(images)  # (N, {channels}, H, W) uint8 -> (N, classes) float32, calibrated
```

It needs torch alone, of the version that wrote it or later; it runs on the CPU. Any number, height and width
of faces; size, normalisation, the mirror image (if the network uses it) and the temperature are part of it.
The file holds no code of this project, but `torch.export.load` is made for files that you trust. Its extra
file `fer_lightning.json` describes the network."""

FORMATS: dict[str, Format] = {
    "onnx": Format(
        ("model.onnx", CARD), write_onnx, True,
        "`model.onnx` holds the whole computation in float32, from the pixels of a face of any size.",
        _ONNX_USAGE,
    ),
    "onnx-int8": Format(
        ("model.onnx", CARD), write_onnx, True,
        "`model.onnx` holds the whole computation, with weights in int8, from the pixels of a face "
        "of any size.",
        _ONNX_USAGE,
    ),
    "safetensors": Format(
        ("model.safetensors", "config.json", CARD), write_safetensors, False,
        "The weights are float32 in `model.safetensors`; `config.json` holds everything that is "
        "needed to build the "
        "network and to prepare an image.", _SAFETENSORS_USAGE,
    ),
    "torch-export": Format(
        ("model.pt2", CARD), write_torch_export, True,
        "`model.pt2` holds the whole computation in float32, from the pixels of a face of any size.",
        _TORCH_USAGE,
    ),
    "web": Format(
        (*WEB_NAMES, CARD), write_web, True,
        "This folder is a page that finds faces and predicts their expressions in a browser.",
        WEB_USAGE.format(version=ORT_VERSION),
    ),
}  # fmt: skip
