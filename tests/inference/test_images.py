import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.inference.images import load_photo, named_images

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)
COLOUR = np.arange(144, dtype=np.uint8).reshape(6, 8, 3)


def loaded(images, channels=3):
    return [np.asarray(load_photo(photo, channels=channels)) for _, photo in named_images(images)]


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (COLOUR, [COLOUR]),
        (COLOUR / np.float32(255), [COLOUR]),
        (GREY, [GREY[..., None].repeat(3, axis=2)]),
        (np.full((6, 8), 0.998), [np.full((6, 8, 3), 254)]),  # 254.49
        (np.full((6, 8), 0.999), [np.full((6, 8, 3), 255)]),  # 254.745
        (GREY[..., None], [GREY[..., None].repeat(3, axis=2)]),
        (np.stack([COLOUR, COLOUR // 2]), [COLOUR, COLOUR // 2]),
        (np.stack([GREY] * 4), [GREY[..., None].repeat(3, axis=2)] * 4),
        (torch.from_numpy(COLOUR).permute(2, 0, 1), [COLOUR]),
        (torch.from_numpy(COLOUR).permute(2, 0, 1)[None] / 255, [COLOUR]),
        (torch.from_numpy(GREY), [GREY[..., None].repeat(3, axis=2)]),
        ([COLOUR, Image.fromarray(COLOUR)], [COLOUR, COLOUR]),
        ([torch.from_numpy(GREY)[None]], [GREY[..., None].repeat(3, axis=2)]),
        ([], []),
    ],
)
def test_every_kind_of_image_gives_its_pixels(images, expected):
    found = loaded(images)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one == other).all()


def test_files_are_named_by_their_path_and_others_by_number(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    found = list(named_images([tmp_path / "a.png", str(tmp_path / "a.png"), content, COLOUR]))
    assert [name for name, _ in found] == [str(tmp_path / "a.png")] * 2 + ["2", "3"]
    assert all((np.asarray(load_photo(photo, channels=3)) == COLOUR).all() for _, photo in found)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(orientation):
    upright = Image.fromarray(COLOUR)
    # How the sensor has it: the inverse of what EXIF says is to be done.
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright.transpose(Image.Transpose(turns[orientation])) if orientation > 1 else upright
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    stored.save(file, "PNG", exif=exif)
    assert (np.asarray(load_photo(file.getvalue(), channels=3)) == COLOUR).all()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (5, "images: int, expected paths"),
        ([5], "images: int, expected paths"),
        (COLOUR.astype(np.float32), "images: floats from 0 to 143, expected [0, 1]"),
        (np.full((4, 4), np.nan), "images: floats from nan to nan"),
        (COLOUR.astype(np.int64), "images: int64, expected uint8"),
        (np.zeros((0, 8), np.uint8), "an image without pixels"),
        (np.zeros((2, 3, 4, 5), np.uint8), "images: an array (2, 3, 4, 5)"),
        (torch.zeros(8, 6, 3), "images: a tensor (8, 6, 3), expected (H, W), (C, H, W)"),
        ([np.zeros((2, 6, 8, 3), np.uint8)], "a list that holds a ndarray of several"),
    ],
)
def test_other_input_is_refused_with_what_was_expected(images, message):
    with pytest.raises(FERError) as caught:
        loaded(images)
    assert message in str(caught.value)


def test_missing_file_is_reported_when_it_is_loaded():
    ((name, photo),) = named_images(Path("nowhere.png"))
    assert name == "nowhere.png"
    with pytest.raises(FERError, match="No such file"):
        load_photo(photo, channels=3)
