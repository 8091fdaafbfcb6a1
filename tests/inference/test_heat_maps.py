import numpy as np
import pytest
from PIL import Image

from fer_lightning.inference.heat_maps import add_explanations, overlay_heat
from fer_lightning.inference.results import Box, Explanation, Face
from tests.slow import slow_except

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))


def explanation(method="grad-cam"):
    face = Face("a.png", Box(10, 10, 80, 80), 0.9, "happy", {"happy": 0.75, "sad": 0.25})
    return Explanation(face, np.zeros((48, 48), np.uint8), np.zeros((48, 48), np.float32), method)


def test_heat_of_zero_leaves_the_grey_face():
    drawn = overlay_heat(PHOTO, np.zeros((6, 6), np.float32))
    assert np.array_equal(np.asarray(drawn), np.asarray(PHOTO.convert("L").convert("RGB")))


def test_most_heat_is_dark_red_with_the_face_below():
    heat = np.zeros((2, 2), np.float32)
    heat[0, 0] = 1
    corner = np.asarray(overlay_heat(Image.new("L", (40, 40), 100), heat))[0, 0]
    assert corner.tolist() == [175, 25, 55]  # a quarter of the grey level 100, three quarters of (200, 0, 40)


def test_tiles_are_below_the_photograph_which_is_unchanged():
    drawn = add_explanations(PHOTO, PHOTO, [explanation()] * 5)
    assert drawn.width == PHOTO.width
    assert np.array_equal(np.asarray(drawn)[:300], np.asarray(PHOTO))
    below = np.asarray(drawn.convert("L"))[300:]
    assert (below < 128).any(axis=1).sum() > 2 * 96  # three rows of tiles
    assert (below[-1] == 255).all()


def test_photograph_narrower_than_a_tile_gets_a_margin():
    narrow = PHOTO.crop((0, 0, 100, 300))
    assert add_explanations(narrow, PHOTO, [explanation()]).width > 2 * 96
    assert add_explanations(narrow, PHOTO, []) is narrow


@pytest.mark.parametrize("num_faces", slow_except([1], [1, 4000]))
def test_any_number_of_faces_fits_into_a_jpeg(num_faces):
    drawn = add_explanations(PHOTO, PHOTO, [explanation("occlusion")] * num_faces)
    assert max(drawn.size) < 65_500
