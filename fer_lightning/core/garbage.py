"""Python's garbage collection, paused while a command imports and when it ends.

Both times it would search all that torch and Lightning consist of, over and over, and find nothing
(benchmarks/README.md). Standard library only, since the commands import it before anything that takes time.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pause garbage collection until ``resume_gc``, and skip the interpreter's last one."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # hidden from the last search
        gc.enable()


def pause_gc_before_import(module: str) -> None:
    """Pause garbage collection until ``resume_gc`` if a module has yet to be imported.

    The process of a sweep's job imports what takes seconds by itself; jobs after the first do not.
    """
    if module not in sys.modules:
        gc.disable()


def resume_gc() -> None:
    """Collect garbage again, but leave out what a command has imported so far."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
