import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.data.faces import SPLITS, Source
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.data.synthetic import source as synthetic
from fer_lightning.data.synthetic.expressions import ACTION_UNITS
from fer_lightning.data.synthetic.face import draw_face
from fer_lightning.data.synthetic.source import SyntheticFaces

FER2013_SHARES = {"angry": 3995, "disgust": 436, "fear": 4097, "happy": 7215, "neutral": 4965, "sad": 4830}
FER2013_SHARES["surprise"] = 3171


def faces(**settings: Any) -> SyntheticFaces:
    sizes = {"num_train": 14, "num_val": 7, "num_test": 7}
    return SyntheticFaces(**({"classes": EXPRESSIONS} | sizes | settings))


def drawn(source: SyntheticFaces) -> dict[str, bytes]:
    return {record.id: record.pixels().tobytes() for record in source.records()}


def labels(source: SyntheticFaces, split: str = "train") -> list[int]:
    return [record.label for record in source.records() if record.split == split]


def test_source_lists_every_image_of_every_split_with_a_unique_id() -> None:
    source: Source = faces()
    records = list(source.records())
    assert Counter(record.split for record in records) == {"train": 14, "val": 7, "test": 7}
    assert len({record.id for record in records}) == 28
    for record in records:
        split, name, _ = record.id.split("/")
        assert (split, name) == (record.split, source.classes[record.label])
    assert records[0].where == "synthetic train image 0"


@pytest.mark.parametrize("size", [16, 48, 65])
def test_images_have_the_requested_size(size: int) -> None:
    pixels = next(faces(image_size=size).records()).pixels()
    assert pixels.shape == (size, size)
    assert pixels.dtype == np.uint8


def test_equal_settings_draw_equal_faces() -> None:
    assert drawn(faces()) == drawn(faces())
    assert faces().cache_key() == faces().cache_key()


def test_no_two_synthetic_faces_are_identical() -> None:
    assert len(set(drawn(faces()).values())) == 28


def test_another_seed_draws_other_faces() -> None:
    ours, others = drawn(faces()), drawn(faces(seed=1))
    assert ours.keys() == others.keys()
    assert not set(ours.values()) & set(others.values())


def test_split_sizes_do_not_change_the_first_faces() -> None:
    small, large = drawn(faces()), drawn(faces(num_train=30, num_val=9, num_test=20))
    assert small.items() < large.items()


def test_faces_do_not_depend_on_threads_or_order() -> None:
    records = list(faces(num_train=60).records())
    in_order = [record.pixels().tobytes() for record in records]
    np.random.seed(7)  # noqa: NPY002 (the global state must not matter)
    with ThreadPoolExecutor(4) as pool:
        from_threads = list(pool.map(lambda record: record.pixels().tobytes(), records[::-1]))
    assert from_threads[::-1] == in_order


@pytest.mark.parametrize("balance", ["fer2013", "uniform"])
def test_a_split_of_seven_images_holds_every_class(balance: str) -> None:
    source = faces(class_balance=balance, num_train=7)
    for split in SPLITS:
        assert sorted(labels(source, split)) == list(range(7))


def test_default_class_balance_is_that_of_fer2013() -> None:
    counts = Counter(labels(faces(num_train=7000)))
    total = sum(FER2013_SHARES.values())
    for label, name in enumerate(EXPRESSIONS):
        assert counts[label] == pytest.approx(7000 * FER2013_SHARES[name] / total, abs=1.5)


def test_uniform_balance_gives_equal_class_counts() -> None:
    assert set(Counter(labels(faces(class_balance="uniform", num_train=70))).values()) == {10}


def test_a_reordered_class_subset_keeps_names_and_shares() -> None:
    source = faces(classes=["Surprised", "happy"], num_train=1000)
    counts = Counter(labels(source))
    assert source.classes == ("Surprised", "happy")
    assert counts[0] / counts[1] == pytest.approx(3171 / 7215, abs=0.01)
    known = [record for record in source.records() if record.split == "val"]
    assert {record.id.split("/")[1] for record in known} == {"Surprised", "happy"}


