"""Lightning's CSVLogger, whose file a resumed run continues."""

import csv
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch.loggers as pl_loggers
from lightning.fabric.loggers.logger import rank_zero_experiment

from fer_lightning.core.files import write_atomically


class CSVLogger(pl_loggers.CSVLogger):
    """A CSVLogger that keeps the rows of its folder, where Lightning's deletes them.

    All arguments of Lightning's are taken.
    """

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Lightning's writer of the file."""
        if self._experiment is not None:
            return self._experiment
        file = Path(self.log_dir) / "metrics.csv"
        before = file.read_text(encoding="utf-8") if file.is_file() else ""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty")
            experiment = super().experiment
        if before:
            write_atomically(file, before)
            experiment.metrics_keys = next(csv.reader(before.splitlines()))
        return experiment
