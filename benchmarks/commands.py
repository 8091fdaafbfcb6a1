"""The project's commands in processes of their own, timed from outside."""

import json
import os
import subprocess
import sys
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


# A process that starts another passes on its own peak: the command is started by one that is small.
_SMALL = """
import json, os, subprocess, sys, time
started, clock = time.time(), time.perf_counter()
with open(sys.argv[1], "wb") as output:
    process = subprocess.Popen(sys.argv[2:], stdout=output, stderr=subprocess.STDOUT)
    _, status, usage = os.wait4(process.pid, 0)
print(json.dumps([started, time.perf_counter() - clock, usage.ru_maxrss, os.waitstatus_to_exitcode(status)]))
"""


def run(arguments: Sequence[str | Path], *, cwd: Path) -> Finished:
    """Run ``python ARGUMENT...``; a script is named by its file in the project's root.

    Raises:
        RuntimeError: If it fails.
    """
    script, *rest = map(str, arguments)
    command = [sys.executable, str(ROOT / script) if script.endswith(".py") else script, *rest]
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}
    environment.pop("CUDA_VISIBLE_DEVICES", None)  # set by machine.prepare in this process
    printed = cwd / "output.txt"
    told = subprocess.run(
        [sys.executable, "-c", _SMALL, printed, *command],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    started, seconds, peak, code = json.loads(told)
    output = printed.read_text(encoding="utf-8", errors="replace")
    if code:
        raise RuntimeError(f"{' '.join(command)} ended with {code}:\n{output[-2000:]}")
    return Finished(started, seconds, peak * (1 if sys.platform == "darwin" else 1024) / 1e9, output)
