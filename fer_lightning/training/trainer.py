"""Lightning's Trainer with this package's defaults."""

import os
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from fer_lightning.core.errors import FERError
from fer_lightning.core.hardware import choose_device, choose_precision
from fer_lightning.core.processes import started_processes
from fer_lightning.training.checkpoint_io import AtomicCheckpointIO
from fer_lightning.training.overhead import NoProfiler


def _check_slurm_tasks() -> None:
    """Refuse the variables of a Slurm job that Lightning refuses, in words of ours."""
    if started_processes() is not None:
        return
    tasks = os.environ.get("SLURM_NTASKS", "1")
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if tasks == "1" or "SLURM_NTASKS_PER_NODE" in os.environ or (interactive and tasks.isdecimal()):
        return
    raise FERError(
        f"SLURM_NTASKS={tasks} in the environment: expected 1, since one process trains here; start the "
        "command with srun and trainer=ddp, the job with --ntasks=1, or unset SLURM_NTASKS"
    )


def _several_processes(settings: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Let ddp_spawn take the processes that torchrun or srun has started, instead of starting its own.

    Returns:
        Settings to replace, and Lightning's description of the processes.
    """
    processes = started_processes()
    if settings.get("strategy") != "ddp_spawn":
        return {}, []
    if processes is None:  # Lightning would take a job of Slurm for all processes, though it has one task
        return {}, [LightningEnvironment()]
    environment = (
        TorchElasticEnvironment()
        if processes.launcher == "torchrun"
        else SLURMEnvironment(auto_requeue=False)  # the command itself asks Slurm, after it has saved
    )
    replaced = {"strategy": "ddp", "devices": processes.local_world_size, "num_nodes": processes.num_nodes}
    return replaced, [environment]


class Trainer(pl.Trainer):
    """A Trainer that chooses the precision of its device and replaces checkpoints atomically.

    All arguments of Lightning's Trainer are taken. ``strategy="ddp_spawn"`` starts its processes, or takes
    those that torchrun or srun has started.

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
        _check_slurm_tasks()
        replaced, environment = _several_processes(settings)
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
            plugins=[*given, *own, *environment],
            **settings | replaced,
        )

    @property
    def checkpoint_callback(self) -> Any:
        """The callback that knows the best checkpoint; other epoch callbacks are of that family too."""
        return next((each for each in self.checkpoint_callbacks if hasattr(each, "best_model_path")), None)
