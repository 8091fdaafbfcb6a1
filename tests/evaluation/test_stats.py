"""Every statistic is compared with scipy, torchmetrics, a published example or a sum by hand."""

import time
from fractions import Fraction
from math import comb

import numpy as np
import pytest
import scipy.stats
import torch
from torchmetrics.classification import MulticlassCalibrationError
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

from fer_lightning.evaluation import stats
from fer_lightning.evaluation.predictions import OK, Predictions


def predictions(labels, probs, status=OK):
    labels, n = np.asarray(labels, np.int64), len(labels)
    status = np.broadcast_to(status, n).astype(np.str_)
    probs = np.where((status == OK)[:, None], np.asarray(probs, np.float32), np.float32(np.nan))
    return Predictions(
        ids=np.array([f"test/x/{i}" for i in range(n)]),
        labels=labels,
        probs=probs,
        status=status,
        leaked=np.zeros(n, bool),
        classes=tuple("abcdefg"[: probs.shape[1]]),
    )


def random_predictions(n, num_classes=7, skill=1.5, status=OK, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(num_classes, size=n)
    logits = random.normal(size=(n, num_classes)) + skill * np.eye(num_classes)[labels]
    probs = np.exp(2 * logits)
    return predictions(labels, probs / probs.sum(axis=1, keepdims=True), status)


def confident(confidence, right):
    """Two classes; the first is always the answer, with the confidences given."""
    confidence = np.asarray(confidence, np.float32)
    return predictions(~np.asarray(right), np.column_stack([confidence, 1 - confidence]))


def overconfident(by, n, seed):
    """Every confidence is that much above the chance of being right: the true calibration error."""
    random = np.random.default_rng(seed)
    confidence = random.uniform(0.5, 1, n)
    return confident(confidence, random.random(n) < confidence - by)


def measured_ece(p):
    metric = MulticlassCalibrationError(num_classes=len(p.classes), n_bins=stats.NUM_CALIBRATION_BINS)
    return float(metric(torch.from_numpy(p.probs), torch.from_numpy(p.labels)))


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 35), (21, 35), (35, 35), (3983, 7178)])
def test_the_interval_of_a_share_is_wilsons(right, n):
    expected = scipy.stats.binomtest(right, n).proportion_ci(method="wilson")

    assert stats.wilson_interval(right / n, n) == pytest.approx(tuple(expected), abs=1e-12)


@pytest.mark.parametrize(
    ("table", "interval"),
    [
        # Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33: airways of 21 patients.
        ((1, 1, 7, 12), (-0.507, -0.026)),
        # Fagerland, Lydersen and Laake 2017, Statistical Analysis of Contingency Tables, chapter 8.
        ((59, 6, 16, 80), (-0.1186, -0.0046)),
    ],
)
def test_paired_difference_interval_matches_published_examples(table, interval):
    places = len(str(interval[0]).partition(".")[2])

    assert tuple(round(bound, places) for bound in stats.newcombe_interval(*table)) == interval


def test_predictors_that_rarely_agree_get_a_wider_interval():
    # 10 of 20 right each. Never on the same image; as by chance, which leaves no correlation; always.
    widths = [
        np.ptp(stats.newcombe_interval(*table)) for table in [(0, 10, 10, 0), (5, 5, 5, 5), (10, 0, 0, 10)]
    ]

    assert widths[0] > widths[1] > widths[2] > 0


def test_exchanging_the_predictors_changes_the_sign_of_their_interval():
    low, high = stats.newcombe_interval(59, 6, 16, 80)

    assert stats.newcombe_interval(59, 16, 6, 80) == pytest.approx((-high, -low))


@pytest.mark.parametrize("table", [(35, 0, 0, 0), (0, 0, 0, 35), (0, 35, 0, 0), (0, 0, 0, 1)])
def test_a_predictor_that_is_always_right_or_never_has_an_interval_too(table):
    low, high = stats.newcombe_interval(*table)

    assert -1 <= low < high <= 1 + 1e-12


