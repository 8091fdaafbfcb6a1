import numpy as np
import pytest
from PIL import Image

from fer_lightning.data.decode import decode
from fer_lightning.inference.crops import crop_face, flag_face, square_face
from fer_lightning.inference.results import Box


@pytest.fixture
def photo():
    """Grey levels that grow by 1 to the right and by 2 downwards, 60 x 40 pixels."""
    down, across = np.mgrid[:40, :60]
    return Image.fromarray((across + 2 * down).astype(np.uint8))


def test_crop_is_a_square_around_the_box(photo):
    crop = crop_face(photo, Box(20, 10, 8, 16), margin=0)
    assert crop.size == (16, 16)
    assert np.asarray(crop)[0, 0] == 16 + 2 * 10  # from column 16 = 20 + 4 - 8, row 10
    assert crop_face(photo, Box(20, 10, 8, 16), margin=0.25).size == (24, 24)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_crop_beyond_the_image_repeats_its_border(photo, mode):
    crop = np.asarray(crop_face(photo.convert(mode), Box(-4, 30, 20, 20), margin=0).convert("L"))
    assert crop.shape == (20, 20)
    assert (crop[0, :5] == 60).all()  # column 0, row 30
    assert crop[19, 19] == 15 + 2 * 39
    assert np.asarray(crop_face(photo, Box(70, 50, 4, 4), margin=0)).tolist() == [[59 + 2 * 39] * 4] * 4


def test_whole_image_becomes_what_decode_makes_of_its_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "face.png")
    expected = decode((tmp_path / "face.png").read_bytes(), size=48, exact=False)
    whole = Image.fromarray(pixels)
    assert (square_face(whole, None, size=48, channels=1) == expected).all()
    assert (square_face(whole, Box(0, 0, 60, 40), size=48, channels=1, margin=0).shape) == (48, 48)
    assert square_face(whole, None, size=48, channels=3).shape == (48, 48, 3)


def test_flags_name_what_makes_a_face_doubtful():
    noise = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    smooth = np.tile(np.arange(60, 108, dtype=np.uint8), (48, 1))
    assert flag_face(noise, Box(0, 0, 48, 48)) == ()
    assert flag_face(noise, Box(0, 0, 12, 16)) == ("small",)
    assert flag_face(smooth, None) == ("blurred",)
    assert flag_face(noise // 8, None) == ("dark",)
    assert flag_face(smooth // 4, None) == ("blurred", "dark")
    assert flag_face(noise[..., None].repeat(3, axis=2), None) == ()
    assert flag_face(np.full((48, 48), 90, np.uint8), None) == ("blank",)
