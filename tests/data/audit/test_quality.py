import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from fer_lightning.data.audit.quality import (
    FER2013_MEDIANS,
    Level,
    find_constant,
    judge_fer2013,
    judge_splits,
    measure_quality,
    summarise_quality,
)


def noise(n, *, size=24, seed=0, sd=40.0):
    """Make images of blobs and grain that differ in brightness, contrast and sharpness."""
    random = np.random.default_rng(seed)
    blobs = random.normal(size=(n, size // 4, size // 4)).repeat(4, 1).repeat(4, 2)
    grain = random.normal(size=(n, size, size)) * random.uniform(0.1, 0.5, (n, 1, 1))
    images = random.normal(128, 12, (n, 1, 1)) + sd * (blobs + grain)
    return images.clip(0, 255).astype(np.uint8)


def altered(images, change):
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in images])


def levels(**splits):
    empty = np.zeros((0, 24, 24), np.uint8)
    return {
        split: summarise_quality(measure_quality(splits.get(split, empty)))
        for split in ("train", "val", "test")
    }


def test_images_of_one_grey_level_are_constant(make_faces):
    faces = make_faces(
        ("train", 0, 0), ("train", 1, 77), ("test", 0, 255)
    )  # the image of level 77 has one pixel of level 255
    assert find_constant(faces).tolist() == [True, False, True]


def test_figures_have_their_textbook_values():
    image = np.zeros((1, 4, 4), np.uint8)
    image[0, 1, 1] = 100  # the four inner Laplacians are -400, 100, 100 and 0
    sharpness, brightness, contrast = measure_quality(image)[:, 0]
    assert sharpness == pytest.approx(np.var([-400, 100, 100, 0]))
    assert brightness == pytest.approx(100 / 16)
    assert contrast == pytest.approx(image.std())


def test_images_too_small_for_a_laplacian_have_no_sharpness():
    measured = measure_quality(np.full((3, 2, 2), 7, np.uint8))
    assert measured.tolist() == [[0] * 3, [7] * 3, [0] * 3]


def test_every_image_of_every_chunk_is_measured(monkeypatch):
    images = noise(30)
    whole = measure_quality(images)
    monkeypatch.setattr("fer_lightning.data.decode._CHUNK_PIXELS", 7 * 24 * 24)
    assert np.array_equal(measure_quality(images), whole)


def test_noise_of_a_median_is_five_standard_errors():
    random = np.random.default_rng(0)
    medians = [np.median(random.normal(100, 15, 400)) for _ in range(2000)]
    noise = summarise_quality(random.normal(100, 15, (3, 400)).astype(np.float32))["sharpness"].noise
    assert noise == pytest.approx(5 * np.std(medians) / 100, rel=0.15)


def test_splits_of_one_origin_give_no_warning():
    for seed in range(5):
        parts = {
            split: noise(n, seed=10 * seed + n) for split, n in (("train", 900), ("val", 120), ("test", 120))
        }
        assert judge_splits(levels(**parts)) == []


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda image: image.filter(ImageFilter.GaussianBlur(1)), "blurred, compressed again, or scaled"),
        (
            lambda image: image.resize((112, 112), Image.Resampling.BILINEAR).resize((24, 24)),
            "blurred, compressed again, or scaled",
        ),
        (ImageOps.equalize, "equalised or stretched in contrast"),
        (ImageOps.autocontrast, "equalised or stretched in contrast"),
        (lambda image: image.filter(ImageFilter.SHARPEN), "sharpened or noisy"),
        (lambda image: image.point(lambda level: level // 2 + 64), "flattened in contrast"),
        (lambda image: image.point(lambda level: min(level + 60, 255)), "brightened"),
        (lambda image: image.point(lambda level: max(level - 60, 0)), "darkened"),
    ],
)
def test_altered_training_split_gives_a_warning_with_its_cause(change, cause):
    warnings = judge_splits(
        levels(train=altered(noise(600), change), val=noise(300, seed=1), test=noise(300, seed=2))
    )
    assert len(warnings) == 2
    assert warnings[0].startswith("train images differ from test images: median ")
    assert warnings[1].startswith("train images differ from val images: median ")
    assert f"Compared with test, train looks {cause}" in warnings[0]
    assert "Prepare all splits in the same way" in warnings[0]


def test_warning_names_only_the_figures_that_differ():
    clean, blurred = Level(2000.0, 0.0), Level(150.0, 0.0)
    same = {"brightness": Level(128.0, 0.0), "contrast": Level(50.0, 0.0)}
    warnings = judge_splits(
        {"train": {"sharpness": blurred, **same}, "val": {}, "test": {"sharpness": clean, **same}}
    )
    assert len(warnings) == 1
    assert "median sharpness 150.0 vs. 2000.0 (-92 %)." in warnings[0]
    assert "brightness" not in warnings[0]


def test_small_splits_are_not_judged():
    blurred = altered(noise(90), lambda image: image.filter(ImageFilter.GaussianBlur(2)))
    assert judge_splits(levels(train=blurred, test=noise(300))) == []


def test_blank_splits_do_not_divide_by_zero():
    blank = np.zeros((200, 24, 24), np.uint8)
    assert judge_splits(levels(train=blank, test=blank)) == []


def fer2013(**factors):
    """Return the medians of FER-2013, each figure multiplied by a factor."""
    return {
        split: {figure: Level(value * factors.get(figure, 1), 0.02) for figure, value in medians.items()}
        for split, medians in FER2013_MEDIANS.items()
    }


def test_fer2013_as_published_gives_no_warning():
    assert judge_fer2013(fer2013()) == []
    assert judge_fer2013(fer2013(sharpness=1.04)) == []  # within noise and bound


def test_fer2013_altered_in_every_split_gives_warnings():
    warnings = judge_fer2013(fer2013(sharpness=0.55))
    assert [sentence.split()[0] for sentence in warnings] == ["train", "val", "test"]
    assert "median sharpness 1111.5 vs. 2021.0 (-45 %)" in warnings[0]
    assert "They look blurred, compressed again, or scaled up or down and back" in warnings[0]


@pytest.mark.parametrize(
    ("factors", "cause"),
    [
        ({"sharpness": 0.251, "contrast": 0.5, "brightness": 0.992}, "flattened in contrast"),  # // 2 + 64
        ({"sharpness": 0.073, "contrast": 0.904, "brightness": 0.996}, "blurred"),  # by 1 pixel
        ({"sharpness": 2.31, "contrast": 1.377, "brightness": 0.981}, "equalised"),
        ({"sharpness": 0.277, "contrast": 0.952}, "blurred"),  # 224 pixels and back, bilinear
        ({"sharpness": 3.616, "contrast": 1.112, "brightness": 1.002}, "sharpened"),
        ({"sharpness": 0.8, "contrast": 0.868, "brightness": 1.271}, "brightened"),  # gamma 0.6
    ],
)
def test_cause_separates_sharpness_from_contrast(factors, cause):
    assert f"They look {cause}" in judge_fer2013(fer2013(**factors))[0]


def test_an_empty_split_of_fer2013_is_not_judged():
    assert judge_fer2013(fer2013() | {"val": {}}) == []
