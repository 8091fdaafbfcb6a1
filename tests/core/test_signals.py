import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading

import pytest

from fer_lightning.core.signals import ENDING_SIGNALS, RunStopped, StopSignals


@pytest.fixture(autouse=True)
def _no_signal_ignored():
    """Undo what nohup and a background job of a shell switch off for all their processes."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ENDING_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(number, 128 + number) for number in ENDING_SIGNALS])
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


@pytest.mark.parametrize("number", ENDING_SIGNALS, ids=lambda number: number.name)
def test_each_ending_signal_ends_a_command_with_its_exit_code(number):
    done = run_script(f"os.kill(os.getpid(), {int(number)})\ntime.sleep(30)")
    assert (done.returncode, done.stderr) == (128 + number, "")


# Of faults, uncatchable, stopping a process, ignored by Python, and STKFLT, which nothing sends.
OTHERS = (
    *("SEGV", "BUS", "FPE", "ILL", "ABRT", "TRAP", "SYS", "KILL", "STOP", "TSTP", "TTIN", "TTOU"),
    *("PIPE", "XFSZ", "STKFLT"),
)


def test_every_catchable_signal_that_ends_a_process_is_handled():
    script = "import os, sys\nos.kill(os.getpid(), int(sys.argv[1]))\nprint('alive')"
    others = {getattr(signal, f"SIG{name}") for name in OTHERS} | set(
        range(signal.SIGRTMIN, signal.SIGRTMAX + 1)
    )
    for number in set(signal.valid_signals()) - others:
        command = [sys.executable, "-c", script, str(int(number))]
        done = subprocess.run(command, capture_output=True, text=True)
        assert ("alive" not in done.stdout) == (number in ENDING_SIGNALS), number


def test_sighup_that_nohup_switched_off_stays_so():
    done = run_script("os.kill(os.getpid(), signal.SIGHUP)\nprint('alive')", preexec_fn=ignore_sighup)
    assert (done.returncode, done.stdout) == (0, "alive\n")


def ignore_sighup():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
