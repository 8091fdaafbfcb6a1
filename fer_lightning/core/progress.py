"""One line on a terminal that says what is being done, and goes away.

It needs no thread, so a process that shows it can fork. It uses ``sys.stdout`` alone, so it can be shown
while torch is imported.
"""

import atexit
import os
import sys
import time

_CLEAR = "\r\x1b[2K"
_DUMB = ("dumb", "unknown")  # terminals that erase nothing
_INTERVAL = 0.1  # seconds between two states of the same work

_shown = False
_last = 0.0


def show_progress(what: str, done: int | None = None, total: int | None = None) -> None:
    """Replace the line; does nothing away from a terminal, and on one that erases nothing.

    Args:
        what: What is being done, such as ``decoding images``.
        done: How much of it is done; such lines are shown a few times a second.
        total: How much there is; None if that is not known.
    """
    global _shown, _last
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb").lower() in _DUMB:
        return
    if done is not None and _shown and time.monotonic() - _last < _INTERVAL:
        return
    counted = "" if done is None else f" {done:,}" if total is None else f" {done:,} of {total:,}"
    try:
        width = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        width = 80
    sys.stdout.write(f"{_CLEAR}{f'{what}{counted} ...'[: width - 1]}\r")
    sys.stdout.flush()
    _shown, _last = True, time.monotonic()


def clear_progress() -> None:
    """Remove the line, so that something else can be printed."""
    global _shown
    if _shown:
        sys.stdout.write(_CLEAR)
        sys.stdout.flush()
        _shown = False


atexit.register(clear_progress)
