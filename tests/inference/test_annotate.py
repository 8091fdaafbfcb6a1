import numpy as np
import pytest
from PIL import Image

from fer_lightning.inference.annotate import annotate
from fer_lightning.inference.results import Box, Face, FaceList

ORANGE = (255, 176, 0)


def face(box, flags=()):
    return Face("a", box, 0.9, "happy", {"happy": 0.75, "sad": 0.25}, flags)


def test_box_and_label_are_drawn_and_the_photograph_is_kept():
    photo = Image.new("RGB", (600, 400), "white")
    drawn = annotate(photo, FaceList([face(Box(200, 150, 120, 160))]))
    assert np.asarray(photo).min() == 255
    assert drawn.size == (600, 400)
    pixels = np.asarray(drawn)
    assert tuple(pixels[309, 250]) == tuple(pixels[200, 200]) == ORANGE
    assert (pixels[160:300, 210:310] == 255).all()  # the face itself
    assert (pixels[:150, 200:320] != 255).any(axis=-1).sum() > 120 * 10  # the label above it
    assert (pixels[:, :190] == 255).all()


def test_length_of_the_bar_is_the_probability():
    drawn = np.asarray(annotate(Image.new("RGB", (600, 400)), FaceList([face(Box(200, 150, 200, 160))])))
    blue, pale = (
        (drawn == colour).all(axis=-1).any(axis=0).sum() for colour in ((0, 92, 175), (255, 236, 190))
    )
    assert blue / (blue + pale) == pytest.approx(0.75, abs=0.02)


def test_unsure_expression_looks_different():
    photo = Image.new("RGB", (600, 400))
    one, other = (annotate(photo, FaceList([face(Box(200, 150, 120, 160), f)])) for f in ((), ("unsure",)))
    assert one != other


@pytest.mark.parametrize("box", [None, Box(-30, -30, 300, 300), Box(0, 0, 2, 2), Box(60, 60, 500, 5)])
@pytest.mark.parametrize("size", [(48, 48), (1, 1), (5000, 20)])
def test_any_box_in_any_image_can_be_drawn(size, box):
    drawn = annotate(Image.new("L", size), FaceList([face(box)]))
    assert drawn.mode == "RGB"
    assert max(drawn.size) >= 360
