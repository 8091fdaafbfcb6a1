"""Every number is compared with one computed by hand or by a few lines of numpy."""

import json
import math

import numpy as np
import pytest
import torch

from fer_lightning.core.metrics import CALIBRATION_BINS, METRICS
from fer_lightning.evaluation.metrics import compute_metrics
from fer_lightning.evaluation.predictions import OK, Predictions
from fer_lightning.evaluation.stats import NUM_CALIBRATION_BINS, bootstrap_intervals, wilson_interval
from fer_lightning.training.metrics import scalar_metrics

SCALARS = {metric.key for metric in METRICS}


def predictions(labels, probs, leaked=None, status=OK):
    labels, probs = np.asarray(labels), np.array(probs, np.float32)
    n = len(labels)
    status = np.broadcast_to(status, n).astype(np.str_)
    probs[status != OK] = np.nan
    return Predictions(
        ids=np.array([f"test/x/{i}" for i in range(n)], dtype=np.str_),
        labels=labels.astype(np.int64),
        probs=probs.reshape(n, -1) if n else probs,
        status=status,
        leaked=np.zeros(n, bool) if leaked is None else np.asarray(leaked),
        classes=tuple("abcdefg"[: probs.shape[1]]),
    )


def one_hot(predicted, num_classes=3):
    return np.eye(num_classes, dtype=np.float32)[predicted]


@pytest.fixture(scope="module")
def random_predictions():
    random = np.random.default_rng(0)
    logits = random.normal(size=(400, 7)) * 2
    labels = np.where(
        random.random(400) < 0.5, logits.argmax(1), random.choice(7, 400, p=np.arange(1, 8) / 28)
    )
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return predictions(labels, probs, leaked=random.random(400) < 0.1)


def share_ranked_right(scores, positive):
    """The share of pairs, a positive and a negative image, in which the positive one scores higher."""
    above = scores[positive][:, None] - scores[~positive][None]
    return ((above > 0) + (above == 0) / 2).mean()


def by_numpy(p):
    """The definitions of the paper's sections 5 and 6, from the confusion matrix."""
    num_classes = len(p.classes)
    confusion = np.zeros((num_classes, num_classes), int)
    np.add.at(confusion, (p.labels, p.probs.argmax(1)), 1)
    hit, true, said = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    precision, recall = hit / np.maximum(said, 1), hit / np.maximum(true, 1)
    f1 = 2 * hit / np.maximum(said + true, 1)
    order = np.argsort(-p.probs, axis=1)
    confidence, right = p.probs.max(1), p.probs.argmax(1) == p.labels
    bins = np.ceil(confidence * NUM_CALIBRATION_BINS)
    gaps = [
        abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    ]
    agreed, by_chance = hit.sum() / len(p), (true * said).sum() / len(p) ** 2
    spread = np.sqrt((len(p) ** 2 - (said**2).sum()) * (len(p) ** 2 - (true**2).sum()))
    is_label = np.eye(num_classes)[p.labels]
    return {
        "kappa": (agreed - by_chance) / (1 - by_chance),
        "mcc": (hit.sum() * len(p) - (true * said).sum()) / spread,
        "auroc_macro": np.mean(
            [share_ranked_right(p.probs[:, c], p.labels == c) for c in range(num_classes)]
        ),
        "brier": ((p.probs - is_label) ** 2).sum(axis=1).mean(),
        "nll": -np.log((p.probs * is_label).sum(axis=1)).mean(),
        "acc": hit.sum() / len(p),
        "acc_macro": recall.mean(),
        "f1_macro": f1.mean(),
        "f1_weighted": (f1 * true).sum() / true.sum(),
        "acc_top2": (order[:, :2] == p.labels[:, None]).any(1).mean(),
        "ece": sum(gaps),
        "n": len(p),
        "confusion": confusion,
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "acc_ovr": (len(p) - true - said + 2 * hit) / len(p),
    }


