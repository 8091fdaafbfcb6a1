"""SIGTERM and SIGINT end a run after its checkpoint is written, with the exit code shells expect."""

import contextlib
import ctypes
import signal
import threading
from types import FrameType, TracebackType

from fer_lightning.errors import RunStopped

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def exit_when_stopped() -> None:
    """End with the exit code that shells expect, and without a traceback, while no run is at work."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> None:  # by name, so that ddp_spawn can hand it on
    raise RunStopped(number)


def stop_with_parent() -> None:
    """Be sent a SIGTERM when the process that launched this one dies, on Linux; elsewhere do nothing.

    Else the jobs of a killed sweep would go on by themselves, and hold their folders against its successor.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class StopSignals:
    """Notes the first SIGTERM or SIGINT while it is entered; a second one stops at once, saving nothing.

    Lightning's own handling ends with exit code 0 after a SIGTERM, which a scheduler takes for success.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._former: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        self.install()
        return self

    def install(self) -> None:
        """Handle the signals, again if somebody else has taken them since."""
        for number in self._former:
            signal.signal(number, self._note)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type] # what signal.signal gave us

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None:
            raise RunStopped(number)
        self.received = number

    def check(self) -> None:
        """Stop if a signal came; called where nothing is half-done.

        Raises:
            RunStopped: Not an ``Exception``.
        """
        if self.received is not None:
            raise RunStopped(self.received)
