"""The loss of single steps reaches W&B every N steps, and changes nothing in the run."""

import pytest

from fer_lightning.training.build import build_trainer
from fer_lightning.training.loggers.step_loss import StepLoss, step_loss_callbacks
from fer_lightning.training.loggers.wandb import FailsafeWandbLogger
from tests import in_process

pytestmark = pytest.mark.filterwarnings("ignore:The number of training batches")  # of the tests' few batches
SMALL = (
    "model=mlp",
    "model.hidden=[8]",
    "data.image_size=16",
    "trainer.accelerator=cpu",
    "data.batch_size=32",
)


class Recorder(FailsafeWandbLogger):
    """Keeps what would be sent."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.points = []

    def log_metrics(self, metrics, step=None):
        self.points.append((step, dict(metrics)))


@pytest.fixture
def fit(tmp_path, monkeypatch):
    """Train an MLP for two epochs of five batches; return the logger and the run folder."""

    def fit(every_n_steps, *overrides):
        recorder = Recorder(run_dir=tmp_path / "logged", log_every_n_steps=every_n_steps)
        build = build_trainer

        def with_logger(config, folder, callbacks, loggers, **settings):
            return build(config, folder, callbacks, [recorder], **settings)

        monkeypatch.setattr(in_process, "build_trainer", with_logger)
        run, _, module = in_process.fit(*SMALL, "trainer.max_epochs=2", *overrides, folder=tmp_path)
        return recorder, run, module

    return fit


def steps(recorder):
    return [step for step, point in recorder.points if "train/loss_step" in point]


@pytest.mark.parametrize(("n", "expected"), [(1, [*range(10)]), (3, [2, 5, 8]), (10, [9]), (50, [])])
def test_every_nth_step_has_a_point(fit, n, expected):
    assert steps(fit(n)[0]) == expected


def test_with_accumulation_steps_are_those_of_the_optimiser(fit):
    recorder, _, _ = fit(2, "+trainer.accumulate_grad_batches=2")
    assert steps(recorder) == [1, 3, 5]


def test_null_adds_no_callback(tmp_path):
    assert step_loss_callbacks(FailsafeWandbLogger(run_dir=tmp_path, log_every_n_steps=None)) == []
    assert step_loss_callbacks(None) == []
    [callback] = step_loss_callbacks(FailsafeWandbLogger(run_dir=tmp_path))
    assert isinstance(callback, StepLoss)
    assert callback.every_n_steps == 50


def test_logging_steps_changes_no_bit_of_the_run(fit):
    (_, run, module), (_, other, same) = fit(1), fit(None)
    columns = [(run.folder / "metrics.csv").read_text(), (other.folder / "metrics.csv").read_text()]
    assert columns[0] == columns[1]
    for weight, equal in zip(module.parameters(), same.parameters(), strict=True):
        assert weight.equal(equal)


def test_the_points_are_the_losses_of_their_steps(fit):
    recorder, run, _ = fit(1)
    losses = [point["train/loss_step"] for _, point in recorder.points if "train/loss_step" in point]
    sizes = [32, 32, 32, 32, 12]
    mean = sum(loss * size for loss, size in zip(losses[:5], sizes, strict=True)) / 140
    assert mean == pytest.approx(in_process.epochs(run)[0]["train/loss"], rel=1e-5)
