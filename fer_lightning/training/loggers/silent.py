"""The logger of a process that is not the first of its run, for callbacks that need one."""

from typing import Any

from lightning.pytorch.loggers import Logger


class SilentLogger(Logger):
    """A logger that records nothing."""

    @property
    def name(self) -> str:
        """An empty name."""
        return ""

    @property
    def version(self) -> str:
        """An empty version."""
        return ""

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Record nothing."""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Record nothing."""
