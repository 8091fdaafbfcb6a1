"""Schedulers, optimisers and batch transforms from the command line; the same bits after a stop."""

import pytest

from fer_lightning.core.errors import FERError
from tests.extending.conftest import SMALL
from tests.extending.test_callbacks import check_same_bits
from tests.in_process import epochs, fit
from tests.slow import slow_except

RECIPE = (
    *SMALL,
    "data.augment.flip=0.5",
    "trainer.max_epochs=3",
    "logger=none",
    "trainer.deterministic=true",
)

SCHEDULERS = "torch.optim.lr_scheduler"
CASES = {
    "plateau": ("scheduler=plateau", "scheduler.patience=0", "+scheduler.threshold=0.9"),
    "step_lr": (f"+scheduler={{_target_:{SCHEDULERS}.StepLR,step_size:1,gamma:0.5}}",),
    "every_step": (
        f"+scheduler={{_target_:{SCHEDULERS}.LinearLR,start_factor:0.1,total_iters:15}}",
        "classifier.scheduler_interval=step",
    ),
    "own": ("+scheduler._target_=my_package.schedules.warmup_cosine", "+scheduler.warmup=0.2"),
    "onecycle_max_steps": ("scheduler=onecycle", "+trainer.max_steps=12"),
    "onecycle_epochs": ("scheduler=onecycle", "classifier.scheduler_interval=epoch"),
    "sam": ("optimizer=sam", "optimizer.lr=0.05"),
    "mixup": ("data.batch_transforms=[{_target_:torchvision.transforms.v2.MixUp,num_classes:7,alpha:0.2}]",),
    "cutmix": (
        "data.batch_transforms=[{_target_:torchvision.transforms.v2.CutMix,num_classes:7}]", "loss=focal",
    ),
}  # fmt: skip
RATES = {
    "plateau": [1e-3, 1e-3, 1e-4],
    "step_lr": [1e-3, 5e-4, 2.5e-4],
    "every_step": [1e-4, 4e-4, 7e-4],
    "own": [1e-5, 1e-3 * 0.933, 1e-3 * 0.371],
    "onecycle_max_steps": [4e-5, 8.1e-4, 3.5e-5],
}


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize("case", slow_except(("plateau", "sam", "mixup"), CASES))
def test_stopped_run_repeats_its_bits_and_its_learning_rates(case, tmp_path):
    whole, _, _ = fit(*RECIPE, *CASES[case], folder=tmp_path)
    stopped, _, _ = fit(*RECIPE, *CASES[case], folder=tmp_path, stop_at=(8,))
    check_same_bits(whole, stopped)
    rates = [epoch["lr"] for epoch in epochs(whole)]
    if case in RATES:
        assert rates == pytest.approx(RATES[case], rel=0.1)


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize("case", ["sam", "mixup"])
def test_every_image_counts_once_and_with_its_own_label(case, tmp_path):
    run, _, _ = fit(*RECIPE, *CASES[case], "trainer.max_epochs=1", folder=tmp_path)
    [epoch] = epochs(run)
    right = epoch["train/acc"] * 140
    assert right == pytest.approx(round(right), abs=1e-4)
    assert epoch["step"] == 5


def test_run_that_max_steps_ends_within_an_epoch_is_validated(tmp_path):
    run, _, _ = fit(*RECIPE, "+trainer.max_steps=7", folder=tmp_path)
    rows = epochs(run)
    assert [row["step"] for row in rows] == [5, 7]
    assert rows[0]["val/loss"] != rows[1]["val/loss"]
    assert (run.folder / "best.ckpt").is_file()


def test_overfit_batches_repeats_the_same_batches(tmp_path):
    settings = (
        "+trainer.overfit_batches=1",
        "data.augment.flip=0.0",
        "optimizer.lr=0.0",
        "model.dropout=0.0",
    )
    run, _, _ = fit(*SMALL, *settings, "logger=none", "trainer.precision=32-true", folder=tmp_path)
    first, second = epochs(run)
    assert first["step"] == 1
    assert first["train/acc"] == second["train/acc"]
    assert first["train/loss"] == pytest.approx(second["train/loss"], abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("scheduler=plateau", "data.protocol=paper"),
            "scheduler: ReduceLROnPlateau follows val/acc, and there is no validation split",
        ),
        (("scheduler=plateau", "classifier.scheduler_interval=step"), "expected epoch or auto"),
        (
            ("scheduler=plateau", "classifier.monitor=val/lss"),
            "classifier.monitor=val/lss: .* expected one of val/",
        ),
        (("scheduler=plateau", "scheduler.factor=2"), "scheduler.factor=2: Factor should be < 1.0"),
    ],
)
def test_schedulers_that_cannot_work_are_refused(settings, message, tmp_path):
    with pytest.raises(FERError, match=message):
        fit(*RECIPE, *settings, folder=tmp_path)


@pytest.mark.slow
def test_optimizer_of_timm_needs_no_partial(tmp_path):
    pytest.importorskip("timm")
    fit(*SMALL, "logger=none", "~optimizer", "+optimizer={_target_:timm.optim.Lion,lr:1e-4}", folder=tmp_path)