@pytest.mark.parametrize(
    ("only_first", "only_second"),
    [(0, 1), (0, 6), (6, 0), (5, 5), (6, 5), (12, 3), (500, 430), (20_400, 20_000), (9_000, 10_500)],
)
def test_mcnemar_is_the_exact_binomial_test_of_the_disagreements(only_first, only_second):
    expected = scipy.stats.binomtest(only_first, only_first + only_second).pvalue

    assert stats.mcnemar_exact(only_first, only_second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_keeps_its_digits_far_from_even():
    n, fewer = 3000, 900
    exact = 2 * Fraction(sum(comb(n, k) for k in range(fewer + 1)), 2**n)

    assert stats.mcnemar_exact(fewer, n - fewer) == pytest.approx(float(exact), rel=1e-9)
    assert 0 < float(exact) < 1e-100


def test_identical_predictors_do_not_differ_significantly():
    assert stats.mcnemar_exact(0, 0) == 1.0


def test_holm_adjusts_as_worked_by_hand():
    # 5 x 0.01, 4 x 0.02, 3 x 0.03; then 2 x 0.04 and 0.05 are raised to the one before.
    assert stats.holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])


def test_holm_rejects_what_a_textbook_example_does():
    # The four hypotheses of geeksforgeeks.org/data-science/holm-bonferroni-method, at the level of 0.05.
    adjusted = stats.holm([0.01, 0.04, 0.03, 0.005])
    assert [p_value <= 0.05 for p_value in adjusted] == [True, False, False, True]


def test_holm_keeps_the_order_given_and_never_exceeds_1():
    assert stats.holm([0.04, 0.01, 0.9, 0.03]) == pytest.approx([0.09, 0.04, 0.9, 0.09])
    assert stats.holm([0.7, 0.6, 0.9]) == [1.0, 1.0, 1.0]
    assert stats.holm([]) == []


def test_every_pair_is_compared_once_and_adjusted_for_their_number():
    random = np.random.default_rng(0)
    right = {name: random.random(400) < share for name, share in [("cnn", 0.8), ("mlp", 0.6), ("rnn", 0.55)]}

    tests = stats.compare_pairs(right)

    assert [(test.first, test.second) for test in tests] == [("cnn", "mlp"), ("cnn", "rnn"), ("mlp", "rnn")]
    assert [test.p_holm for test in tests] == stats.holm([test.p_value for test in tests])
    for test in tests:
        first, second = right[test.first], right[test.second]
        assert test.only_first == (first & ~second).sum()
        assert test.only_second == (second & ~first).sum()
        assert test.n == 400
        assert test.difference == pytest.approx(first.mean() - second.mean())
        assert test.interval[0] < test.difference < test.interval[1]
        assert test.p_value == stats.mcnemar_exact(test.only_first, test.only_second)


def test_fewer_than_two_predictors_make_no_pair():
    assert stats.compare_pairs({}) == stats.compare_pairs({"cnn": np.array([True])}) == []


def test_different_images_cannot_be_paired():
    with pytest.raises(AssertionError):
        stats.compare_pairs({"cnn": np.ones(3, bool), "mlp": np.ones(4, bool)})


def test_the_bootstrap_agrees_with_scipy_s_over_images():
    p = random_predictions(500, num_classes=4)
    p = p.subset(np.flatnonzero((p.labels > 0) | (np.arange(500) < 60)))  # classes of unequal size

    def by_torchmetrics(function):
        def statistic(labels, predicted):
            return float(
                function(
                    torch.from_numpy(predicted), torch.from_numpy(labels), num_classes=4, average="macro"
                )
            )

        result = scipy.stats.bootstrap(
            (p.labels, p.predicted), statistic, paired=True, vectorized=False, n_resamples=400,
            method="percentile", rng=np.random.default_rng(0),
        )  # fmt: skip
        return tuple(result.confidence_interval)

    intervals = stats.bootstrap_intervals(p)

    assert intervals["acc_macro"] == pytest.approx(by_torchmetrics(multiclass_accuracy), abs=0.007)
    assert intervals["f1_macro"] == pytest.approx(by_torchmetrics(multiclass_f1_score), abs=0.007)


def test_resample_without_a_class_leaves_it_out_of_the_average():
    # 19 of a and one of b, all right. About a third of the draws are without b: they too are perfect.
    p = predictions([0] * 19 + [1], np.eye(3)[[0] * 19 + [1]])

    assert stats.bootstrap_intervals(p) == {"acc_macro": (1.0, 1.0), "f1_macro": (1.0, 1.0)}


def test_a_class_without_images_lowers_the_mean_recall_of_no_draw():
    # 20 of a, of which one is named as b: the mean recall is that of a, 1 minus a binomial share.
    p = predictions([0] * 20, np.eye(2)[[0] * 19 + [1]])

    assert stats.bootstrap_intervals(p)["acc_macro"] == pytest.approx((0.85, 1.0))


