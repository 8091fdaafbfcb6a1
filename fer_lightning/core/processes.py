"""The processes of one run that torchrun or srun has started, and what the first one announces.

Each of them was given the same command. The first one follows it: it chooses the folder, reads the data and
writes. The others wait for its message, read the data, train with it and end. torch is imported when they
meet; a command that is alone only reads the environment.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Literal, NamedTuple

from fer_lightning.core.errors import FERError
from fer_lightning.core.signals import RunStopped, check_stopped

MEETING_S = 300  # seconds in which all processes must have started
_POLL_S = 0.1
_READING_S = 10  # in which they read a message, if they still run
_READY_S = 1800  # in which the others have read the data; Lightning's own limit for their connection
_ENDING_S = 30  # in which the first one has noticed that another ends, and has written its record and page
_REASON_S = 1  # in which a process that has ended has said why, if it could


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


def num_processes(trainer: Mapping[str, Any]) -> int:
    """Return how many processes a trainer node trains in."""
    started = started_processes()
    if started is not None:
        return started.world_size
    devices = trainer["devices"]
    if trainer.get("strategy") != "ddp_spawn" or isinstance(devices, list):
        return len(devices) if isinstance(devices, list) else 1
    if isinstance(devices, int) and devices > 0:
        return devices
    import torch

    return max(1, torch.cuda.device_count())


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
    """Messages between the processes, on torch's own key-value store."""

    def __init__(self, store: Any, world_size: int) -> None:
        self._store = store
        self.others = [*range(1, world_size)]
        self.written: set[str] = set()

    def write(self, name: str, message: Any) -> None:
        self._store.set(f"fer_lightning/{name}", json.dumps(message))
        self.written.add(name)

    def read(self, name: str, *, within: float = math.inf, check: Callable[[], None] = check_stopped) -> Any:
        """Wait for a message, and return it; None if it does not come in time."""
        key, deadline = f"fer_lightning/{name}", time.monotonic() + within
        while not self.holds(name):
            check()
            if time.monotonic() > deadline:
                return None
            time.sleep(_POLL_S)
        message = json.loads(self._store.get(key))
        self._store.add(f"{key}/read", 1)
        return message

    def holds(self, name: str) -> bool:
        return bool(self._store.check([f"fer_lightning/{name}"]))

    def wait_for_readers(self, name: str, number: int) -> None:
        """Wait until the others have read a message: the store of srun ends with the first process."""
        deadline = time.monotonic() + _READING_S
        while self._store.add(f"fer_lightning/{name}/read", 0) < number and time.monotonic() < deadline:
            time.sleep(_POLL_S)


_board: _Board | None = None  # while a command runs in several processes


def _meet(processes: Processes) -> _Board:
    """Wait for the other processes."""
    from torch.distributed.rendezvous import rendezvous

    if processes.launcher == "srun":
        _set_address()
    limit = timedelta(seconds=MEETING_S)
    store, _, _ = next(rendezvous("env://", processes.rank, processes.world_size, timeout=limit))
    return _Board(store, processes.world_size)


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
    """Meet the other processes, and let them end with this one.

    Raises:
        FERError: If they do not come.
    """
    global _board
    try:
        _board = _meet(processes)
    except RuntimeError as error:
        raise FERError(
            f"the {processes.world_size} processes of {processes.launcher} did not meet within {MEETING_S} s "
            f"({' '.join(str(error).split())[:200]})"
        ) from error
    try:
        yield
    finally:
        with suppress(RuntimeError):  # torchrun was killed, and its store with it
            for name in ("run", "start"):  # what they wait for, unless they train already
                if name not in _board.written:
                    _board.write(name, None)
                    _board.wait_for_readers(name, len(_board.others))
                    break
            _board.write("ended", True)
            if _board.holds("problem"):  # its process has said why it ends, and waits for this one's end
                _board.wait_for_readers("ended", 1)
        _board = None


def announce(run: Mapping[str, Any]) -> None:
    """Announce what to train to the other processes, if there are any, and wait until they can start.

    Args:
        run: Values of JSON.

    Raises:
        FERError: If one of them cannot.
        RunStopped: If a signal ended one of them, or this one.
    """
    if _board is None:
        return
    _board.write("run", run)
    for rank in tuple(_board.others):
        answer = _board.read(f"ready/{rank}", within=_READY_S)
        if answer is None:
            raise FERError(f"process {rank} was not ready to train within {_READY_S} s of the first")
        if answer["problem"] or answer["stopped_by"]:
            _board.others.remove(rank)  # it ends
        if answer["stopped_by"] is not None:
            raise RunStopped(answer["stopped_by"])
        if answer["problem"] is not None:
            raise FERError(answer["problem"])
    _board.write("start", True)


class Follower:
    """The side of a process that follows the first one.

    Args:
        processes: This one and the others.
    """

    def __init__(self, processes: Processes) -> None:
        self._rank = processes.rank
        self._board = _meet(processes)

    def await_run(self) -> Any:
        """Return what the first process announces; None if it ends without training."""
        return self._board.read("run")

    def await_start(self) -> bool:
        """Say that this process is ready; return whether all are.

        From now on a signal must only be recorded, since the others rely on this process.
        """
        self._board.write(f"ready/{self._rank}", {"problem": None, "stopped_by": None})
        return self._board.read("start", check=lambda: None) is True

    def stop(self, signal_number: int) -> None:
        """Say, instead of being ready, that a signal ends this process."""
        self._board.write(f"ready/{self._rank}", {"problem": None, "stopped_by": signal_number})

    def refuse(self, problem: str) -> bool:
        """Say, instead of being ready, why this process ends; return whether the first one ends with it."""
        self._board.write(f"ready/{self._rank}", {"problem": problem, "stopped_by": None})
        return self.report(problem)

    def report(self, problem: str) -> bool:
        """Say why this process ends while it trains; return whether the first one ends with it.

        It waits for that end: torchrun would end the first process with this one.
        """
        from torch.distributed import DistError

        try:
            self._board.write("problem", problem)
            return self._board.read("ended", within=_ENDING_S) is not None
        except DistError:  # the store has ended with the first process
            return True


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
    if not (isinstance(error, DistError) or (isinstance(error, RuntimeError) and "gloo" in text)):
        return None
    problem = None if _board is None else _board.read("problem", within=_REASON_S)
    return LostProcessError(problem or f"another process of this run has ended ({text[:150]})")
