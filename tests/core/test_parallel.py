import os
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from fer_lightning.core import parallel, signals
from fer_lightning.core.parallel import map_forked
from fer_lightning.core.signals import RunStopped, install_exit_handlers


def where(item: int) -> tuple[int, int]:
    return item, os.getpid()


@pytest.mark.parametrize("num_items", [0, 1, 2, 3, 10])
def test_results_come_in_order_from_as_many_processes_as_were_asked_for(num_items: int) -> None:
    results = list(map_forked(where, range(num_items), num_processes=3))
    assert [item for item, _ in results] == list(range(num_items))
    assert len({process for _, process in results}) == min(num_items, 3)
    assert all(process == os.getpid() for _, process in results[::3])


def test_what_a_killed_fork_leaves_undone_is_done_here() -> None:
    here = os.getpid()

    def work(item: int) -> tuple[int, int]:
        if item == 4 and os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return where(item)

    results = list(map_forked(work, range(6), num_processes=3))
    assert [item for item, _ in results] == list(range(6))
    assert [process == here for _, process in results] == [True, True, False] * 2


def test_without_memory_for_a_fork_all_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> NoReturn:
        raise OSError(12, "Cannot allocate memory")

    open_files = Path("/proc/self/fd")
    before = len(list(open_files.iterdir()))
    monkeypatch.setattr(os, "fork", fork)
    assert list(map_forked(where, range(20), num_processes=9)) == [(item, os.getpid()) for item in range(20)]
    assert len(list(open_files.iterdir())) <= before + 4  # multiprocessing leaves those of its one attempt


def test_an_error_here_ends_the_forks() -> None:
    here = os.getpid()

    def work(item: int) -> None:
        if os.getpid() == here:
            raise ValueError(item)
        time.sleep(60)

    started = time.monotonic()
    with pytest.raises(ValueError, match="0"):
        map_forked(work, range(4), num_processes=2)
    assert time.monotonic() - started < 30
    assert not parallel.multiprocessing.active_children()


def test_a_signal_ends_the_work_and_its_forks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_stopped_by", None)  # of this whole process, and put back
    here = os.getpid()

    def work(folder: Path, item: int) -> None:
        (folder / f"{os.getpid()}_{item}").touch()
        if os.getpid() == here:
            deadline = time.monotonic() + 30
            while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)

    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    install_exit_handlers()
    started = time.monotonic()
    try:
        with pytest.raises(RunStopped):
            map_forked(partial(work, tmp_path), range(2), num_processes=2)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    assert time.monotonic() - started < 25
    assert len(list(tmp_path.iterdir())) == 2
    assert not parallel.multiprocessing.active_children()


def test_fork_in_a_threaded_process_gives_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert [item for item, _ in map_forked(where, range(4), num_processes=2)] == [0, 1, 2, 3]
    finally:
        stop.set()
        thread.join()
    assert not recwarn.list
