"""The processes of one run that torchrun or srun has started, and what the first one announces.

Each of them was given the same command. The first one follows it: it chooses the folder, reads the data and
writes. The others wait for its message, train with it and end. The environment alone is read at import;
torch is imported when the processes meet.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Literal, NamedTuple

from fer_lightning.core.errors import FERError

MEETING_S = 300  # seconds in which all processes must have started
_POLL_S = 0.1
# Keys of the message, and of how many processes have read it, are ready to train, and will not train.
_KEY, _READ, _READY, _ENDED = (f"fer_lightning/{name}" for name in ("run", "read", "ready", "ended"))
_READING_S = 10  # in which they read a message, if they still run


class Processes(NamedTuple):
    """What this process knows of itself and of the others.

    Attributes:
        launcher: Who started them.
        rank: Of this one, from 0.
        world_size: Their number.
        local_world_size: Their number on each node.
        num_nodes: The number of nodes.
    """

    launcher: Literal["torchrun", "srun"]
    rank: int
    world_size: int
    local_world_size: int
    num_nodes: int

    def threads(self, num_cores: int) -> int:
        """Return the CPU threads of each process: srun binds each to its own cores, torchrun to none."""
        if self.launcher == "srun":
            return max(1, min(num_cores, int(os.environ.get("SLURM_CPUS_PER_TASK") or num_cores)))
        return max(1, num_cores // self.local_world_size)


def started_processes() -> Processes | None:
    """Return the processes that were started with this one; None if it is alone.

    Raises:
        FERError: If srun started more of them on one node than on another.
    """
    given = os.environ
    if "TORCHELASTIC_RUN_ID" in given and int(given["WORLD_SIZE"]) > 1:
        world_size, local = int(given["WORLD_SIZE"]), int(given["LOCAL_WORLD_SIZE"])
        return Processes("torchrun", int(given["RANK"]), world_size, local, world_size // local)
    # A script of sbatch has a SLURM_NTASKS, too, but no step: it is one process, whatever it asked for.
    num_tasks = int(given.get("SLURM_STEP_NUM_TASKS", "1"))
    if "SLURM_STEP_ID" in given and num_tasks > 1:
        num_nodes = int(given.get("SLURM_STEP_NUM_NODES", "1"))
        if num_tasks % num_nodes:
            raise FERError(
                f"srun: {num_tasks} tasks on {num_nodes} nodes; expected as many on each node, such as "
                "--ntasks-per-node=4"
            )
        return Processes("srun", int(given["SLURM_PROCID"]), num_tasks, num_tasks // num_nodes, num_nodes)
    return None


def check_processes(trainer: Mapping[str, Any]) -> None:
    """Refuse a trainer that does not fit the processes that were started with this one.

    Args:
        trainer: A trainer node.

    Raises:
        FERError: If it trains in one process, or names another number of devices.
    """
    processes = started_processes()
    if processes is None:
        return
    launcher, local = processes.launcher, processes.local_world_size
    if trainer.get("strategy") != "ddp_spawn":
        raise FERError(
            f"{launcher} has started {processes.world_size} processes, and this trainer trains in one; add "
            "trainer=ddp, or start the command alone"
        )
    if trainer["devices"] not in (-1, "auto", local):
        raise FERError(
            f"trainer.devices={trainer['devices']}: {launcher} has started {local} processes on each node; "
            "leave it out"
        )


class _Board:
    """A message of the first process to the others, and their answers, on torch's key-value store."""

    def __init__(self, processes: Processes) -> None:
        from torch.distributed.rendezvous import rendezvous

        if processes.launcher == "srun":
            _set_address()
        store, _, _ = next(
            rendezvous("env://", processes.rank, processes.world_size, timeout=timedelta(seconds=MEETING_S))
        )
        self._store: Any = store
        self.is_written = False

    def write(self, message: Mapping[str, Any] | None) -> None:
        self._store.set(_KEY, json.dumps(message))
        self.is_written = True

    def read(self) -> Any:
        while not self._store.check([_KEY]):
            time.sleep(_POLL_S)
        message = json.loads(self._store.get(_KEY))
        self.answer(_READ)
        return message

    def answer(self, key: str) -> None:
        self._store.add(key, 1)

    def count(self, key: str) -> int:
        return int(self._store.add(key, 0))


_board: _Board | None = None  # of the first process, while it leads


def _set_address() -> None:
    """Choose the address of the first process from Slurm's variables, as Lightning does."""
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    os.environ.setdefault("SLURM_NTASKS", os.environ["SLURM_STEP_NUM_TASKS"])
    processes = started_processes()
    assert processes is not None
    os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(processes.local_world_size))
    slurm = SLURMEnvironment(auto_requeue=False)
    os.environ |= {"MASTER_ADDR": slurm.main_address, "MASTER_PORT": str(slurm.main_port)}


@contextmanager
def leading(processes: Processes) -> Iterator[None]:
    """Meet the other processes, and let them end if this one has nothing to train.

    Raises:
        FERError: If they do not come.
    """
    global _board
    try:
        _board = _Board(processes)
    except RuntimeError as error:
        raise FERError(
            f"the {processes.world_size} processes of {processes.launcher} did not meet within {MEETING_S} s "
            f"({' '.join(str(error).split())[:200]})"
        ) from error
    try:
        yield
    finally:
        if _board is not None and not _board.is_written:
            _board.write(None)
            deadline = time.monotonic() + _READING_S  # the store of srun ends with this process
            while _board.count(_READ) < processes.world_size - 1 and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        _board = None


def announce(run: Mapping[str, Any], check: Callable[[], None]) -> None:
    """Announce what to train to the other processes, if there are any, and wait until they are ready.

    Args:
        run: Values must be those of JSON.
        check: Called while they get ready; raises if this process is to stop.

    Raises:
        LostProcessError: If one of them ends before.
    """
    processes = started_processes()
    if _board is None or processes is None:
        return
    _board.write(run)
    while _board.count(_READY) < processes.world_size - 1:
        check()
        if _board.count(_ENDED):
            raise LostProcessError("another process of this run has ended; its own message says why")
        time.sleep(_POLL_S)


@contextmanager
def getting_ready(processes: Processes) -> Iterator[Any]:
    """Wait for what the first process announces, and let it know that this one is ready, or will not be.

    Yields:
        What it announced; None if it ends without training.
    """
    try:
        board = _Board(processes)
    except RuntimeError:  # the first process never came, and says why
        yield None
        return
    answer = _ENDED
    try:
        try:
            announced = board.read()
        except RuntimeError:  # the first process has ended
            announced = None
        yield announced
        answer = _READY
    finally:
        with suppress(RuntimeError):
            board.answer(answer)


def leave() -> None:
    """Work alone from now on: a Trainer that is built later does not look for the other processes."""
    if started_processes() is None:
        return
    import torch.distributed as distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()
    os.environ.pop("TORCHELASTIC_RUN_ID", None)
    if "SLURM_STEP_NUM_TASKS" in os.environ:
        os.environ.pop("SLURM_NTASKS_PER_NODE", None)
        os.environ |= {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"}


class LostProcessError(FERError):
    """Another process of this run has ended."""


def lost_process(error: BaseException) -> LostProcessError | None:
    """Describe an error of the connection between processes; None for another error."""
    from torch.distributed import DistError

    text = " ".join(str(error).split())
    if isinstance(error, DistError) or (isinstance(error, RuntimeError) and "gloo" in text):
        return LostProcessError(
            f"another process of this run has ended ({text[:150]}); its own message says why"
        )
    return None
