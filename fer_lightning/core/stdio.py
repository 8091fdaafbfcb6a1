"""Standard output and error that outlast their reader."""

import io
import os
import sys
from typing import Any


class _BrokenPipeSafeIO(io.FileIO):
    """Drops what cannot be printed: the reader of the pipe has ended, or the disk is full."""

    def write(self, data: Any) -> int:
        """Write, or pretend to."""
        try:
            return super().write(data)
        except OSError:
            return len(data)


def make_stdio_robust() -> None:
    """Keep running when stdout is closed, as by ``| head -1`` or ``>&-``: what cannot be printed is dropped.

    train.log has every line. Characters that the terminal's encoding lacks are escaped.
    """
    for fd, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell: the next file opened would be printed into
            os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
        else:
            stream.flush()
        raw = io.BufferedWriter(_BrokenPipeSafeIO(fd, "w", closefd=False))
        encoding = "utf-8" if stream is None else stream.encoding
        at_once = name == "stderr" or raw.isatty()
        setattr(
            sys,
            name,
            io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace", line_buffering=at_once),
        )
