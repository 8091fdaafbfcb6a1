import json

import numpy as np
import pytest
import torch
from PIL import Image

from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.data.synthetic.source import SyntheticFaces
from fer_lightning.inference.predictor import FERPredictor
from tests.commands import TINY, run, sentence, succeed

PREDICT = ("-m", "fer_lightning.predict", "--detector", "none")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def place(cache, tmp_path_factory):
    """A folder with a finished run in outputs/ and a few pictures."""
    cwd = tmp_path_factory.mktemp("cwd")
    succeed("train.py", "model=mlp", *TINY, "trainer.max_epochs=2", "logger=none", cwd=cwd, cache=cache)
    faces = SyntheticFaces(
        classes=EXPRESSIONS, num_train=140, num_val=35, num_test=42, class_balance="uniform"
    )
    record = next(record for record in faces.records() if record.split == "test")
    face = Image.fromarray(record.pixels())
    face.save(cwd / "face.png")
    face.convert("RGB").resize((96, 96)).save(cwd / "large colour.jpg")
    (cwd / "not a picture.png").write_text("hello")
    (cwd / "id").write_text(record.id)
    return cwd


def test_a_face_gets_the_probabilities_that_evaluation_gave_it(place, cache):
    (folder,) = place.glob("outputs/*/*")
    done = succeed(*PREDICT, "face.png", "--json", "--checkpoint", folder, cwd=place, cache=cache)
    (predicted,) = json.loads(done.stdout)["predictions"]
    with np.load(folder / "predictions_test.npz") as file:
        probs = file["probs"][file["ids"] == (place / "id").read_text()][0]
    assert list(predicted["probs"]) == list(EXPRESSIONS)
    # evaluation may have run in bf16, which keeps two to three digits
    assert list(predicted["probs"].values()) == pytest.approx(probs.tolist(), abs=0.02)
    assert sum(predicted["probs"].values()) == pytest.approx(1, abs=1e-5)


def test_several_pictures_of_any_size_and_colour_give_a_table(place, cache):
    (folder,) = place.glob("outputs/*/*")
    done = succeed(
        *PREDICT,
        "face.png",
        "large colour.jpg",
        "--checkpoint",
        folder,
        cwd=place,
        cache=cache,
    )
    assert "best.ckpt:" in done.stdout
    assert "large colour.jpg" in done.stdout
    assert "surprise" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("not a picture.png",), "not a picture.png: not an image"),
        (("missing.png",), "missing.png: No such file"),
        (("face.png", "--checkpoint", "face.png"), "face.png"),
    ],
)
def test_user_error_is_printed_as_one_sentence(place, cache, arguments, message):
    done = run(*PREDICT, *arguments, cwd=place, cache=cache)
    assert message in sentence(done)


def test_newest_run_is_not_the_default(place, cache):
    done = succeed(*PREDICT, "face.png", "--json", cwd=place, cache=cache)
    assert json.loads(done.stdout)["checkpoint"].endswith("weights/resnet15.safetensors")


def test_unreadable_images_are_named_and_the_others_predicted(place, cache):
    done = run(*PREDICT, "missing.png", "face.png", "not a picture.png", "--json", cwd=place, cache=cache)
    assert "missing.png: No such file or directory; not a picture.png: not an image" in sentence(done)
    printed = json.loads(done.stdout)
    assert [row["image"] for row in printed["predictions"]] == ["face.png"]
    assert [row["image"] for row in printed["unreadable"]] == ["missing.png", "not a picture.png"]


def test_a_network_for_colour_sees_colours(make_checkpoint, tmp_path):
    checkpoint, module = make_checkpoint(channels=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "face.png")
    (found,) = FERPredictor.load(checkpoint, detector="none")(tmp_path / "face.png")
    with torch.inference_mode():
        expected = module(torch.from_numpy(pixels).permute(2, 0, 1)[None]).softmax(dim=1)[0]
    assert list(found.probs.values()) == pytest.approx(expected.tolist(), abs=1e-6)


def test_weights_that_are_no_numbers_predict_nothing(place, cache, tmp_path):
    (folder,) = place.glob("outputs/*/*")
    content = torch.load(folder / "best.ckpt", weights_only=True)
    content["state_dict"]["backbone.head.bias"].fill_(float("nan"))
    torch.save(content, tmp_path / "nan.ckpt")
    done = run(
        *(*PREDICT, "face.png", "--json", "--checkpoint", tmp_path / "nan.ckpt"),
        cwd=place,
        cache=cache,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "nan.ckpt: the network answers NaN" in sentence(done)


def test_blank_image_is_named(place, cache):
    Image.new("L", (48, 48), 90).save(place / "blank.png")
    done = succeed(*PREDICT, "blank.png", "face.png", cwd=place, cache=cache)
    assert "blank.png: blank, all its pixels are equal" in done.stderr
    assert "face.png: blank" not in done.stderr


def test_many_images_are_predicted_in_batches(place, monkeypatch):
    (folder,) = place.glob("outputs/*/*")
    images = [place / "face.png", place / "large colour.jpg"] * 4
    predictor = FERPredictor.load(folder, detector="none")
    at_once = predictor(images)
    assert [face.image for face in at_once] == [str(path) for path in images]
    monkeypatch.setattr("fer_lightning.inference.predictor.BATCH_SIZE", 3)
    for one, other in zip(at_once, predictor(images), strict=True):
        assert list(one.probs.values()) == pytest.approx(list(other.probs.values()), abs=1e-6)
