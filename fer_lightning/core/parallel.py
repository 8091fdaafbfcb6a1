"""The cores that this process may use, and a parallel map over forks of it.

The GIL serialises pure Python work in threads, so the work is forked.
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

from fer_lightning.core.signals import ENDING_SIGNALS, terminate_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Worker(NamedTuple):
    process: BaseProcess
    results: Connection


def available_cores() -> int:
    """Count the cores that this process may use, by its affinity and its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or no quota ("max")
        return cores


def can_fork() -> bool:
    """Return whether this process may fork; on macOS, system libraries may abort in a fork."""
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


def map_forked(
    work: Callable[[Item], Result], items: Sequence[Item], *, num_processes: int
) -> Iterator[Result]:
    """Map over this process and forks of it, which end with the call.

    A fork reads the items in the memory it shares and sends its results back. If a fork is killed or cannot
    be started, this process does its part.

    Args:
        work: Applied to each item; without side effects, threads or devices. Its results can be pickled.
        items: Every ``num_processes``-th one goes to the same process.
        num_processes: Number of processes, this one included.

    Returns:
        The results in the order of the items.
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
    """Block signals: in a fork their handlers would act as a second command in the same folder."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    try:
        with warnings.catch_warnings():  # from Python 3.12 on, where this process has threads
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _do(work: Callable[[Item], Result], share: Sequence[Item], results: Connection) -> None:
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    terminate_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
    results.send([work(item) for item in share])


def _receive(worker: _Worker) -> list[Result] | None:
    """Wait for a fork's results; None if it ended before it had sent them all."""
    try:
        results: list[Result] = worker.results.recv()
    except (EOFError, OSError):
        return None
    return results