def test_the_scalars_agree_with_their_definitions(random_predictions):
    measured, expected = compute_metrics(random_predictions), by_numpy(random_predictions)
    for name in SCALARS:
        assert measured[name] == pytest.approx(expected[name], abs=1e-6), name


def test_the_figures_of_each_class_agree_with_their_definitions(random_predictions):
    measured, expected = compute_metrics(random_predictions), by_numpy(random_predictions)
    assert measured["confusion"] == expected["confusion"].tolist()
    assert list(measured["per_class"]) == list(random_predictions.classes)
    for index, figures in enumerate(measured["per_class"].values()):
        for name in ("precision", "recall", "f1", "acc_ovr"):
            assert figures[name] == pytest.approx(expected[name][index], abs=1e-6), name
        assert figures["n"] == expected["confusion"][index].sum()


def test_plain_macro_and_weighted_averages_differ_as_their_names_say():
    # Nine of class a, all right; one of class b, called a.
    result = compute_metrics(predictions([0] * 9 + [1], one_hot([0] * 10, 2)))
    f1_of_a = 18 / 19
    assert result["acc"] == pytest.approx(0.9)
    assert result["acc_macro"] == pytest.approx(0.5)
    assert result["f1_macro"] == pytest.approx(f1_of_a / 2)
    assert result["f1_weighted"] == pytest.approx(0.9 * f1_of_a)


def test_absent_and_unpredicted_class_does_not_lower_macro_averages():
    result = compute_metrics(predictions([0, 1], one_hot([0, 1], 3)))
    assert result["acc_macro"] == result["f1_macro"] == 1.0
    assert result["per_class"]["c"] == {
        "precision": None,
        "recall": None,
        "f1": None,
        "acc_ovr": 1.0,
        "n": 0,
        "no_answer": 0,
    }


@pytest.mark.parametrize("last", [OK, "refused"])
def test_class_without_images_has_no_recall_but_counts_false_positives(last):
    # 15 of a and five of b, all right but one of b: named as c, or not answered.
    result = compute_metrics(
        predictions([0] * 15 + [1] * 5, one_hot([0] * 15 + [1] * 4 + [2]), status=[OK] * 19 + [last])
    )
    assert result["acc"] == pytest.approx(0.95)
    assert result["acc_macro"] == pytest.approx((1 + 0.8) / 2)
    f1_of_b = 8 / 9
    assert result["f1_macro"] == pytest.approx((1 + f1_of_b) / (3 if last == OK else 2))
    assert result["f1_weighted"] == pytest.approx((15 + 5 * f1_of_b) / 20)
    c = result["per_class"]["c"]
    assert (c["n"], c["recall"], c["f1"]) == (0, None, None)
    assert c["precision"] == (0.0 if last == OK else None)


def test_never_predicted_class_has_no_precision_and_recall_and_f1_of_0():
    b = compute_metrics(predictions([0, 0, 1], one_hot([0, 0, 0], 2)))["per_class"]["b"]
    assert (b["precision"], b["recall"], b["f1"], b["acc_ovr"]) == (None, 0.0, 0.0, pytest.approx(2 / 3))


def test_confusion_matrix_has_true_classes_in_rows():
    result = compute_metrics(predictions([0, 0, 2], one_hot([1, 1, 2])))
    assert result["confusion"] == [[0, 2, 0], [0, 0, 0], [0, 0, 1]]


def test_the_one_against_rest_accuracy_counts_true_negatives_as_right():
    # A predictor that never says c gets all that is not c right.
    result = compute_metrics(predictions([0, 1, 2, 0], one_hot([0, 0, 0, 0])))
    accuracies = {name: figures["acc_ovr"] for name, figures in result["per_class"].items()}
    assert accuracies == pytest.approx({"a": 0.5, "b": 0.75, "c": 0.75})


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    always_80 = np.tile([0.8, 0.2], (10, 1))
    assert compute_metrics(predictions([0] * 8 + [1] * 2, always_80))["ece"] == pytest.approx(0.0, abs=1e-6)
    assert compute_metrics(predictions([0] * 3 + [1] * 7, always_80))["ece"] == pytest.approx(0.5, abs=1e-6)


