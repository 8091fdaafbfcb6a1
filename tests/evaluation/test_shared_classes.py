"""Classes of a data set and of a network: matched by name, and predictions restricted to the shared ones."""

import numpy as np

from fer_lightning.evaluation.predictions import OK, Predictions
from fer_lightning.evaluation.shared_classes import find_shared_classes, restrict_to

KNOWN = ("angry", "fear", "happy", "sad")


def test_classes_are_matched_by_name_and_synonym():
    shared = find_shared_classes(
        np.array([0, 1, 2, 3, 1]), ("Sadness", "Happiness", "contempt", "ANGER"), KNOWN
    )
    assert shared.labels.tolist() == [3, 2, -1, 0, 2]
    assert shared.positions.tolist() == [0, 2, 3]


def test_class_without_images_is_not_shared():
    shared = find_shared_classes(np.array([1, 1, 2]), ("angry", "happy", "sad"), KNOWN)
    assert shared.positions.tolist() == [2, 3]


def test_nothing_is_shared_with_other_classes():
    shared = find_shared_classes(np.array([0, 1]), ("cat", "dog"), KNOWN)
    assert (shared.labels.tolist(), len(shared.positions)) == ([-1, -1], 0)


def predictions(probs, labels):
    n = len(labels)
    return Predictions(
        np.array([str(number) for number in range(n)]),
        np.array(labels),
        np.array(probs, np.float32),
        np.full(n, OK),
        np.arange(n) == 0,
        KNOWN,
        np.arange(n) == 1,
    )


def test_restricted_probabilities_sum_to_one_and_choose_among_the_shared():
    before = predictions([[0.1, 0.6, 0.1, 0.2], [0.5, 0.0, 0.25, 0.25]], [3, 0])
    after = restrict_to(before, np.array([0, 2, 3]))
    np.testing.assert_allclose(after.probs, [[0.25, 0.25, 0.5], [0.5, 0.25, 0.25]], atol=1e-6)
    assert after.classes == ("angry", "happy", "sad")
    assert after.labels.tolist() == [2, 0]
    assert before.correct.tolist() == [False, True]
    assert after.correct.tolist() == [True, True]
    assert (after.leaked.tolist(), after.near_leaked.tolist()) == ([True, False], [False, True])


def test_answer_that_is_certain_of_another_class_becomes_uniform():
    after = restrict_to(predictions([[0, 1, 0, 0]], [2]), np.array([0, 2]))
    assert after.probs.tolist() == [[0.5, 0.5]]
