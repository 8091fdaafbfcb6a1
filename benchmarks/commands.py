"""The project's commands in processes of their own, timed from outside."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.loops import ROOT


class Finished(NamedTuple):
    """A command that ended well.

    Attributes:
        started: When, in seconds since 1970.
        seconds: Wall time.
        peak_gb: The most memory that its process held at a time, in GB (1e9 bytes).
        output: What it printed.
    """

    started: float
    seconds: float
    peak_gb: float
    output: str


def run(arguments: Sequence[str | Path], *, cwd: Path) -> Finished:
    """Run ``python ARGUMENT...``; a script is named by its file in the project's root.

    Raises:
        RuntimeError: If it fails.
    """
    script, *rest = map(str, arguments)
    command = [sys.executable, str(ROOT / script) if script.endswith(".py") else script, *rest]
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}
    environment.pop("CUDA_VISIBLE_DEVICES", None)  # set by machine.prepare in this process
    started, clock = time.time(), time.perf_counter()
    with (cwd / "output.txt").open("w+", encoding="utf-8") as output:
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - clock
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        printed = output.read()
    if process.returncode:
        with contextlib.suppress(UnicodeEncodeError):
            print(printed[-2000:])
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Finished(started, seconds, peak / 1e9, printed)