def test_top_2_forgives_one_better_answer_and_no_more():
    probs = [[0.5, 0.3, 0.2]] * 3
    assert compute_metrics(predictions([0, 1, 2], probs))["acc_top2"] == pytest.approx(2 / 3)


def test_leak_free_figures_leave_out_the_images_with_a_copy_elsewhere():
    result = compute_metrics(
        predictions([0, 0, 1, 1], one_hot([0, 0, 0, 1], 2), leaked=[True, True, False, False])
    )
    assert result["acc"] == pytest.approx(0.75)
    assert result["leak_free"]["acc"] == pytest.approx(0.5)
    assert (result["n"], result["leak_free"]["n"]) == (4, 2)
    assert result["leak_free"].keys() == SCALARS | {"n", "ci95"}


def test_where_every_image_leaked_nothing_is_claimed():
    result = compute_metrics(predictions([0, 1], one_hot([0, 1], 2), leaked=[True, True]))
    assert result["leak_free"] == dict.fromkeys(SCALARS | {"ci95"}) | {"n": 0}


def test_an_empty_split_gives_none_and_not_zero():
    result = compute_metrics(predictions([], np.zeros((0, 2))))
    assert result["n"] == 0
    assert all(result[name] is None for name in SCALARS - {"n"} | {"ci95"})
    assert result["no_answer"] == {}


def test_what_is_measured_can_be_written_as_strict_json(random_predictions):
    json.dumps(compute_metrics(random_predictions), allow_nan=False)


def test_the_same_predictions_are_measured_alike_in_any_order(random_predictions):
    order = np.random.default_rng(1).permutation(len(random_predictions))
    one, other = compute_metrics(random_predictions), compute_metrics(random_predictions.subset(order))
    assert one["confusion"] == other["confusion"]
    assert one["ece"] == pytest.approx(other["ece"], abs=1e-6)


def test_answered_images_are_measured_as_training_does(random_predictions):
    p = random_predictions
    training = scalar_metrics(len(p.classes))
    training.update(torch.from_numpy(p.probs), torch.from_numpy(p.labels))

    measured = compute_metrics(p)

    assert CALIBRATION_BINS == NUM_CALIBRATION_BINS
    assert {name: measured[name] for name in SCALARS} == pytest.approx(
        {name: value.item() for name, value in training.compute().items()}, abs=1e-6
    )


