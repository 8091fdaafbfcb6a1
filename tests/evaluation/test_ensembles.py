"""The mean of several predictors, and the greedy choice of its members."""

from dataclasses import replace

import numpy as np
import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.evaluation.ensembles import average, choose_greedily, disagreement
from fer_lightning.evaluation.predictions import Predictions


def predictions(probs, *, labels=None, **changes):
    """Predictions of two classes from the probabilities of the first one."""
    first = np.asarray(probs, np.float32)
    n = len(first)
    made = Predictions(
        ids=np.array([f"test/a/{i}" for i in range(n)]),
        labels=np.zeros(n, np.int64) if labels is None else np.asarray(labels),
        probs=np.stack([first, 1 - first], axis=1),
        status=np.full(n, "ok"),
        leaked=np.zeros(n, bool),
        classes=("a", "b"),
    )
    return replace(made, **changes)


def test_probabilities_are_averaged_in_the_order_of_the_first_member():
    one = predictions([0.9, 0.2, 0.6], leaked=np.array([True, False, False]))
    other = predictions([0.5, 0.4, 0.8], leaked=np.array([False, False, True])).subset(np.array([2, 0, 1]))
    mean = average([one, other], ["one", "other"])
    assert mean.ids.tolist() == one.ids.tolist()
    np.testing.assert_allclose(mean.probs[:, 0], [0.7, 0.3, 0.7], rtol=1e-6)
    np.testing.assert_allclose(mean.probs.sum(axis=1), 1, rtol=1e-6)
    assert mean.leaked.tolist() == [True, False, True], "leaked for any member"
    assert mean.near_leaked is None, "one does not know"
    known = [replace(each, near_leaked=each.leaked) for each in (one, other)]
    assert average(known, ["one", "other"]).near_leaked.tolist() == [True, False, True]


def test_an_image_that_a_member_did_not_answer_is_the_mean_of_the_others():
    silent = predictions([np.nan, np.nan, 1.0], status=np.array(["refused", "timeout", "ok"]))
    other = predictions([0.75, np.nan, 0.5], status=np.array(["ok", "no label", "ok"]))
    mean = average([silent, other], ["silent", "other"])
    assert mean.status.tolist() == ["ok", "timeout", "ok"]
    np.testing.assert_allclose(mean.probs[[0, 2], 0], [0.75, 0.75])
    assert np.isnan(mean.probs[1]).all()
    assert mean.predicted.tolist() == [0, -1, 0]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (predictions([0.5] * 2, classes=("a", "c")), "other: has the classes a, c, one has a, b"),
        (predictions([0.5] * 3), "other: answered 3 images, 2 of them among the 2 of one"),
        (predictions([0.5] * 2, ids=np.array(["x", "y"])), "other: answered 2 images, 0 of them among the 2"),
        (predictions([0.5] * 2, labels=[0, 1]), "other: 1 images have another label than in one"),
    ],
    ids=["classes", "more", "others", "labels"],
)
def test_members_of_other_images_are_refused(other, message):
    with pytest.raises(FERError, match=message):
        average([predictions([0.5] * 2), other], ["one", "other"])


def test_members_are_chosen_until_none_improves_the_mean():
    # Right where the probability is above 0.5: alone 2, 3 and 2 of 5; the second with the third 5.
    candidates = [predictions(probs) for probs in (
        [0.9, 0.9, 0.1, 0.1, 0.1],
        [0.6, 0.6, 0.6, 0.4, 0.4],
        [0.45, 0.45, 0.45, 0.9, 0.9],
    )]  # fmt: skip
    chosen = choose_greedily(candidates, ["a", "b", "c"])
    assert chosen.members == [1, 2]
    assert chosen.accuracies == pytest.approx([0.6, 1.0])


def test_of_equally_accurate_members_the_more_likely_one_is_chosen():
    candidates = [predictions([0.6, 0.6]), predictions([0.9, 0.9])]
    assert choose_greedily(candidates, ["a", "b"]) == ([1], [1.0])


def test_disagreement_is_the_mean_over_pairs():
    members = [
        predictions(probs) for probs in ([0.9, 0.9, 0.9, 0.9], [0.9, 0.9, 0.9, 0.1], [0.1, 0.1, 0.9, 0.9])
    ]
    assert disagreement(members) == pytest.approx((1 / 4 + 2 / 4 + 3 / 4) / 3)
    assert disagreement(members[:1]) is None
