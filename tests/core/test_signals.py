import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading

import pytest

from fer_lightning.core.signals import RunStopped, StopSignals


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_noted_and_stops_the_run_where_nothing_is_half_done(number, code):
    with StopSignals() as signals:
        signals.check()
        send(number)
        assert signals.received == number
        with pytest.raises(RunStopped) as stop:
            signals.check()
    assert stop.value.code == code
    assert stop.value.signal_number == number


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_at_once(second, monkeypatch):
    monkeypatch.setattr("fer_lightning.core.signals._SAME_WITHIN", 0.0)
    with StopSignals() as signals:
        send(signal.SIGTERM)
        with pytest.raises(RunStopped) as stop:
            send(second)
    assert stop.value.code == 128 + second
    assert signals.received == signal.SIGTERM


def test_the_same_signal_by_two_ways_is_one():
    with StopSignals() as signals:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        with pytest.raises(RunStopped):
            send(signal.SIGINT)
    assert signals.received == signal.SIGTERM


def test_a_stop_comes_home_from_another_process_as_it_was():
    stop = pickle.loads(pickle.dumps(RunStopped(signal.SIGTERM)))
    assert (stop.signal_number, stop.code) == (signal.SIGTERM, 143)


def test_the_former_handlers_come_back_however_the_block_ends():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with contextlib.suppress(ZeroDivisionError), StopSignals():
        assert signal.getsignal(signal.SIGTERM) not in before
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_stop_is_no_exception_that_a_sweep_would_swallow():
    assert not issubclass(RunStopped, Exception)
    assert issubclass(RunStopped, SystemExit)


def test_in_another_thread_which_may_handle_no_signals_nothing_happens():
    failed = []

    def enter():
        try:
            with StopSignals() as signals:
                signals.check()
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert not failed


def run_script(body, **settings):
    """Run Python code in a new interpreter that has installed the exit handlers."""
    start = "import atexit, os, signal, time, weakref\nfrom fer_lightning.core import signals\n"
    script = f"{start}signals.install_exit_handlers()\n{body}"
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, **settings
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("code", [0, 1])
def test_signal_while_the_interpreter_exits_ends_it_without_a_traceback(number, code):
    at_exit = f"print('finished', end='')\natexit.register(os.kill, os.getpid(), {int(number)})\n"
    done = run_script(f"{at_exit}raise SystemExit({code})")
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "finished", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_within_a_destructor_still_ends_the_command(number):
    done = run_script(
        f"class Held: __del__ = lambda self: os.kill(os.getpid(), {int(number)})\n"
        "held = Held()\ndel held\ntime.sleep(30)\nprint('not stopped')"
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "")


def test_other_errors_of_a_destructor_are_printed_as_ever():
    done = run_script("class Held: __del__ = lambda self: 1 / 0\nheld = Held()\ndel held")
    assert done.returncode == 0
    assert "ZeroDivisionError" in done.stderr
