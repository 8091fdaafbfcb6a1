"""The loggers of one run: config, test results and figures reach each of them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger
from numpy.typing import NDArray
from PIL import Image

from fer_lightning.config.compare import flatten
from fer_lightning.training.loggers.failsafe import has_failed, report_failure
from fer_lightning.training.loggers.wandb import FailsafeWandbLogger
from fer_lightning.training.loggers.wandb_media import SplitPredictions


class RunLoggers:
    """What train.py gives to all loggers besides the metrics that Lightning logs.

    A failure of a logger becomes a warning: the files of the run hold the same.

    Args:
        loggers: Of Lightning's interface.
    """

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self.wandb = [logger for logger in loggers if isinstance(logger, FailsafeWandbLogger)]
        self.others = [logger for logger in loggers if not isinstance(logger, FailsafeWandbLogger)]

    def identity(self) -> dict[str, Any]:
        """Return what ``run.json`` keeps to continue the W&B run; empty without W&B."""
        return {"wandb": self.wandb[0].identity()} if self.wandb else {}

    def start(self, config: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Log the resolved config, and what ``run.json`` knows of the run."""
        for logger in self.wandb:
            logger.start(config, record)
        plain = {key: value for key, value in flatten(config).items() if not key.startswith("logger.")}
        self._each(lambda logger: logger.log_hyperparams(plain))

    def log_result(self, metrics: Mapping[str, Any], record: Mapping[str, Any], step: int) -> None:
        """Log the content of ``metrics.json``: ``test/acc``, and ``best/val/acc`` of the best checkpoint.

        ``val/acc`` is the name of the curve over epochs.

        Args:
            metrics: By split.
            record: The content of ``run.json``.
            step: Optimiser steps of the whole training.
        """
        for logger in self.wandb:
            logger.log_result(metrics, record)
        numbers = {
            f"{'best/' if key.startswith('val.') else ''}{key.replace('.', '/')}": float(value)
            for key, value in flatten(metrics).items()
            if isinstance(value, int | float) and not isinstance(value, bool) and "per_class" not in key
        }

        def send(logger: Logger) -> None:
            logger.log_metrics(numbers, step)
            logger.save()

        self._each(send)

    def log_evaluation(
        self,
        split: str,
        predictions: SplitPredictions,
        metrics: Mapping[str, Any],
        images: NDArray[np.uint8],
    ) -> None:
        """Show one split in W&B, see ``FailsafeWandbLogger.log_evaluation``."""
        for logger in self.wandb:
            logger.log_evaluation(split, predictions, metrics, images)

    @property
    def log_page(self) -> bool:
        """Whether a logger wants the run's page as an artifact."""
        return any(logger.log_model != "none" for logger in self.wandb)

    def log_files(self, folder: Path, record: Mapping[str, Any], step: int) -> None:
        """Log artifacts to W&B, and figures to loggers that show images or store files.

        Args:
            folder: The run folder.
            record: The content of ``run.json``.
            step: Optimiser steps of the whole training.
        """
        for logger in self.wandb:
            logger.log_files(folder, record)

        def send(logger: Any) -> None:
            for path in sorted((folder / "figures").glob("*.png")):
                if hasattr(logger.experiment, "add_image"):  # TensorBoard
                    with Image.open(path) as image:
                        pixels = np.asarray(image.convert("RGB"))
                    logger.experiment.add_image(f"figures/{path.stem}", pixels, step, dataformats="HWC")
                elif hasattr(logger.experiment, "log_artifact"):  # MLflow
                    logger.experiment.log_artifact(logger.version, str(path), "figures")

        self._each(send)

    def finish(self, exit_code: int) -> None:
        """Close what is still open: 0 for a run that went well."""
        for logger in self.wandb:
            logger.finish(exit_code)
        self._each(lambda logger: logger.finalize("success" if exit_code == 0 else "failed"))

    def view_instructions(self) -> list[str]:
        """Say where the run is seen in W&B."""
        return [f"W&B: {logger.view_instructions()}" for logger in self.wandb]

    def _each(self, action: Callable[[Any], object]) -> None:
        for logger in self.others:
            if has_failed(logger):
                continue
            try:
                action(logger)
            except Exception as error:  # noqa: BLE001 - whatever a logger raises, the run has its own files
                report_failure(logger, error)
