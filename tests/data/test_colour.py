"""Colour images from the file to the batch: decoding, cache, statistics, augmentation, audit."""

from functools import partial
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.data.audit.facts import audit_data
from fer_lightning.data.audit.quality import find_constant, measure_quality
from fer_lightning.data.augment import Augment
from fer_lightning.data.cache import load_faces
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.decode import convert, decode, to_grey_levels
from fer_lightning.data.faces import pixel_digest
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.data.loader import BatchLoader
from fer_lightning.data.readers.fer2013 import open_fer2013
from fer_lightning.data.readers.image_folder import ImageFolder
from fer_lightning.data.synthetic.source import SyntheticFaces

RED = (200, 30, 10)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def load(source, folder):
    return load_faces(source, cache_dir=folder / "cache", log=lambda _: None)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_colours_are_kept(mode):
    image = Image.new("RGB", (8, 8), RED).convert(mode, palette=Image.Palette.ADAPTIVE)
    assert convert(image, 3).mode == "RGB"
    assert np.asarray(convert(image, 3))[0, 0].tolist() == pytest.approx(RED, abs=1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_levels_are_repeated(dtype):
    grey = noise(8, 8)
    image = Image.fromarray(grey.astype(dtype) * (257 if dtype == np.uint16 else 1))
    assert np.array_equal(np.asarray(convert(image, 3)), np.repeat(grey[..., None], 3, axis=2))


def test_transparent_parts_become_white_in_colour():
    image = Image.new("RGBA", (8, 8), (*RED, 0))
    assert np.asarray(convert(image, 3))[0, 0].tolist() == [255, 255, 255]


def test_a_decoded_colour_image_has_three_channels_last():
    pixels, file = noise(12, 12, 3), BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    assert np.array_equal(decode(file.getvalue(), size=12, exact=True, channels=3), pixels)
    assert decode(file.getvalue(), size=8, exact=False, channels=3).shape == (8, 8, 3)


def test_grey_levels_are_those_of_pillow():
    pixels = noise(4, 16, 16, 3)
    expected = [np.asarray(Image.fromarray(image).convert("L")) for image in pixels]
    assert np.array_equal(to_grey_levels(pixels), np.stack(expected))
    assert to_grey_levels(pixels[..., 0]) is not None
    assert np.array_equal(to_grey_levels(pixels[..., 0]), pixels[..., 0])


def test_repeated_grey_has_the_digest_of_grey():
    grey = noise(6, 6)
    colour = np.repeat(grey[..., None], 3, axis=2)
    assert pixel_digest(colour) == pixel_digest(grey)
    colour[0, 0, 1] ^= 1
    assert pixel_digest(colour) != pixel_digest(grey)


@pytest.mark.parametrize("form", ["csv", "zip", "folder"])
def test_fer2013_in_colour_repeats_the_grey_levels(forms, form, tmp_path):
    open_it = partial(open_fer2013, root=getattr(forms, form)(), classes=EXPRESSIONS)
    grey, colour = load(open_it(), tmp_path), load(open_it(channels=3), tmp_path)
    assert np.array_equal(colour.images, np.repeat(grey.images[..., None], 3, axis=3))
    assert colour.fingerprint == grey.fingerprint
    assert np.array_equal(colour.hashes, grey.hashes)


def test_an_image_folder_keeps_its_colours_in_the_cache(tmp_path):
    for name, colour in (("happy", RED), ("sad", (10, 30, 200))):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(8):
            shade = (*colour[:2], colour[2] + number)
            Image.new("RGB", (9, 9), shade).save(tmp_path / f"images/{name}/{number}.png")
    make = partial(ImageFolder, root=tmp_path / "images", classes=["happy", "sad"], image_size=6)
    make = partial(make, val_ratio=0, test_ratio=0)  # as grey levels, all images of a class are the same
    for _ in range(2):  # decoded, then from the cache
        faces = load(make(channels=3), tmp_path)
        assert faces.images.shape == (16, 6, 6, 3)
        happy = faces.images[faces.labels == 0]
        assert (happy[..., 0] == 200).all()
    assert load(make(), tmp_path).images.shape == (16, 6, 6)
    assert find_constant(faces).all()


def test_synthetic_faces_are_tinted_and_keep_their_luma():
    make = partial(SyntheticFaces, classes=EXPRESSIONS, num_train=7)
    grey, colour = next(make().records()).pixels(), next(make(channels=3).records()).pixels()
    assert colour.shape == (48, 48, 3)
    assert (colour[..., 0].astype(int) >= colour[..., 2]).all()
    dark = grey < 220  # lighter tones are cut off
    assert np.abs(to_grey_levels(colour[None])[0].astype(int) - grey)[dark].max() <= 2


@pytest.fixture
def data(make_data):
    data = make_data(channels=3)
    data.setup()
    return data


def test_batches_have_three_channels(data):
    for batch in data.train_dataloader():
        assert batch.images.shape[1:] == (3, 16, 16)
        expected = data.faces.images[batch.rows.numpy()]
        assert np.array_equal(batch.images.permute(0, 2, 3, 1).numpy(), expected)
    assert data.images_of(data.faces.ids[:4]).shape == (4, 16, 16, 3)


def test_mapped_colour_images_give_the_same_batches(make_data, data):
    mapped = make_data(channels=3, in_memory_gb=0)
    mapped.setup()
    for one, other in zip(data.train_dataloader(), mapped.train_dataloader(), strict=True):
        assert torch.equal(one.images, other.images)


def test_a_loader_takes_colour_images_of_any_memory_format():
    images = torch.from_numpy(noise(5, 3, 4, 4))
    rows = torch.tensor([3, 1, 4])
    for stored in (images, images.contiguous(memory_format=torch.channels_last)):
        loader = BatchLoader(stored, torch.arange(5), rows, batch_size=3, shuffle=False, seed=0)
        assert torch.equal(next(iter(loader)).images, images[rows])


def test_pixel_statistics_are_those_of_each_channel(data):
    pixels = data.faces.images[data.rows["train"]] / 255
    mean, std = data.pixel_statistics()
    assert mean == pytest.approx(pixels.mean(axis=(0, 1, 2)), abs=1e-12)
    assert std == pytest.approx(pixels.std(axis=(0, 1, 2)), abs=1e-12)


@pytest.mark.parametrize("name", ["flip", "shift", "rotate", "scale", "contrast", "brightness", "erase"])
def test_augmentation_changes_all_channels_alike(name):
    grey = torch.from_numpy(noise(8, 1, 16, 16))
    value = {"rotate": 15, "flip": 0.5, "erase": 1.0}.get(name, 0.2)
    augment = Augment(**{name: value})
    alone = augment(grey, torch.Generator().manual_seed(1))
    together = augment(grey.expand(-1, 3, -1, -1), torch.Generator().manual_seed(1))
    assert together.shape == (8, 3, 16, 16)
    torch.testing.assert_close(together, alone.expand(-1, 3, -1, -1), rtol=0, atol=1e-3)


def test_contrast_scales_differences_to_the_mean_of_all_channels():
    images = torch.tensor((150, 100, 50), dtype=torch.uint8).view(1, 3, 1, 1).expand(4, 3, 8, 8)
    changed = Augment(contrast=0.2)(images, torch.Generator().manual_seed(0))
    torch.testing.assert_close(changed[:, 1], images[:, 1].float())
    torch.testing.assert_close(changed[:, 0] - 100, 100 - changed[:, 2])
    assert not torch.equal(changed[:, 0], images[:, 0].float())


def test_erased_parts_have_the_mean_colour():
    images = torch.tensor(RED, dtype=torch.uint8).view(1, 3, 1, 1).expand(4, 3, 16, 16)
    changed = Augment(erase=1.0)(images, torch.Generator().manual_seed(0))
    torch.testing.assert_close(changed, images.float())


def test_quality_of_colours_is_that_of_their_grey_levels():
    pixels = noise(5, 16, 16, 3)
    assert np.array_equal(measure_quality(pixels), measure_quality(to_grey_levels(pixels)))


def test_an_audit_in_colour_finds_what_it_finds_in_grey(forms, tmp_path):
    mirror_image = forms.faces[0][3][:, ::-1].copy()
    forms.faces.append(("PrivateTest", "sad", "PrivateTest_9.jpg", mirror_image))
    open_it = partial(open_fer2013, root=forms.csv(), classes=EXPRESSIONS)
    grey, colour = (
        audit_data(load(open_it(channels=channels), tmp_path), name="fer2013") for channels in (1, 3)
    )
    assert colour == grey
    assert grey["near_duplicates"]["mirrored_pairs"] == 1


def test_an_audit_of_tinted_faces_measures_their_luma(make_data, data):
    audit = audit_data(data.faces, name="synthetic")
    assert audit["image_size"] == 16
    assert audit["constant"]["images"] == 0


@pytest.mark.parametrize("channels", [0, 2, 4, "rgb", True])
def test_other_channels_are_refused(forms, channels):
    with pytest.raises(FERError, match=f"data.channels={channels}: expected 1"):
        FERDataModule(root=forms.csv(), channels=channels)
    with pytest.raises(FERError, match=f"data.channels={channels}: expected 1"):
        ImageFolder(root=forms.root, classes=EXPRESSIONS, image_size=8, channels=channels)
