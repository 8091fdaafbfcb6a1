import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.core.metrics import METRICS
from fer_lightning.training.metrics import check_monitor, make_metric

LOWER_IS_BETTER = ("val/loss", "val/ece", "val/brier", "val/nll")


@pytest.mark.parametrize("name", ["val/loss", *(f"val/{metric.key}" for metric in METRICS)])
def test_every_validation_metric_may_select_in_its_direction(name):
    check_monitor(name, "min" if name in LOWER_IS_BETTER else "max")


@pytest.mark.parametrize("name", ["val/accuracy", "acc", "train/acc", "test/acc", ""])
def test_no_other_name_may_select_least_of_all_a_test_metric(name):
    with pytest.raises(FERError, match=r"^monitor=.*expected one of val/loss, .*val/acc"):
        check_monitor(name, "max")


def test_a_mode_is_max_or_min():
    with pytest.raises(FERError, match="monitor_mode=best: expected max or min"):
        check_monitor("val/acc", "best")


@pytest.mark.parametrize(
    ("name", "mode"), [("val/loss", "max"), ("val/ece", "max"), ("val/acc", "min"), ("val/f1_macro", "min")]
)
def test_a_mode_that_would_keep_the_worst_epoch_is_refused(name, mode):
    with pytest.raises(FERError, match=f"monitor_mode={mode}: {name} is better"):
        check_monitor(name, mode)


@pytest.mark.parametrize("spec", METRICS, ids=lambda spec: spec.key)
def test_direction_in_the_table_is_that_of_torchmetrics(spec):
    assert make_metric(spec, 7).higher_is_better is spec.higher_is_better