def test_an_unanswered_image_counts_as_wrong_and_never_as_a_class():
    # Two of class 0 right, one of class 1 right; a third of class 0 and a second of class 1 unanswered.
    probs = [[0.9, 0.1], [0.8, 0.2], [0.5, 0.5], [0.3, 0.7], [0.5, 0.5]]
    result = compute_metrics(predictions([0, 0, 0, 1, 1], probs, status=[OK, OK, "refused", OK, "empty"]))

    assert result["acc"] == pytest.approx(3 / 5)
    assert result["acc_macro"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    f1_a, f1_b = 2 * 2 / (3 + 2), 2 * 1 / (2 + 1)
    assert result["f1_macro"] == pytest.approx((f1_a + f1_b) / 2)
    assert result["f1_weighted"] == pytest.approx((3 * f1_a + 2 * f1_b) / 5)
    assert result["acc_top2"] == pytest.approx(3 / 5)
    assert result["confusion"] == [[2, 0], [0, 1]]
    assert result["no_answer"] == {"empty": 1, "refused": 1}
    assert result["n"] == 5
    a, b = result["per_class"].values()
    assert (a["precision"], b["precision"]) == (1.0, 1.0)
    assert (a["recall"], b["recall"]) == pytest.approx((2 / 3, 1 / 2))
    assert (a["acc_ovr"], b["acc_ovr"]) == pytest.approx((4 / 5, 4 / 5))
    assert [(entry["n"], entry["no_answer"]) for entry in (a, b)] == [(3, 1), (2, 1)]


def test_calibration_is_measured_on_the_answered_images_alone(random_predictions):
    p = random_predictions
    status = np.where(np.arange(len(p)) % 4 == 0, "refused", OK)
    silenced = predictions(p.labels, p.probs, status=status)
    assert compute_metrics(silenced)["ece"] == compute_metrics(p.subset(status == OK))["ece"]


@pytest.mark.parametrize("name", sorted(set(scalar_metrics(7)) - {"ece", "auroc_macro", "brier", "nll"}))
def test_silence_costs_every_score_of_right_answers(random_predictions, name):
    p = random_predictions
    status = np.where(np.arange(len(p)) % 4 == 0, "refused", OK)
    silenced = predictions(p.labels, p.probs, status=status)
    assert compute_metrics(silenced)[name] < 0.95 * compute_metrics(p.subset(status == OK))[name]


@pytest.mark.parametrize("name", ["auroc_macro", "brier", "nll"])
def test_metrics_of_probabilities_are_undefined_where_an_image_has_none(random_predictions, name):
    p = random_predictions
    silenced = predictions(p.labels, p.probs, status=np.where(np.arange(len(p)) == 0, "refused", OK))
    assert compute_metrics(silenced)[name] is None
    assert compute_metrics(p)[name] > 0


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.key)
def test_every_metric_falls_in_its_direction_as_answers_get_worse(metric):
    labels = np.arange(60) % 3
    good, bad = (np.full((60, 3), (1 - right) / 2) for right in (0.8, 0.2))
    good[range(60), labels], bad[range(60), labels] = 0.8, 0.2
    one, other = (compute_metrics(predictions(labels, probs))[metric.key] for probs in (good, bad))
    assert one > other if metric.higher_is_better else one < other


def test_known_values_of_brier_score_likelihood_and_agreement():
    result = compute_metrics(predictions([0, 1], [[0.7, 0.3], [0.6, 0.4]]))
    assert result["brier"] == pytest.approx((2 * 0.3**2 + 2 * 0.6**2) / 2)
    assert result["nll"] == pytest.approx(-(math.log(0.7) + math.log(0.4)) / 2)
    assert result["kappa"] == result["mcc"] == pytest.approx(0)
    assert result["auroc_macro"] == 1.0


def test_a_class_of_which_no_image_was_answered_lowers_the_macro_averages():
    result = compute_metrics(predictions([0, 1], one_hot([0, 0], 3), status=[OK, "refused"]))
    assert result["acc_macro"] == result["f1_macro"] == 0.5  # the third class does not occur


def test_where_no_image_was_answered_all_are_wrong():
    result = compute_metrics(predictions([0, 1, 1], one_hot([0, 1, 1]), status="timeout"))
    assert [result[name] for name in ("acc", "acc_macro", "f1_macro", "f1_weighted")] == [0.0] * 4
    assert result["acc_top2"] is result["ece"] is None
    assert result["confusion"] == np.zeros((3, 3), int).tolist()
    assert result["no_answer"] == {"timeout": 3}
    json.dumps(result, allow_nan=False)


def test_labels_without_probabilities_have_no_top2_and_no_calibration():
    result = compute_metrics(predictions([0, 1, 2], one_hot([0, 1, 1])))
    assert result["acc"] == pytest.approx(2 / 3)
    assert result["acc_top2"] is result["ece"] is None
    assert "ece" not in result["ci95"]


def test_intervals_are_wilson_for_accuracy_and_bootstrap_for_the_rest(random_predictions):
    p = random_predictions
    result, kept = compute_metrics(p), p.subset(~p.leaked)
    for measured, images in ((result, p), (result["leak_free"], kept)):
        expected = {"acc": wilson_interval(measured["acc"], len(images)), **bootstrap_intervals(images)}
        assert measured["ci95"] == {name: list(interval) for name, interval in expected.items()}
        for name, (low, high) in measured["ci95"].items():
            assert low <= measured[name] <= high


def test_measuring_again_gives_the_same_file(random_predictions):
    assert json.dumps(compute_metrics(random_predictions)) == json.dumps(compute_metrics(random_predictions))
