import csv
import logging
import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from fer_lightning.core.errors import FERError
from fer_lightning.core.signals import RunStopped, StopSignals
from fer_lightning.data.augment import Augment
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.models.mlp import MLP
from fer_lightning.training.callbacks import (
    MetricsCSV,
    ModelCheckpoint,
    ProgressBar,
    StopOnNonFiniteLoss,
    progress_bar,
)
from fer_lightning.training.checkpoint import read_checkpoint
from fer_lightning.training.checkpoint_io import AtomicCheckpointIO
from fer_lightning.training.classifier import FERClassifier

NUM_BATCHES = 5  # 70 faces in batches of 16
NUM_EPOCHS = 3


class SignalAt(Callback):
    """Lets a SIGTERM come during a training step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


class SignalInValidation(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        if trainer.current_epoch == self.epoch and batch_idx == 0:
            os.kill(os.getpid(), signal.SIGTERM)


class NotFinite(Callback):
    """Breaks the weights before or after the last step of an epoch."""

    def __init__(self, epoch, when):
        self.epoch, self.when = epoch, when

    def _break(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch and trainer.is_last_batch:
            with torch.no_grad():
                pl_module.backbone.head.bias.fill_(torch.nan)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.when == "before":
            self._break(trainer, pl_module)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.when == "after":
            self._break(trainer, pl_module)


class FromScores(FERClassifier):
    """Logs the given scores in the place of the measured ones."""

    scores = ()

    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()
        self.trainer.callback_metrics["val/acc"].fill_(self.scores[self.trainer.current_epoch])


@pytest.fixture
def fit(tmp_path, make_data):
    """Train a small MLP with dropout and augmentation in a folder; go on from a last.ckpt that is there."""

    def run(
        name="run",
        *,
        extra=(),
        max_epochs=NUM_EPOCHS,
        monitor="val/acc",
        mode="max",
        scores=None,
        scheduler=None,
        trainer_settings=(),
        ema_decay=0.0,
        **data_settings,
    ):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        data = make_data(augment=Augment(flip=0.5, shift=0.1, rotate=10), **data_settings)
        data.setup()
        torch.manual_seed(0)
        module = (FERClassifier if scores is None else FromScores)(
            backbone=MLP(num_classes=7, image_size=16, hidden=[16], dropout=0.5),
            classes=EXPRESSIONS,
            mean=0.5,
            std=0.2,
            optimizer=partial(torch.optim.Adam, lr=1e-2),
            scheduler=scheduler,
            ema_decay=ema_decay,
        )
        module.scores = scores
        with StopSignals() as signals:
            record = MetricsCSV()
            keep = ModelCheckpoint(monitor=monitor, mode=mode)
            keep.signals = signals
            trainer = Trainer(
                accelerator="cpu",
                devices=1,
                max_epochs=max_epochs,
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                limit_val_batches=1.0 if len(data.rows["val"]) else 0,  # as train.py does
                use_distributed_sampler=False,
                default_root_dir=folder,
                callbacks=[record, StopOnNonFiniteLoss(), keep, ProgressBar(), *extra],
                plugins=[AtomicCheckpointIO()],
                **dict(trainer_settings),
            )
            last = folder / "last.ckpt"
            try:
                trainer.fit(
                    module, datamodule=data, ckpt_path=last if last.exists() else None, weights_only=True
                )
            finally:
                run.folder, run.record = folder, record
        return module

    return run


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights_equal(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


# metrics.csv


def test_each_epoch_leaves_a_row(fit):
    fit()
    table = rows(fit.folder)
    assert [row["epoch"] for row in table] == ["0", "1", "2"]
    assert [row["step"] for row in table] == ["5", "10", "15"]
    assert {"lr", "train/loss", "train/acc", "val/loss", "val/acc", "val/f1_macro"} <= table[0].keys()
    assert not [name for name in table[0] if "second" in name or "images" in name]  # equal runs, equal files
    assert len(fit.record.epoch_seconds) == len(fit.record.images_per_s) == 3


def test_a_number_read_back_is_the_number_that_was_measured(fit):
    measured = {}

    class Remember(Callback):
        def on_train_end(self, trainer, pl_module):
            measured.update({name: value.item() for name, value in trainer.callback_metrics.items()})

    fit(extra=[Remember()], max_epochs=1)
    (row,) = rows(fit.folder)
    assert {name: np.float32(row[name]) for name in row if "/" in name} == {
        name: value for name, value in measured.items() if "/" in name
    }


def test_the_learning_rate_of_a_row_is_that_of_the_epoch_s_start(fit):
    halve = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    fit(scheduler=halve)
    assert [float(row["lr"]) for row in rows(fit.folder)] == [0.01, 0.005, 0.0025]


def test_rows_of_epochs_that_will_be_repeated_are_dropped(fit):
    fit(max_epochs=1)
    with (fit.folder / "metrics.csv").open("a") as file:
        number = len(rows(fit.folder)[0]) - 1
        file.write("1" + ",9" * number + "\n0")  # an epoch whose checkpoint was never saved; half a line
    fit(max_epochs=2)
    assert [row["epoch"] for row in rows(fit.folder)] == ["0", "1"]
    assert rows(fit.folder)[1]["step"] == "10"


def test_the_times_of_epochs_before_a_stop_are_kept(fit):
    fit(max_epochs=1)
    before = fit.record.epoch_seconds
    fit(max_epochs=2)
    assert fit.record.epoch_seconds[:1] == before
    assert len(fit.record.epoch_seconds) == len(fit.record.images_per_s) == 2


def test_an_interrupted_epoch_s_time_is_that_of_all_its_steps(fit):
    class Slow(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            time.sleep(0.02 if trainer.current_epoch == 1 else 0)

    with pytest.raises(RunStopped):
        fit(extra=[Slow(), SignalAt(MIDDLE)])
    assert len(fit.record.epoch_seconds) == 1
    fit(extra=[Slow()])
    seconds, rate = fit.record.epoch_seconds[1], fit.record.images_per_s[1]
    assert seconds >= NUM_BATCHES * 0.02
    assert rate == pytest.approx(70 / seconds, rel=0.02)


# Checkpoints


@pytest.mark.parametrize(
    ("mode", "scores", "best"),
    [
        ("max", [0.2, 0.6, 0.4], 1),
        ("min", [0.2, 0.6, 0.4], 0),
        ("max", [0.5, 0.5, 0.5], 0),
        ("max", [0.1, 0.2, 0.3], 2),
    ],
)
def test_best_is_the_first_epoch_with_the_best_score_and_last_is_the_last(fit, mode, scores, best):
    fit(mode=mode, scores=scores)
    _, origin = read_checkpoint(fit.folder / "best.ckpt")
    assert (origin.epoch, origin.selected_by) == (best, "val/acc")
    assert origin.score == pytest.approx(scores[best])
    assert len(origin.selected_on) == 28
    content, origin = read_checkpoint(fit.folder / "last.ckpt")
    assert (origin.epoch, origin.selected_by, origin.score) == (2, "last", None)
    assert len(origin.selected_on) == 0  # nothing was selected: the last is the last
    assert content["epoch"] == 2


def test_the_weights_of_best_are_those_its_epoch_ended_with(fit):
    module = fit(scores=[0.2, 0.6, 0.4])
    until_best = fit("two epochs", scores=[0.2, 0.6], max_epochs=2)
    state = read_checkpoint(fit.folder.parent / "run" / "best.ckpt")[0]["state_dict"]
    for name, value in until_best.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert not torch.equal(state["backbone.head.weight"], module.backbone.head.weight)


def test_best_checkpoint_holds_the_validated_ema_weights(fit):
    module = fit(ema_decay=0.9, protocol="paper", monitor=None)
    state = read_checkpoint(fit.folder / "best.ckpt")[0]["state_dict"]
    assert torch.equal(state["backbone.head.weight"], module.averaged.head.weight)
    assert not [name for name in state if name.startswith("averaged")]


def test_best_holds_what_predicting_needs_and_last_what_continuing_needs(fit):
    fit(max_epochs=1)
    best, last = (read_checkpoint(fit.folder / name)[0] for name in ("best.ckpt", "last.ckpt"))
    assert not best.keys() & {"optimizer_states", "lr_schedulers", "train_outputs"}
    assert last.keys() >= {"optimizer_states", "lr_schedulers", "train_outputs", "callbacks", "loops"}


def test_last_is_written_at_the_end_of_every_epoch(fit):
    seen = []

    class Look(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            path = Path(trainer.default_root_dir) / "last.ckpt"
            seen.append(read_checkpoint(path)[1].epoch if path.exists() else None)

    fit(extra=[Look()])
    assert seen == [None, 0, 1]


def test_without_a_monitor_best_is_the_last_epoch_and_says_so(fit):
    fit(monitor=None, protocol="paper")
    for name in ("best.ckpt", "last.ckpt"):
        _, origin = read_checkpoint(fit.folder / name)
        assert (origin.epoch, origin.selected_by, origin.score) == (2, "last", None)
        assert len(origin.selected_on) == 0
    assert "val/acc" not in rows(fit.folder)[0]


@pytest.mark.parametrize(
    ("when", "named"),
    [
        ("before", r"train/loss is nan at step \d+ \(epoch 2, batch \d+\)"),
        ("after", "val/loss is nan after epoch 2"),
    ],
)
def test_nan_loss_stops_with_one_sentence_and_keeps_earlier_checkpoints(fit, when, named):
    # A step that breaks the weights shows in the training loss of the next batch, and after the last batch of
    # an epoch in the validation alone.
    with pytest.raises(FERError, match=rf"^{named}: .*lower optimizer.lr"):
        fit(extra=[NotFinite(1, when)], scores=[0.1, 0.2, 0.3])
    for name in ("best.ckpt", "last.ckpt"):
        content, origin = read_checkpoint(fit.folder / name)
        assert origin.epoch == 0
        assert all(
            value.isfinite().all() for value in content["state_dict"].values() if value.is_floating_point()
        )


def test_unmeasured_monitor_raises_one_sentence(fit):
    with pytest.raises(FERError, match=r"^monitor=val/acc: not measured in epoch 1"):
        fit(trainer_settings={"check_val_every_n_epoch": 2})


# Stopping and going on

HALVE = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
ONE_CYCLE = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.02)
FIRST, MIDDLE, LAST = 0, NUM_BATCHES + 2, 2 * NUM_BATCHES - 1  # steps in which a SIGTERM comes


@pytest.mark.parametrize("protocol", ["official", "paper"])
@pytest.mark.parametrize("step", [FIRST, MIDDLE, LAST], ids=["first batch", "mid-epoch", "last batch"])
def test_a_run_stopped_anywhere_goes_on_as_if_nothing_had_happened(fit, step, protocol):
    settings = {
        "protocol": protocol,
        "monitor": "val/acc" if protocol == "official" else None,
        "scheduler": HALVE,
    }
    whole = fit("whole", **settings)
    with pytest.raises(RunStopped) as stop:
        fit("stopped", extra=[SignalAt(step)], **settings)
    assert stop.value.code == 143
    resumed = fit("stopped", **settings)
    assert weights_equal(resumed, whole)
    for name in ("metrics.csv",):
        one, other = (fit.folder.parent / run / name for run in ("stopped", "whole"))
        assert one.read_text() == other.read_text()
    one, other = (read_checkpoint(fit.folder.parent / run / "best.ckpt") for run in ("stopped", "whole"))
    assert (one[1].epoch, one[1].score) == (other[1].epoch, other[1].score)
    assert all(
        torch.equal(value, other[0]["state_dict"][name]) for name, value in one[0]["state_dict"].items()
    )


def test_a_schedule_by_steps_goes_on_as_well(fit):
    settings = {"scheduler": ONE_CYCLE}
    whole = fit("whole", **settings)
    with pytest.raises(RunStopped):
        fit("stopped", extra=[SignalAt(MIDDLE)], **settings)
    assert weights_equal(fit("stopped", **settings), whole)


def test_a_moving_average_goes_on_as_well(fit):
    whole = fit("whole", ema_decay=0.9)
    assert not torch.equal(whole.averaged.head.weight, whole.backbone.head.weight)
    with pytest.raises(RunStopped):
        fit("stopped", extra=[SignalAt(MIDDLE)], ema_decay=0.9)
    assert weights_equal(fit("stopped", ema_decay=0.9), whole)


def test_a_schedule_by_steps_counts_the_optimiser_s_steps(fit):
    rates = []

    class Remember(Callback):
        def on_train_end(self, trainer, pl_module):
            scheduler = trainer.lr_scheduler_configs[0].scheduler
            rates.append((scheduler.total_steps, trainer.global_step))

    for settings in ({}, {"accumulate_grad_batches": 2}, {"limit_train_batches": 3}):
        fit(
            str(settings),
            scheduler=ONE_CYCLE,
            max_epochs=2,
            extra=[Remember()],
            trainer_settings=settings,
        )
    assert rates == [(10, 10), (6, 6), (6, 6)]


def test_a_run_stopped_twice_goes_on_as_well(fit):
    whole = fit("whole")
    for step in (1, MIDDLE):
        with pytest.raises(RunStopped):
            fit("stopped", extra=[SignalAt(step)])
    assert weights_equal(fit("stopped"), whole)


def test_a_run_killed_after_an_epoch_repeats_nothing_and_skips_nothing(fit):
    whole = fit("whole")
    fit("killed", max_epochs=1)  # no signal: last.ckpt is that of an epoch's end
    assert weights_equal(fit("killed"), whole)


def test_a_signal_in_the_middle_of_an_epoch_saves_at_once(fit):
    with pytest.raises(RunStopped):
        fit(extra=[SignalAt(MIDDLE)])
    content, origin = read_checkpoint(fit.folder / "last.ckpt")
    assert (content["global_step"], origin.epoch) == (MIDDLE + 1, 1)
    assert len(rows(fit.folder)) == 1


def test_signal_during_validation_stops_after_the_epoch(fit):
    # Lightning's own handler would end the process with 0, the epoch lost.
    with pytest.raises(SystemExit) as stop:
        fit(extra=[SignalInValidation(1)])
    assert stop.value.code == 143
    assert read_checkpoint(fit.folder / "last.ckpt")[1].epoch == 1
    assert len(rows(fit.folder)) == 2


# What people see


def test_an_epoch_is_one_line_that_names_the_best(fit, caplog):
    with caplog.at_level(logging.INFO, logger="fer_lightning"):
        fit(scores=[0.2, 0.6, 0.4])
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("epoch ")]
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert [" best" in line for line in lines] == [True, True, False]
    assert "acc 60.0 % best" in lines[1]
    assert all("images/s" in line and line.endswith("left") for line in lines)
    assert lines[-1].endswith("0:00 left")


def test_a_narrow_terminal_gets_an_epoch_line_without_a_break(fit, caplog, monkeypatch):
    monkeypatch.setattr(progress_bar.console, "_width", 80)
    with caplog.at_level(logging.INFO, logger="fer_lightning"):
        fit(scores=[0.2, 0.6, 0.4])
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("epoch ")]
    assert max(map(len, lines)) <= 80
    assert all("val loss" in line and line.endswith("left") for line in lines)
    assert not any("images/s" in line for line in lines)


def test_within_a_step_our_callbacks_are_called_once():
    """Lightning passes by what is not callable; a hook that takes a step's time has to be worth it."""
    within = [
        name for name in dir(Callback) if name.startswith(("on_before_", "on_after_", "on_train_batch_"))
    ]
    assert len(within) > 5
    for kind in (MetricsCSV, ModelCheckpoint, ProgressBar):
        called = {name for name in within if callable(getattr(kind, name))} - {"on_before_optimizer_step"}
        assert called == {"on_train_batch_end"}, kind
        assert kind.on_before_optimizer_step is None
