"""Start one command in several processes, with the variables that torchrun or srun gives each of them."""

import socket
from pathlib import Path
from typing import Literal

from tests.commands import ROOT, environment
from tests.forked import Forked

DDP = ("trainer=ddp", "trainer.accelerator=cpu")


def variables(
    launcher: Literal["torchrun", "srun"], rank: int, number: int, *, nodes: int = 1, port: int = 0
) -> dict[str, str]:
    """Return what the launcher sets for one process."""
    local = number // nodes
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if launcher == "torchrun":
        ranks = {"RANK": rank, "LOCAL_RANK": rank % local, "GROUP_RANK": rank // local}
        sizes = {"WORLD_SIZE": number, "LOCAL_WORLD_SIZE": local}
        return {"TORCHELASTIC_RUN_ID": "test"} | address | _text(ranks | sizes)
    ranks = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank % local, "SLURM_NODEID": rank // local}
    sizes = {"SLURM_STEP_NUM_TASKS": number, "SLURM_NTASKS": number, "SLURM_STEP_NUM_NODES": nodes}
    sizes |= {"SLURM_NNODES": nodes, "SLURM_JOB_ID": 17, "SLURM_STEP_ID": 0}
    return {"SLURM_NODELIST": "localhost"} | address | _text(ranks | sizes)


def _text(numbers: dict[str, int]) -> dict[str, str]:
    return {name: str(value) for name, value in numbers.items()}


def start(
    *arguments: str, cwd: Path, cache: Path, launcher: Literal["torchrun", "srun"] = "torchrun",
    number: int = 2, nodes: int = 1, **extra: str,
) -> list[Forked]:  # fmt: skip
    """Start ``python ARGUMENT...`` in several processes, the one of rank 0 first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script, *rest = arguments
    words = [str(ROOT / script), *rest]
    return [
        Forked(
            words,
            cwd=cwd,
            env=environment(cache, **variables(launcher, rank, number, nodes=nodes, port=port), **extra),
        )
        for rank in range(number)
    ]
