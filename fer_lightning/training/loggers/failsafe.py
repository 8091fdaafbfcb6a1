"""Loggers whose failures do not stop a run."""

import logging
from typing import Any

from lightning.pytorch.loggers import Logger

from fer_lightning.training.loggers.wandb import FailsafeWandbLogger

log = logging.getLogger(__name__)

# What Lightning, its callbacks and ``RunLoggers`` call.
_METHODS = ("log_hyperparams", "log_metrics", "log_graph", "after_save_checkpoint", "save", "finalize")


class _Failsafe:
    """A method of a logger, in its place on the instance: an object, since DDP pickles loggers.

    Args:
        logger: The logger.
        method: The method's name.
    """

    def __init__(self, logger: Logger, method: str) -> None:
        self.logger, self.method = logger, method

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method, unless the logger has failed before."""
        if has_failed(self.logger):
            return None
        try:
            return getattr(type(self.logger), self.method)(self.logger, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever a logger raises, the run has its own files
            report_failure(self.logger, error)
            return None


def make_failsafe(logger: Logger) -> Logger:
    """Let a logger fail with a warning, after which it is not called again; return it.

    ``FailsafeWandbLogger`` sees to that itself.
    """
    if not isinstance(logger, FailsafeWandbLogger):
        for method in _METHODS:
            setattr(logger, method, _Failsafe(logger, method))
    return logger


def has_failed(logger: Logger) -> bool:
    """Return whether a logger has failed."""
    return bool(vars(logger).get("_has_failed"))


def report_failure(logger: Logger, error: Exception) -> None:
    """Warn that a logger has failed, and leave it alone from now on."""
    vars(logger)["_has_failed"] = True
    reason = " ".join(str(error).split()) or type(error).__name__
    log.warning("%s failed and records no more of this run: %s", type(logger).__name__, reason)
