"""The cores this process may use, and Python's work shared out among them.

Python works under one lock, for which threads would only wait: forks of this process have locks of their own.
"""

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple, TypeVar

from fer_lightning.core.signals import terminate_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Worker(NamedTuple):
    process: BaseProcess
    results: Connection


def available_cores() -> int:
    """Count the cores this process may use: its affinity, and a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or no quota ("max")
        return cores


def can_fork() -> bool:
    """Whether this process may have forks: not on macOS, whose own libraries may abort in one."""
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


def map_forked(
    work: Callable[[Item], Result], items: Sequence[Item], *, num_processes: int
) -> Iterator[Result]:
    """Give what ``map`` would, computed by this process and by forks of it, which end with the call.

    A fork finds the items where they lie in memory and sends its results back. What a fork leaves undone that
    was killed, or for which there was no memory, this process does itself.

    Args:
        work: To be done with each item; it changes nothing, and needs no thread or device.
        items: Every ``num_processes``-th one goes to the same process.
        num_processes: This one included.

    Returns:
        The results in the order of the items; they can be pickled.
    """
    shares = [items[first::num_processes] for first in range(num_processes)]
    workers: list[_Worker] = []
    try:
        for share in shares[1:]:
            if (worker := _start(work, share)) is None:
                break
            workers.append(worker)
        done = [list(map(work, shares[0]))]
        for number, share in enumerate(shares[1:]):
            received: list[Result] | None = _receive(workers[number]) if number < len(workers) else None
            done.append(list(map(work, share)) if received is None else received)
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
            worker.results.close()
    return (done[number % num_processes][number // num_processes] for number in range(len(items)))


def _start(work: Callable[[Item], Result], share: Sequence[Item]) -> _Worker | None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_do, args=(work, share, sender), daemon=True)
    try:
        with _quiet_fork():
            process.start()
    except OSError:  # no memory, or too many processes
        receiver.close()
        return None
    finally:
        sender.close()
    return _Worker(process, receiver)


@contextmanager
def _quiet_fork() -> Iterator[None]:
    """Keep signals away: their handlers would make of a fork a second command, at work in the same folder."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        with warnings.catch_warnings():  # from Python 3.12 on, where this process has threads
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _do(work: Callable[[Item], Result], share: Sequence[Item], results: Connection) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    terminate_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    results.send([work(item) for item in share])


def _receive(worker: _Worker) -> list[Result] | None:
    """Wait for a fork's results; None where it ended before it had sent them all."""
    try:
        results: list[Result] = worker.results.recv()
    except (EOFError, OSError):
        return None
    return results
