"""Signals end a run after its checkpoint is written, with the exit code that shells expect.

The commands import this before anything that takes time, so it needs the standard library only.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# The signals that end a process by default and can be caught: of a terminal (INT, HUP when it closes, QUIT),
# of schedulers (TERM, USR1, USR2, XCPU) and of timers and the system. Some systems lack some.
_ENDING = ("INT", "HUP", "QUIT", "TERM", "USR1", "USR2", "XCPU", "ALRM", "VTALRM", "PROF", "IO", "PWR")
ENDING_SIGNALS = tuple(
    dict.fromkeys(getattr(signal, f"SIG{name}") for name in _ENDING if hasattr(signal, f"SIG{name}"))
)
_SAME_WITHIN = 1.0  # seconds in which repeated signals count as one


class RunStopped(SystemExit):
    """A signal ended the run after its checkpoint was written.

    Not an ``Exception``, so that it ends a whole sweep; the exit code is 128 plus the signal's number, as
    shells expect: 143 for SIGTERM, 130 for SIGINT, 129 for SIGHUP.

    Args:
        signal_number: The signal that asked the run to stop.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(128 + signal_number)
        self.signal_number = signal_number

    def __reduce__(self) -> tuple[type["RunStopped"], tuple[int]]:
        """Pickle by the signal's number; ``args`` holds the exit code."""
        return RunStopped, (self.signal_number,)


_stopped_by: int | None = None  # the last signal that this process was sent


def stop_requested() -> bool:
    """Return whether this process has received a signal."""
    return _stopped_by is not None


def check_stopped() -> None:
    """End the process if a signal came before and was lost.

    A library that is interrupted may turn the signal into another error, as OmegaConf does, or pass it to
    another process and start the next job, as joblib does.

    Raises:
        RunStopped: If a signal came.
    """
    if _stopped_by is not None:
        raise RunStopped(_stopped_by)


def install_exit_handlers(before_exit: Callable[[], None] | None = None) -> None:
    """End with the exit code that shells expect and without a traceback, until a run handles signals itself.

    Args:
        before_exit: Waits for what must end first, such as jobs in other processes.
    """

    def end(number: int, frame: FrameType | None) -> None:
        forward_to_children(number)
        if before_exit is not None:
            before_exit()
        _end(number, frame)

    if threading.current_thread() is threading.main_thread():  # no other may
        for number in _not_ignored():
            signal.signal(number, _end if before_exit is None else end)
        if sys.unraisablehook is sys.__unraisablehook__:
            sys.unraisablehook = _send_again


def _not_ignored() -> list[signal.Signals]:
    """List the ending signals but those that the parent has switched off, as nohup does with SIGHUP."""
    always = (signal.SIGTERM, signal.SIGINT)
    return [
        number for number in ENDING_SIGNALS if number in always or signal.getsignal(number) != signal.SIG_IGN
    ]


def _end(number: int, _frame: FrameType | None) -> None:  # by name, so that ddp_spawn can hand it on
    global _stopped_by
    _stopped_by = number
    if not threading.main_thread().is_alive():  # at exit, where Python would print what is raised
        _exit_at_once(128 + number)
    raise RunStopped(number)


def _send_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Send a signal again that came within a destructor, where Python swallows what its handler raises."""
    if isinstance(unraisable.exc_value, RunStopped):
        again = threading.Timer(0.01, os.kill, (os.getpid(), unraisable.exc_value.signal_number))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(unraisable)


def _exit_at_once(code: int) -> None:
    with contextlib.suppress(Exception):  # the interrupted code may hold a stream
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def forward_to_children(number: int) -> None:
    """Send a signal to the processes of joblib's jobs and of ddp_spawn's ranks."""
    if "multiprocessing" in sys.modules:
        for child in sys.modules["multiprocessing"].active_children():
            with contextlib.suppress(OSError):
                os.kill(child.pid, number)


def terminate_with_parent() -> None:
    """Ask Linux for a SIGTERM when the process that launched this one dies.

    Otherwise the jobs of a killed sweep would continue, and keep their folders locked against its successor.
    Other systems ignore it.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class StopSignals:
    """Records the first ending signal while it is entered; a second one stops at once without saving.

    The same signal within a second counts as one: a terminal sends it to all processes, and some forward it.
    Lightning's own handler ends with exit code 0 after a SIGTERM, which a scheduler takes for success.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._when = 0.0
        self._former: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.getsignal(number) for number in _not_ignored()}
        self.install()
        return self

    def install(self) -> None:
        """Handle the signals, again if another handler was installed since."""
        for number in self._former:
            signal.signal(number, self._note)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type] # what signal.signal gave us

    def _note(self, number: int, _frame: FrameType | None) -> None:
        global _stopped_by
        _stopped_by = number
        if self.received is None:
            self.received, self._when = number, time.monotonic()
            forward_to_children(number)
        elif number != self.received or time.monotonic() - self._when > _SAME_WITHIN:
            raise RunStopped(number)

    def check(self) -> None:
        """Stop if a signal came; called where no work is half done.

        Raises:
            RunStopped: If a signal came.
        """
        if self.received is not None:
            raise RunStopped(self.received)
