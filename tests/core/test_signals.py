import contextlib
import os
import pickle
import signal
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
