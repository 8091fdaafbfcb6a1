import numpy as np
import pytest
from PIL import Image, ImageFilter

from fer_lightning.data.audit import near_duplicates as near_module
from fer_lightning.data.audit.near_duplicates import find_near_duplicates
from fer_lightning.data.faces import Faces


def scene(seed, size=48):
    """Make an image of soft blobs and a few edges."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 6)).astype(np.uint8)).resize((size, size))
    image = np.asarray(coarse, np.float64) * 0.7 + 30
    for _ in range(4):
        row, column, height, width = random.integers(0, size // 2, 4)
        image[row : row + height + 4, column : column + width + 4] += random.integers(-60, 60)
    image += random.normal(0, 3, image.shape)
    soft = Image.fromarray(image.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))
    return np.asarray(soft)


def faces_of(*images, hashes=None):
    n = len(images)
    return Faces(
        images=np.stack(images),
        labels=np.zeros(n, np.int64),
        splits=np.zeros(n, np.uint8),
        hashes=np.arange(n, dtype=np.uint64) if hashes is None else np.array(hashes, np.uint64),
        ids=np.array([f"train/a/{i}" for i in range(n)]),
        classes=("a",),
        fingerprint="f",
    )


def pairs(faces):
    found = find_near_duplicates(faces.images, faces.hashes)
    assert not found.left_out
    return sorted(zip(found.first.tolist(), found.second.tolist(), found.mirrored.tolist(), strict=True))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: np.clip(image * 0.6 + 70, 0, 255).astype(np.uint8),
        lambda image: np.roll(image, 1, axis=1),
        lambda image: np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(0.5))),
        lambda image: np.asarray(Image.fromarray(image).crop((1, 1, 47, 47)).resize((48, 48))),
    ],
    ids=["other light", "shifted by a pixel", "a little blurred", "cut closer"],
)
def test_slightly_changed_image_is_a_near_duplicate(change):
    image = scene(0)
    assert pairs(faces_of(image, scene(1), change(image))) == [(0, 2, False)]


def test_mirrored_image_is_a_mirrored_near_duplicate():
    image = scene(0)
    assert pairs(faces_of(scene(1), image, image[:, ::-1])) == [(1, 2, True)]


def test_symmetric_pair_counts_once_and_not_as_mirrored():
    half = scene(0)[:, :24]
    image = np.concatenate([half, half[:, ::-1]], axis=1)
    lighter = np.clip(image * 0.8 + 30, 0, 255).astype(np.uint8)
    assert (lighter == lighter[:, ::-1]).all()
    mirror_images = [scene(1), scene(1)[:, ::-1]]
    assert pairs(faces_of(image, lighter, *mirror_images)) == [(0, 1, False), (2, 3, True)]


def test_different_images_in_the_same_light_are_not_near():
    shade = np.linspace(28, 228, 48)[:, None]  # what thumbnails see; gradients see the rest
    random = np.random.default_rng(0)
    common = shade + random.normal(0, 17, (48, 48))
    images = [(common + random.normal(0, 20, (48, 48))).clip(0, 255).astype(np.uint8) for _ in range(8)]
    gradients = near_module._gradients(np.stack(images))
    assert 0.3 < (gradients @ gradients.T).min() < near_module.MIN_GRADIENT_CORRELATION
    thumbnails = near_module._thumbnails(np.stack(images), np.arange(8), mirror=False)
    assert (thumbnails @ thumbnails.T).min() > near_module.MIN_THUMBNAIL_CORRELATION
    assert pairs(faces_of(*images)) == []


def test_only_the_first_of_duplicates_is_compared():
    image = scene(0)
    lighter = np.clip(image + 20.0, 0, 255).astype(np.uint8)
    assert pairs(faces_of(lighter, image, image, lighter, hashes=[9, 4, 4, 9])) == [(0, 1, False)]


@pytest.mark.parametrize("size", [48, 53])
def test_constant_images_have_no_near_duplicates(size):
    blanks = [np.full((size, size), level, np.uint8) for level in (0, 1, 77, 254, 255)]
    assert pairs(faces_of(*blanks, scene(0, size))) == []


@pytest.mark.parametrize("size", [12, 13, 50, 97, 112])
def test_images_of_any_size_are_compared(size):
    image = scene(0, size)
    lighter = np.clip(image * 0.8 + 30, 0, 255).astype(np.uint8)
    assert pairs(faces_of(image, scene(1, size), lighter)) == [(0, 2, False)]
    assert pairs(faces_of(image, scene(1, size), lighter[:, ::-1])) == [(0, 2, True)]


def test_one_image_and_a_constant_one_have_no_pairs():
    assert pairs(faces_of(scene(0))) == []
    assert pairs(faces_of(np.zeros((48, 48), np.uint8))) == []


def test_pairs_are_found_across_tiles_and_once(monkeypatch):
    monkeypatch.setattr(near_module, "_TILE", 3)
    images = [scene(seed) for seed in range(7)]
    lighter = [np.clip(image * 0.8 + 30, 0, 255).astype(np.uint8) for image in images]
    assert pairs(faces_of(*images, *lighter)) == [(i, i + 7, False) for i in range(7)]


def test_blocks_of_uneven_size_are_averages():
    image = np.arange(25, dtype=np.uint8).reshape(1, 5, 5)
    assert near_module.shrink(image, 2).tolist() == [
        [
            [image[0, :2, :2].mean(), image[0, :2, 2:].mean()],
            [image[0, 2:, :2].mean(), image[0, 2:, 2:].mean()],
        ]
    ]


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("MAX_IMAGES", 2, "near-duplicates were not searched: 3 different images exceed the limit of 2"),
        (
            "THUMBNAIL_SIDE",
            49,
            "near-duplicates were not searched: images of 48 pixels a side are too small",
        ),
        ("MAX_CANDIDATES", 0, "near-duplicates were searched only in part: more than 0 pairs"),
    ],
)
def test_incomplete_search_gives_the_reason(monkeypatch, limit, value, message):
    monkeypatch.setattr(near_module, limit, value)
    image = scene(0)
    faces = faces_of(image, np.roll(image, 1, axis=1), scene(1))
    found = find_near_duplicates(faces.images, faces.hashes)
    assert found.left_out.startswith(message)
    assert len(found.first) == (limit == "MAX_CANDIDATES")


@pytest.fixture
def searched(monkeypatch):
    """Count the searches that were made and not read from the cache."""
    made = []
    real = near_module.find_similar
    monkeypatch.setattr(near_module, "find_similar", lambda *args: made.append(1) or real(*args))
    return made


def load(faces, folder):
    return near_module.load_near_duplicates(
        faces.images, faces.hashes, cache_dir=folder, log=lambda sentence: None
    )


def test_search_is_made_once_for_the_same_pixels_in_any_order(searched, tmp_path):
    image = scene(0)
    lighter = np.clip(image * 0.8 + 30, 0, 255).astype(np.uint8)
    one = faces_of(image, scene(1), lighter, hashes=[7, 8, 9])
    other = faces_of(lighter, lighter, image, scene(1), hashes=[9, 9, 7, 8])
    found, again = load(one, tmp_path), load(other, tmp_path)
    assert len(searched) == 1
    assert (found.first.tolist(), found.second.tolist()) == ([0], [2])
    assert (again.first.tolist(), again.second.tolist()) == ([0], [2])  # rows 0 and 2 of other
    assert (found.gradient == again.gradient).all()


@pytest.mark.parametrize("damage", [b"", b"PK", b"\x93NUMPY"])
def test_damaged_file_of_the_search_is_made_again(searched, tmp_path, damage):
    faces = faces_of(scene(0), np.roll(scene(0), 1, axis=1))
    load(faces, tmp_path)
    (path,) = tmp_path.glob("near-*.npz")
    path.write_bytes(damage)
    assert len(load(faces, tmp_path).first) == 1
    assert len(searched) == 2


def test_frames_that_a_shift_sets_apart_are_similar_but_no_near_duplicates():
    image = scene(0)
    faces = faces_of(image, np.roll(image, 1, axis=(0, 1)), scene(1))
    found = near_module.find_similar(faces.images, faces.hashes)
    assert found.first.tolist() == [0]
    assert found.gradient[0] < near_module.MIN_GRADIENT_CORRELATION
    assert len(found.confirmed().first) == 0
