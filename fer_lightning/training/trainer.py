"""Lightning's Trainer with this package's defaults."""

from typing import Any

import lightning.pytorch as pl

from fer_lightning.core.hardware import choose_device, choose_precision
from fer_lightning.training.checkpoint_io import AtomicCheckpointIO
from fer_lightning.training.overhead import NoProfiler


class Trainer(pl.Trainer):
    """A Trainer that chooses the precision of its device and replaces checkpoints atomically.

    All arguments of Lightning's Trainer are taken.

    Args:
        accelerator: As in Lightning.
        precision: As in Lightning; ``auto`` is bf16-mixed where the device multiplies bf16 faster, else
            32-true.
        profiler: As in Lightning; None measures nothing, at less cost than Lightning's.
        plugins: As in Lightning; one that writes checkpoints replaces ``AtomicCheckpointIO``.
        **settings: Lightning's.
    """

    def __init__(
        self,
        *,
        accelerator: str = "auto",
        precision: Any = "auto",
        profiler: Any = None,
        plugins: Any = None,
        **settings: Any,
    ) -> None:
        given = plugins if isinstance(plugins, list) else [] if plugins is None else [plugins]
        own = (
            []
            if any(isinstance(plugin, pl.plugins.CheckpointIO) for plugin in given)
            else [AtomicCheckpointIO()]
        )
        super().__init__(
            accelerator=accelerator,
            precision=choose_precision(precision, choose_device(accelerator)),  # type: ignore[arg-type]
            profiler=NoProfiler() if profiler is None else profiler,
            plugins=[*given, *own],
            **settings,
        )

    @property
    def checkpoint_callback(self) -> Any:
        """The callback that knows the best checkpoint; other epoch callbacks are of that family too."""
        return next((each for each in self.checkpoint_callbacks if hasattr(each, "best_model_path")), None)
