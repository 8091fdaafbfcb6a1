"""Kills of runs with callbacks and loggers of Lightning, through the command."""

import signal

import pytest

from tests.extending.test_callbacks import LIGHTNING, TOP
from tests.faults.test_kills import kill_and_compare

EXTRA = (
    "logger=[csv,tensorboard]", TOP, f"+callbacks.lr._target_={LIGHTNING}.LearningRateMonitor",
    f"+callbacks.stop={{_target_:{LIGHTNING}.EarlyStopping,monitor:val/nll,patience:2,min_delta:0.5}}",
)  # fmt: skip


@pytest.mark.slow
def test_killed_run_with_callbacks_and_loggers_goes_on_to_the_same_bits(cache, tmp_path):
    kill_and_compare("mlp", [signal.SIGKILL, signal.SIGTERM], seed=7, cwd=tmp_path, cache=cache, extra=EXTRA)