def test_an_unanswered_image_counts_as_wrong_in_every_draw():
    # All of a answered, none of b: recall 1 and 0; never a false alarm for a, so that F1 is 1 and 0 too.
    p = predictions([0] * 50 + [1] * 50, np.eye(2)[[0] * 100], [OK] * 50 + ["refused"] * 50)

    assert stats.bootstrap_intervals(p) == {"acc_macro": (0.5, 0.5), "f1_macro": (0.5, 0.5)}


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_of_the_calibration_error_holds_torchmetrics_value(seed):
    p = random_predictions(2000, seed=seed)

    low, high = stats.bootstrap_intervals(p)["ece"]

    assert 0 < low < measured_ece(p) < high < low + 0.06


def test_certainty_has_a_bin_of_its_own_as_in_torchmetrics():
    # Together in one bin the two gaps would partly cancel: 0.475 instead of 0.525.
    right = np.arange(10_000) % 2 == 0
    p = confident(np.where(right, 0.95, 1.0), right)

    low, high = stats.bootstrap_intervals(p)["ece"]

    assert measured_ece(p) == pytest.approx(0.525, abs=1e-5)
    assert 0.51 < low < 0.525 < high < 0.54


@pytest.mark.parametrize("edge", np.arange(8, 15) / 15)
def test_a_bin_begins_with_its_lower_edge_as_in_torchmetrics(edge):
    # Next to the edge, so as not to depend on its last bit. The gaps cancel only within one bin.
    below, above = edge - 1e-6, edge + 1e-6
    right = np.arange(2000) % 2 == 0
    apart, together = (confident(np.where(right, one, above), right) for one in (below, above))

    for p in (apart, together):
        low, high = stats.bootstrap_intervals(p, num_resamples=200)["ece"]
        assert low - 1e-6 <= measured_ece(p) <= high + 1e-6
    assert stats.bootstrap_intervals(apart, num_resamples=200)["ece"][0] > 0.45


@pytest.mark.parametrize("n", [140, 1000])
def test_the_interval_of_a_calibrated_predictor_reaches_down_to_no_error(n):
    samples = [overconfident(0, n, seed) for seed in range(40)]

    intervals = [stats.bootstrap_intervals(p, num_resamples=200)["ece"] for p in samples]

    assert sum(low == 0 for low, _ in intervals) >= 35  # 38 of 40 are 95 %; mirrored draws alone reach half
    for p, (_, high) in zip(samples, intervals, strict=True):
        assert high >= measured_ece(p) - 1e-6


def test_ece_interval_of_an_overconfident_predictor_covers_its_error():
    samples = [overconfident(0.2, 1000, seed) for seed in range(40)]

    intervals = [stats.bootstrap_intervals(p, num_resamples=200)["ece"] for p in samples]

    assert sum(low < 0.2 < high for low, high in intervals) >= 35
    assert min(low for low, _ in intervals) > 0.1


def test_interval_of_the_calibration_error_ends_at_1():
    _, high = stats.bootstrap_intervals(confident(np.array([0.99, 0.6]), np.array([False, True])))["ece"]
    assert high == 1.0


def test_calibration_is_measured_on_answered_images_alone():
    right = np.arange(1000) % 10 < 8
    confidence = np.where(right, 0.9, 0.7)
    answered = confident(confidence, right)
    more = predictions(
        np.zeros(1500, int),
        np.vstack([answered.probs, np.ones((500, 2))]),
        [OK] * 1000 + ["refused"] * 500,
    )
    more.labels[:1000] = answered.labels

    low, high = stats.bootstrap_intervals(more)["ece"]

    assert low < measured_ece(answered) < high
    assert high - low < 0.1


def test_the_same_predictions_and_seed_give_the_same_intervals():
    p = random_predictions(300)

    assert stats.bootstrap_intervals(p) == stats.bootstrap_intervals(p)
    assert stats.bootstrap_intervals(p) != stats.bootstrap_intervals(p, seed=1)


def test_a_smaller_sample_has_wider_intervals():
    large, small = (stats.bootstrap_intervals(random_predictions(n)) for n in (3600, 100))

    for name, (low, high) in small.items():
        assert 3 < (high - low) / (large[name][1] - large[name][0]) < 15, name


def test_the_whole_test_set_takes_well_below_a_second():
    p = random_predictions(7178)
    start = time.process_time()

    stats.bootstrap_intervals(p)

    assert time.process_time() - start < 2  # 0.2 s on an idle core


def test_a_spread_is_mean_sample_deviation_and_number():
    values = [0.551, 0.558, 0.549]

    assert stats.spread(values) == pytest.approx((np.mean(values), scipy.stats.tstd(values), 3))
    assert stats.spread([0.5]) == (0.5, None, 1)
