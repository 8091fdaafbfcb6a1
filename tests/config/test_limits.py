import pytest

from fer_lightning.config.limits import limits_of

WHOLE = {"limit_train_batches": 1.0, "limit_val_batches": 1.0, "limit_predict_batches": 1.0}


@pytest.mark.parametrize(
    ("trainer", "option", "limits"),
    [
        (WHOLE, None, []),
        ({}, "auto", []),
        (WHOLE, "smoke", ["trainer=smoke"]),
        (WHOLE | {"limit_train_batches": 0.5}, None, ["trainer.limit_train_batches=0.5"]),
        (WHOLE | {"limit_val_batches": 2}, None, ["trainer.limit_val_batches=2"]),
        (WHOLE | {"limit_train_batches": 1}, None, ["trainer.limit_train_batches=1"]),
        ({"limit_test_batches": 3}, None, ["trainer.limit_test_batches=3"]),
        ({"limit_predict_batches": 4, "overfit_batches": 1}, None, ["trainer.overfit_batches=1"]),
        ({"limit_train_batches": 4, "max_epochs": 1}, None, []),
    ],
)
def test_settings_that_leave_images_out_are_listed(trainer, option, limits):
    assert limits_of(trainer, {"train": 4, "val": 3, "test": 4}, option=option) == limits


def test_a_number_of_batches_limits_an_unknown_split():
    assert limits_of({"limit_train_batches": 10_000}) == ["trainer.limit_train_batches=10000"]
