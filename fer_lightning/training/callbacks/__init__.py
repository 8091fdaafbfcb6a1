"""Callbacks of the Trainer: checkpoints, the metrics file, progress, and a guard against diverging."""

from fer_lightning.training.callbacks.metrics_csv import MetricsCSV
from fer_lightning.training.callbacks.model_checkpoint import ModelCheckpoint
from fer_lightning.training.callbacks.non_finite import StopOnNonFiniteLoss
from fer_lightning.training.callbacks.progress_bar import ProgressBar

__all__ = ["MetricsCSV", "ModelCheckpoint", "ProgressBar", "StopOnNonFiniteLoss"]
