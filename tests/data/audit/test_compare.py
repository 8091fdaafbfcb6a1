"""What was done to FER-2013 is named: labels, splits, pixels, and which images are there."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from fer_lightning.data.audit.compare import compare_with_published
from fer_lightning.data.audit.differences import PUBLISHED_LEAKS, describe_differences
from fer_lightning.data.audit.published import Published, load_published, structure_codes
from fer_lightning.data.audit.quality import measure_quality
from fer_lightning.data.faces import SPLITS, Faces, pixel_digest, pixel_hash
from fer_lightning.data.labels import EXPRESSIONS

N = 420
NO_LEAKS = dict.fromkeys(PUBLISHED_LEAKS, 0)


def photograph(seed, size=48):
    """Make an image whose power falls with frequency, as that of photographs does."""
    random = np.random.default_rng(seed)
    image = np.zeros((48, 48))
    for side in (3, 6, 12, 24):
        coarse = Image.fromarray(random.integers(0, 256, (side, side)).astype(np.uint8))
        image += np.asarray(coarse.resize((48, 48), Image.Resampling.BICUBIC), float) / side
    image = (image - image.min()) / (image.max() - image.min()) * 220 + 15
    return image.astype(np.uint8)


def hashed(images):
    return np.array([pixel_hash(pixel_digest(image)) for image in images], np.uint64)


@pytest.fixture(scope="module")
def fer2013():
    """Make a small data set in the place of FER-2013; the last 20 images are duplicates."""
    images = np.stack([photograph(seed) for seed in range(N)])
    images[-20:] = images[:20]
    splits = np.repeat(np.arange(3), N // 3).astype(np.uint8)
    labels = np.arange(N) % 7
    ids = np.array([f"{SPLITS[splits[i]]}/{EXPRESSIONS[labels[i]]}/{i}.jpg" for i in range(N)])
    return Faces(images, labels, splits, hashed(images), ids, EXPRESSIONS, "f")


@pytest.fixture(scope="module")
def published(fer2013):
    return Published.of(fer2013)


@pytest.fixture
def warnings(published):
    def run(faces, name="fer2013", leaks=NO_LEAKS):
        compared = compare_with_published(
            faces, published, measure_quality(faces.images), is_fer2013=name == "fer2013"
        )
        return describe_differences(compared, leaks, name=name, image_size=faces.images.shape[1])

    return run


def take(faces, rows, **changes):
    part = {name: getattr(faces, name)[rows] for name in ("images", "labels", "splits", "hashes")}
    ids = np.array([f"{image_id}#{place}" for place, image_id in enumerate(faces.ids[rows])])
    return replace(faces, **part | {"ids": ids} | changes)


def redraw(faces, change, rows=None):
    """Change the pixels of all images, or of some."""
    rows = range(len(faces)) if rows is None else rows
    images = [*faces.images]
    for row in rows:
        images[row] = np.asarray(change(Image.fromarray(images[row])), np.uint8)
    return replace(faces, images=np.stack(images), hashes=hashed(images))


def jpeg(image):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return Image.open(buffer)


def noisy(image):
    noise = np.random.default_rng(0).normal(0, 8, (48, 48))
    return (np.asarray(image, float) + noise).clip(0, 255)


def test_published_data_set_gives_no_sentence_in_any_order(fer2013, warnings):
    assert warnings(fer2013) == []
    assert warnings(take(fer2013, np.random.default_rng(0).permutation(N))) == []


def relabel(faces, *mapping):
    return replace(faces, labels=np.array(mapping)[faces.labels])


LABELS = {
    "angry and fear are swapped": lambda f: relabel(f, 2, 1, 0, 3, 4, 5, 6),
    "angry is labelled disgust, disgust is labelled fear, fear is labelled angry": lambda f: relabel(
        f, 1, 2, 0, 3, 4, 5, 6
    ),
    "they agree no more often than shuffled ones": lambda f: replace(
        f, labels=np.random.default_rng(0).permutation(f.labels)
    ),
    "for 3 images, such as train/angry/0.jpg, ": lambda f: replace(
        f, labels=np.where(np.isin(np.arange(N), [0, 100, 200]), 6, f.labels)
    ),
}


@pytest.mark.parametrize("sentence", LABELS)
def test_other_labels_are_named(fer2013, warnings, sentence):
    faces = LABELS[sentence](fer2013)
    (warning,) = warnings(faces)
    assert warning.startswith("this FER-2013 has other labels than published for ")
    assert sentence in warning
    if (faces.labels != fer2013.labels)[fer2013.splits == 2].any():
        assert "not comparable with published ones; an unaltered copy is msambare/fer2013 of" in warning


def test_swapped_classes_and_other_labels_are_both_named(fer2013, warnings):
    labels = np.array([2, 1, 0, 3, 4, 5, 6])[fer2013.labels]
    labels[[3, 10]] = 1  # happy
    (warning,) = warnings(replace(fer2013, labels=labels))
    assert "angry and fear are swapped, 2 others differ" in warning


SPLIT_CHANGES = {
    "val and test are swapped": [0, 2, 1],
    "train and test are swapped": [2, 1, 0],
    "140 of val in train": [0, 0, 2],
}


@pytest.mark.parametrize("sentence", SPLIT_CHANGES)
def test_other_splits_are_named(fer2013, warnings, sentence):
    moved = np.array(SPLIT_CHANGES[sentence], np.uint8)[fer2013.splits]
    (warning,) = warnings(replace(fer2013, splits=moved))
    assert "in another split than published, such as " in warning
    assert sentence in warning


def test_missing_images_and_classes_are_named(fer2013, warnings):
    (warning,) = warnings(take(fer2013, np.flatnonzero(fer2013.labels != 1)))
    assert "lacks 60 images of the published 420: 20 of train, 20 of val, 20 of test" in warning
    assert "every image of disgust is missing" in warning
    (warning,) = warnings(take(fer2013, np.arange(5, N)))
    assert "lacks 5 images of the published 420: 5 of train" in warning
    assert "The test images are those published, so scores on them are comparable" in warning


def test_added_copies_are_named_by_where_they_come_from(fer2013, warnings):
    faces = take(fer2013, np.concatenate([np.arange(N), np.arange(30, 50), np.arange(60, 63)]))
    splits = faces.splits.copy()
    splits[N : N + 20] = 2
    (warning,) = warnings(replace(faces, splits=splits))
    assert "has 23 added copies, such as train/fear/30.jpg#420" in warning
    assert "20 of train also in test, 3 more of train in the same split" in warning


def test_leaks_above_the_published_ones_are_a_warning(fer2013, warnings):
    leaks = PUBLISHED_LEAKS | {"test_in_train": 1005, "val_near_train": 143}
    assert warnings(fer2013, leaks=PUBLISHED_LEAKS) == []
    assert warnings(fer2013, leaks=leaks) == [
        "more images leak than in the published FER-2013: 1,005 test images have a duplicate in train (288 "
        "as published); 143 val images have a near-duplicate in train (142 as published)"
    ]


def test_swap_and_copies_at_once_are_both_named(fer2013, warnings):
    faces = relabel(take(fer2013, np.concatenate([np.arange(N), np.arange(30, 50)])), 2, 1, 0, 3, 4, 5, 6)
    swapped, copies = warnings(faces)
    assert "angry and fear are swapped" in swapped
    assert "20 added copies" in copies


def test_renamed_classes_are_found_by_their_images(fer2013, warnings):
    classes = ("angry", "disgust", "fear", "joy", "calm", "blue", "surprise")
    (warning,) = warnings(replace(fer2013, classes=classes))
    assert "has classes of other names: calm (published as neutral), blue (published as sad)" in warning
    assert "other labels" not in warning


@pytest.mark.parametrize("rows", [range(N), range(0, N, 5)], ids=["all", "a fifth"])
def test_mirrored_images_are_named(fer2013, warnings, rows):
    (warning,) = warnings(redraw(fer2013, ImageOps.mirror, rows))
    assert f"has {len(rows)} images mirrored left to right, such as train/" in warning


ALTERED = {
    "compressed": jpeg,
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "brightened": lambda image: 255 * (np.asarray(image) / 255) ** 0.8,
    "flat": lambda image: np.asarray(image) // 2 + 64,
    "noisy": noisy,
    "enlarged and reduced": lambda image: image.resize((224, 224)).resize((48, 48)),
}


@pytest.mark.parametrize("change", ALTERED)
def test_altered_pixels_are_recognised_and_nothing_else_is_claimed(fer2013, warnings, change):
    (warning,) = warnings(redraw(fer2013, ALTERED[change]))
    assert warning.startswith("this FER-2013 has 4")
    assert (
        "images with altered pixels (compressed, resized, or changed in light, noise or sharpness)" in warning
    )
    (warning,) = warnings(redraw(fer2013, ALTERED[change], range(0, N, 10)))
    assert warning.startswith("this FER-2013 has 4")


def test_equalised_images_are_recognised_for_the_most_part(fer2013, warnings):
    altered, *_ = warnings(redraw(fer2013, ImageOps.equalize))
    assert int(altered.partition(" has ")[2].partition(" ")[0]) > 0.6 * N
    assert "images with altered pixels" in altered


def test_altered_images_with_swapped_labels_are_both_named(fer2013, warnings):
    altered, swapped = warnings(relabel(redraw(fer2013, jpeg), 2, 1, 0, 3, 4, 5, 6))
    assert "altered pixels" in altered
    assert "angry and fear are swapped" in swapped


@pytest.mark.parametrize(("size", "word"), [(112, "enlarged"), (32, "reduced")])
def test_another_size_is_named(fer2013, warnings, size, word):
    images = np.stack([np.asarray(Image.fromarray(image).resize((size, size))) for image in fer2013.images])
    faces = replace(fer2013, images=images, hashes=hashed(images))
    (warning,) = warnings(faces, name="image_folder")
    assert warning.startswith(
        f"image_folder holds images of FER-2013 and has 420 images at {size} pixels a side that were "
        f"published at 48, so they were {word}"
    )


def test_foreign_images_are_named(fer2013, warnings):
    images = np.concatenate([fer2013.images[10:], [photograph(seed) for seed in range(1000, 1010)]])
    faces = replace(fer2013, images=images, hashes=hashed(images), labels=np.roll(fer2013.labels, -10))
    assert any("not recognised as FER-2013's, such as " in warning for warning in warnings(faces))


def test_colour_copies_of_grey_images_are_the_same(fer2013, warnings):
    assert warnings(replace(fer2013, images=np.repeat(fer2013.images[..., None], 3, axis=3))) == []


def test_other_photographs_are_not_taken_for_fer2013(fer2013, warnings):
    images = np.stack([photograph(seed) for seed in range(2000, 2000 + N)])
    other = replace(fer2013, images=images, hashes=hashed(images))
    assert warnings(other, name="mine") == []
    (warning,) = warnings(other)
    assert warning.startswith("none of the 420 images is one of the published FER-2013")


def test_code_of_the_mirror_image_needs_no_mirror_image(fer2013):
    images = fer2013.images[:50]
    assert (structure_codes(images, mirror=True) == structure_codes(images[:, :, ::-1])).all()


def test_shipped_file_has_the_counts_of_fer2013():
    published = load_published()
    assert np.bincount(published.splits).tolist() == [28_709, 3_589, 3_589]
    assert np.bincount(published.labels[published.splits == 0]).tolist() == [
        3995,
        436,
        4097,
        7215,
        4965,
        4830,
        3171,
    ]
    assert len(published.hashes) == 34_034
    assert (np.diff(published.hashes.astype(np.int64)) > 0).all()
