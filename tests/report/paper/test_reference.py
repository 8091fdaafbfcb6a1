import pytest

from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.report.paper import reference

# As the paper prints them: Table 2's percentages, the last column separately.
PRINTED = {
    "MLP": ([0, 0, 20, 20, 20, 0, 80], 20),
    "CNN": ([40, 60, 60, 100, 0, 60, 100], 60),
    "ResNet": ([40, 60, 0, 80, 40, 80, 100], 57.14),
    "RNN": ([0, 0, 80, 0, 0, 0, 20], 14.29),
    "GPT-4 Turbo": ([20, 40, 40, 60, 60, 80, 80], 54.29),
}

TABLE_1 = {"ResNet": 68.72, "CNN": 55.49, "MLP": 40.71, "RNN": 39.80}

# Family, true class (None: any), answers, images.
COUNTED = [
    ("cnn", {"happy"}, {"happy"}, 1298),
    ("cnn", {"disgust"}, {"disgust"}, 63),
    ("cnn", {"sad", "neutral"}, {"sad", "neutral"}, 219),
    ("cnn", {"fear", "sad"}, {"fear", "sad"}, 193),
    ("resnet", {"happy"}, {"happy"}, 1570),
    ("resnet", {"disgust"}, {"disgust"}, 71),
    ("mlp", {None}, {"disgust"}, 7),
    ("mlp", {"disgust"}, {"disgust"}, 2),
]


def test_table_1_and_counts_are_as_printed():
    ours = {reference.FAMILIES[key]: round(100 * acc, 2) for key, acc in reference.TABLE_1.items()}
    counts = [
        (
            count.family,
            {true for true, _ in count.cells},
            {predicted for _, predicted in count.cells},
            count.images,
        )
        for count in reference.COUNTS
    ]

    assert ours == TABLE_1
    assert counts == COUNTED
    assert reference.NUM_TEST == 7178


@pytest.mark.parametrize("name", PRINTED)
def test_table_2_gives_the_printed_percentages(name):
    by_class, overall = PRINTED[name]
    right = reference.TABLE_2[name]

    assert [100 * count / reference.PER_CLASS for count in right] == by_class
    assert round(100 * sum(right) / (reference.PER_CLASS * len(EXPRESSIONS)), 2) == overall
    assert set(reference.TABLE_2) == set(PRINTED)


def test_counts_refer_to_known_classes_and_families():
    for count in reference.COUNTS:
        assert count.family in reference.TABLE_1
        assert all(name in (None, *EXPRESSIONS) for cell in count.cells for name in cell)


def test_families_are_in_the_order_of_table_1():
    assert list(reference.FAMILIES) == list(reference.TABLE_1) == ["resnet", "cnn", "mlp", "rnn"]
    assert sorted(reference.TABLE_1.values(), reverse=True) == list(reference.TABLE_1.values())
