"""Exports of every model family answer as the network does, at any batch and size."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fer_lightning.core.errors import FERError
from fer_lightning.data.decode import to_square
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.evaluation.calibration import Calibration
from fer_lightning.inference.boxes import BoxFile
from fer_lightning.inference.export import export as exporting
from fer_lightning.inference.export import verify as verifying
from fer_lightning.inference.export.export import export
from fer_lightning.inference.export.folder import CARD
from fer_lightning.inference.export.graph import ProbabilityNetwork
from fer_lightning.inference.export.images import ExportImages
from fer_lightning.inference.export.onnx_file import build_preprocessing
from fer_lightning.inference.export.verify import reference
from fer_lightning.inference.network import Network, load_network
from fer_lightning.inference.onnx_network import OnnxNetwork
from fer_lightning.inference.predictor import FERPredictor
from fer_lightning.models.cnn import CNN
from fer_lightning.models.mlp import MLP
from fer_lightning.models.resnet import ResNet
from fer_lightning.models.rnn import RNN
from fer_lightning.training.checkpoint import CheckpointMetadata
from fer_lightning.training.checkpoint_metadata import describe_backbone
from fer_lightning.training.classifier import FERClassifier
from tests.slow import slow_except

FAMILIES = {
    "mlp": lambda **image: MLP(**image, hidden=[16]),
    "rnn": lambda **image: RNN(**image, hidden=12, bidirectional=True),
    "gru": lambda **image: RNN(**image, hidden=12, cell="gru", num_layers=1, rows_per_step=4),
    "cnn": lambda **image: CNN(**image, widths=[4, 8], hidden=8),
    "resnet-34": lambda **image: ResNet(**image, depth=34),
    "resnet-15": lambda **image: ResNet(**image, depth=15, stem="small"),
}


def make_network(family="mlp", *, size=16, channels=1, flip_test=True, temperature=1.7, classes=EXPRESSIONS):
    """Build a network with weights that answer differently for each image."""
    torch.manual_seed(0)
    backbone = FAMILIES[family](num_classes=len(classes), image_size=size, in_channels=channels).eval()
    for name, value in backbone.named_buffers():  # of batch normalisation, which would else do nothing
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if "var" in name else value.uniform_(-0.2, 0.2)
    mean, std = (0.4, 0.2) if channels == 1 else ((0.4, 0.5, 0.3), (0.2, 0.3, 0.25))
    classifier = FERClassifier(backbone=backbone, classes=classes, mean=mean, std=std, flip_test=flip_test)
    with torch.no_grad():  # answers of an untrained network would be all alike
        images = torch.from_numpy(some_images(channels=channels, height=size, width=size))
        backbone.head.weight.div_(classifier.eval()(images).std(dim=0).mean())
        backbone.head.bias.sub_(classifier(images).mean(dim=0))
    nothing = np.empty(0, np.uint64)
    metadata = CheckpointMetadata(
        config={
            "model": describe_backbone(backbone),
            "classifier": {"flip_test": flip_test},
            "data": {"name": "mine", "protocol": "official", "root": "/home/somewhere", "val_fraction": 0.0},
            "trainer": {"accelerator": "cpu", "precision": "32-true"},
            "seed": 0,
        },
        classes=tuple(classes),
        fingerprint="0123456789abcdef",
        trained_on=np.array([1, 2**64 - 1], np.uint64),
        selected_on=nothing,
        selected_by="last",
        epoch=4,
        score=None,
        precision="32-true",
        channels_last=False,
    )
    return Network(Path("runs/mine/last.ckpt"), classifier.eval(), metadata, Calibration(temperature, 0.6))


def some_images(num=70, *, channels=1, height=16, width=16):
    return np.random.default_rng(0).integers(0, 256, (num, channels, height, width), dtype=np.uint8)


@pytest.fixture
def on_random_images(monkeypatch):
    """Let exports be verified on random images."""

    def load(network, root, **_):
        model = network.metadata.config["model"]
        side = model["image_size"]
        images = some_images(channels=model["in_channels"], height=side, width=side)
        return ExportImages(images, "70 random images", None)

    monkeypatch.setattr(exporting, "load_images", load)


@pytest.mark.parametrize("family", slow_except(set(FAMILIES) - {"resnet-34"}, FAMILIES))
def test_onnx_of_every_family_agrees_at_every_batch(family, tmp_path, on_random_images):
    network = make_network(family)
    done = export(network, "onnx", tmp_path / "out")
    assert done.verification.differences.keys() == {1, 2, 5, 64}
    assert done.verification.largest < 1e-4
    assert done.verification.same_answers == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.onnx", CARD}
    again = OnnxNetwork(tmp_path / "out/model.onnx")
    graph = onnx.load(tmp_path / "out/model.onnx").graph
    shapes = [value.type.tensor_type.shape for value in (*graph.input, *graph.output)]
    assert [shape.dim[0].dim_param for shape in shapes] == ["N", "N"]
    images = some_images(67)
    expected = reference(network, images)
    assert expected.std(axis=0).max() > 0.02  # answers that are all alike would agree, too
    for size in (1, 2, 5, 64, 67):
        assert again(images[:size]) == pytest.approx(expected[:size], abs=1e-4)
    with torch.inference_mode():
        raw = network.classifier(torch.from_numpy(images)).softmax(dim=1).numpy()
    assert again.uncalibrated(images) == pytest.approx(raw, abs=1e-4)
    assert np.abs(raw - expected).max() > 0.02  # the temperature is part of the graph


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_of_the_graph_are_those_of_pillow(channels):
    """But for one grey level: both round twice. Pillow 13 scales some tall images in height first."""
    model = build_preprocessing(ProbabilityNetwork(make_network("mlp", channels=channels)))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for height, width in ((16, 16), (5, 40), (31, 60), (64, 64), (100, 200)):
        (image,) = some_images(1, channels=3, height=height, width=width)
        square = to_square(Image.fromarray(image.transpose(1, 2, 0)), size=16, channels=channels)
        (sized,) = session.run(["sized"], {"images": image[None]})
        found = sized[0, 0] if channels == 1 else sized[0].transpose(1, 2, 0)
        assert np.abs(found.astype(int) - square.astype(int)).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_faces_of_any_size_are_resized_as_pillow_does(channels, form, tmp_path, on_random_images):
    network = make_network("cnn", channels=channels)
    export(network, form, tmp_path / "out")
    if form == "onnx":
        run = OnnxNetwork(tmp_path / "out/model.onnx")
    else:
        loaded = torch.export.load(tmp_path / "out/model.pt2").module()

        def run(images):
            with torch.inference_mode():
                return loaded(torch.from_numpy(images)).numpy()

    for height, width in ((5, 40), (16, 16), (60, 31), (200, 100)):
        images = some_images(3, channels=channels, height=height, width=width)
        photos = [
            Image.fromarray(image[0] if channels == 1 else image.transpose(1, 2, 0)) for image in images
        ]
        squares = np.stack([to_square(photo, size=16, channels=channels) for photo in photos])
        squares = squares[:, None] if channels == 1 else np.ascontiguousarray(squares.transpose(0, 3, 1, 2))
        assert run(images) == pytest.approx(reference(network, squares), abs=0.01)


def test_onnx_takes_grey_and_colour_for_either_network(tmp_path, on_random_images):
    colour = some_images(4, channels=3, height=20, width=30)
    photos = [Image.fromarray(image.transpose(1, 2, 0)) for image in colour]
    for channels in (1, 3):
        network = make_network("mlp", channels=channels)
        export(network, "onnx", tmp_path / str(channels))
        run = OnnxNetwork(tmp_path / str(channels) / "model.onnx")
        mode = "L" if channels == 1 else "RGB"
        squares = np.stack([to_square(photo, size=16, channels=channels) for photo in photos])
        squares = squares[:, None] if mode == "L" else np.ascontiguousarray(squares.transpose(0, 3, 1, 2))
        assert run(colour) == pytest.approx(reference(network, squares), abs=0.01)
        grey = np.stack([np.asarray(photo.convert("L")) for photo in photos])[:, None]
        assert run(grey) == pytest.approx(run(np.repeat(grey, 3, axis=1)), abs=1e-6)


def test_metadata_hold_what_the_next_program_needs_and_no_path(tmp_path, on_random_images):
    network = make_network("mlp")
    export(network, "onnx", tmp_path / "out")
    properties = {one.key: one.value for one in onnx.load(tmp_path / "out/model.onnx").metadata_props}
    assert tuple(json.loads(properties["classes"])) == EXPRESSIONS
    described = json.loads(properties["fer_lightning"])
    assert described["image"]["size"] == 16
    assert described["image"]["mean"] == pytest.approx(0.4)
    assert described["calibration"] == {"temperature": 1.7, "threshold": 0.6}
    assert described["checkpoint"]["fingerprint"] == "0123456789abcdef"
    assert described["checkpoint"]["epoch"] == 4
    assert described["training_images"]["trained_on"] == 2
    assert "commit" in described["exported"]["git"]
    assert "/home/somewhere" not in properties["fer_lightning"]
    read = OnnxNetwork(tmp_path / "out/model.onnx")
    assert read.metadata.classes == EXPRESSIONS
    assert read.calibration == network.calibration


def test_card_says_what_is_known_and_invents_nothing(tmp_path, on_random_images):
    export(make_network("mlp"), "onnx", tmp_path / "out")
    card = (tmp_path / "out" / CARD).read_text()
    assert card.startswith("---\nlibrary_name: fer_lightning\n")
    assert "license:" not in card
    assert "Not known: there are no results of a finished run" in card
    assert "The command that trained it is not known" in card
    assert "Verified on 70 random images" in card
    assert "at batch 64" in card
    assert "Do not use it to judge persons" in card
    assert "mine (fingerprint `0123456789abcdef`), protocol official" in card


def test_file_that_answers_otherwise_is_not_written(tmp_path, on_random_images, monkeypatch):
    network = make_network("mlp")
    right = verifying.reference
    monkeypatch.setattr(verifying, "reference", lambda *given: right(*given) + 2e-4)
    for form in ("onnx", "torch-export"):
        with pytest.raises(
            FERError, match="differ from the network's by up to 0.0002, expected at most 0.0001"
        ):
            export(network, form, tmp_path / "out")
        assert not list(tmp_path.iterdir())


def test_network_that_answers_nan_is_not_exported(tmp_path, on_random_images):
    network = make_network("mlp")
    with torch.no_grad():
        network.classifier.backbone.head.weight.fill_(float("nan"))
    with pytest.raises(FERError, match="the network answers NaN"):
        export(network, "onnx", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_folder_with_other_files_is_refused_and_an_export_replaced(tmp_path, on_random_images):
    network, out = make_network("mlp"), tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(FERError, match=r"holds files that are not of such an export \(notes.txt\)"):
        export(network, "onnx", out)
    (out / "notes.txt").rename(out / CARD)  # a name of ours, and not our file
    with pytest.raises(FERError, match=r"not of such an export \(README.md\)"):
        export(network, "onnx", out)
    (out / CARD).unlink()
    export(network, "onnx", out)
    before = (out / "model.onnx").read_bytes()
    export(make_network("rnn"), "onnx", out)
    assert (out / "model.onnx").read_bytes() != before
    with pytest.raises(FERError, match="model.onnx"):
        export(network, "safetensors", out)
    (tmp_path / "file").write_text("")
    with pytest.raises(FERError, match="a file, expected a folder"):
        export(network, "onnx", tmp_path / "file")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "file"}


@pytest.mark.parametrize("channels", [1, 3])
def test_folder_for_the_hub_loads_by_the_mixin(channels, tmp_path, on_random_images):
    from fer_lightning.inference.hub import HubNetwork

    network = make_network("cnn", channels=channels)
    done = export(network, "safetensors", tmp_path / "out")
    assert done.verification.largest < 1e-6
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.safetensors", "config.json", CARD}
    again = HubNetwork.from_pretrained(tmp_path / "out")
    assert again.classes == EXPRESSIONS
    assert not again.training
    images = some_images(5, channels=channels)
    with torch.inference_mode():
        found = again(torch.from_numpy(images)).numpy()
    assert found == pytest.approx(reference(network, images), abs=1e-6)
    assert "backbone.head.weight" in load_file(tmp_path / "out/model.safetensors")
    loaded = load_network(tmp_path / "out")  # as predict --checkpoint does
    assert loaded.calibration == network.calibration
    with pytest.raises(FERError, match="fer-lightning export --format safetensors"):
        again.save_pretrained(tmp_path / "other")


def test_missing_package_is_a_sentence(tmp_path, on_random_images, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(FERError, match="onnx is not installed; pip install onnx onnxruntime"):
        export(make_network(), "onnx", tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("channels", [1, 3])
def test_a_predictor_of_an_onnx_file_finds_what_its_network_finds(channels, tmp_path, on_random_images):
    network = make_network(channels=channels)
    export(network, "onnx", tmp_path / "out")
    (photo,) = some_images(1, channels=3, height=40, width=50).transpose(0, 2, 3, 1)
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("image,x,y,width,height\n0,3,4,20,20\n0,20,10,25,28\n")
    faces = FERPredictor.load(tmp_path / "out", boxes=boxes, device="cpu")(photo)
    expected = FERPredictor(network, detector=BoxFile(boxes), device="cpu")(photo)
    assert [(face.box, face.expression, face.flags) for face in faces] == [
        (face.box, face.expression, face.flags) for face in expected
    ]
    for face, other in zip(faces, expected, strict=True):
        assert list(face.probs.values()) == pytest.approx(list(other.probs.values()), abs=1e-5)
    assert len(faces) == 2


def test_an_onnx_file_predicts_on_the_cpu_and_cannot_be_explained(tmp_path, on_random_images):
    export(make_network(), "onnx", tmp_path / "out")
    path = tmp_path / "out/model.onnx"
    with pytest.raises(
        FERError, match=r"device=cuda: .*model\.onnx predicts on the CPU; expected auto or cpu"
    ):
        FERPredictor.load(path, detector="none", device="cuda")
    predictor = FERPredictor.load(path, detector="none")
    for method in ("grad-cam", "occlusion", None):
        with pytest.raises(FERError, match=r"model\.onnx: an ONNX file gives nothing but probabilities"):
            predictor.explain(some_images(1)[0, 0], method=method)