SETTINGS = {
    "classes": EXPRESSIONS[::-1],
    "image_size": 32,
    "num_train": 15,
    "num_val": 8,
    "num_test": 8,
    "seed": 1,
    "class_balance": "uniform",
    "difficulty": 0.6,
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_is_part_of_the_cache_key(setting: str) -> None:
    assert faces(**{setting: SETTINGS[setting]}).cache_key() != faces().cache_key()


def test_generator_version_is_part_of_the_cache_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = faces().cache_key()
    monkeypatch.setattr(synthetic, "GENERATOR_VERSION", synthetic.GENERATOR_VERSION + 1)
    assert faces().cache_key() != before


def test_the_root_is_ignored() -> None:
    assert faces(root="/nowhere").cache_key() == faces().cache_key()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_train", 0),
        ("num_val", -1),
        ("num_test", 1.5),
        ("num_train", True),
        ("num_train", None),
        ("image_size", 15),
        ("seed", -1),
        ("class_balance", "balanced"),
        ("difficulty", -0.1),
        ("difficulty", 1.1),
        ("difficulty", math.nan),
        ("difficulty", "hard"),
        ("difficulty", None),
        ("classes", []),
        ("classes", ["happy", "contempt"]),
        ("classes", ["happy", "Joy"]),
    ],
)
def test_error_names_the_setting_and_its_invalid_value(setting: str, value: object) -> None:
    group = "data" if setting in ("classes", "image_size") else r"data\.source"
    with pytest.raises(FERError, match=rf"^{group}\.{setting}=.+: .+") as caught:
        faces(**{setting: value})
    if not isinstance(value, list):
        assert f"{setting}={value}: expected" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_expression_lists_the_supported_ones() -> None:
    with pytest.raises(FERError, match=r"contempt.*angry, disgust, fear, happy, neutral, sad, surprise"):
        faces(classes=["contempt"])


@cache
def mean_face(expression: str) -> NDArray[np.float64]:
    """Average the same people, seen from the front, for an expression."""
    crowd = [draw_face(np.random.default_rng(person), expression, 48, 0.0) for person in range(25)]
    mean: NDArray[np.float64] = np.stack(crowd).mean(axis=0)
    return mean


# Rows and columns of the mean face.
BROW_RAISED, BROW_AT_REST, BROW_LOWERED = np.s_[7:9, 10:19], np.s_[11:13, 10:18], np.s_[14:16, 10:19]
INNER_BROW_RAISED, LID_RAISED, NOSE_ROOT = np.s_[9:13, 19:21], np.s_[14:15, 12:17], np.s_[17:24, 22:27]
LIPS, OPENING, CROWS_FEET = np.s_[36:39, 22:27], np.s_[39:45, 20:28], np.s_[14:19, 6:9]
CORNER_RAISED, CORNER_LOWERED = np.s_[31:34, 14:18], np.s_[38:41, 16:20]


@pytest.mark.parametrize(
    ("expression", "unit", "region", "change"),
    [
        ("angry", 4, BROW_LOWERED, "darker"),
        ("angry", 4, BROW_AT_REST, "brighter"),
        ("angry", 23, LIPS, "brighter"),
        ("disgust", 9, NOSE_ROOT, "darker"),
        ("disgust", 15, CORNER_LOWERED, "darker"),
        ("fear", 1, INNER_BROW_RAISED, "darker"),
        ("fear", 2, BROW_RAISED, "darker"),
        ("fear", 26, OPENING, "darker"),
        ("happy", 6, CROWS_FEET, "darker"),
        ("happy", 12, CORNER_RAISED, "darker"),
        ("sad", 1, INNER_BROW_RAISED, "darker"),
        ("sad", 15, CORNER_LOWERED, "darker"),
        ("surprise", 2, BROW_RAISED, "darker"),
        ("surprise", 5, LID_RAISED, "darker"),
        ("surprise", 26, OPENING, "darker"),
    ],
)
def test_action_unit_changes_its_part_of_the_face(
    expression: str, unit: int, region: tuple[slice, slice], change: str
) -> None:
    assert unit in ACTION_UNITS[expression]
    against_neutral = (mean_face(expression) - mean_face("neutral"))[region].mean()
    assert against_neutral > 3 if change == "brighter" else against_neutral < -3


def test_equal_generators_draw_the_same_person_for_every_expression() -> None:
    angry, sad = (draw_face(np.random.default_rng(3), name, 48, 0.5).astype(int) for name in ("angry", "sad"))
    away = np.s_[:, :6]  # backdrop and hair, outside the face
    assert (angry != sad).any()
    assert np.array_equal(angry[away], sad[away])
