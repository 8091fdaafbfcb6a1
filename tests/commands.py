"""Run the commands of the project as a user does: in separate processes, with a temporary home folder."""

import functools
import gc
import os
import pty
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback

from tests.forked import Forked

ROOT = Path(__file__).parent.parent

# A small synthetic data set, for runs of a few seconds; trainer=smoke limits them further.
TINY = (
    "data=synthetic",
    "data.source.num_train=140",
    "data.source.num_val=35",
    "data.source.num_test=42",
    "data.source.class_balance=uniform",
    "num_threads=1",  # two threads that wait for one core spin: fifty times as slow
    "data.eval_batch_size=64",
)


def environment(cache: Path, **extra: str) -> dict[str, str]:
    """Return the environment of a command: no data set, no W&B key, one thread, no terminal."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WANDB_", "FER2013_", "HYDRA_"))
    }
    return kept | {
        "HOME": str(cache),  # holds the cache of decoded images and the settings of W&B
        "WANDB_ERROR_REPORTING": "false",
        "MPLCONFIGDIR": str(cache / "matplotlib"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "160",
        "PYTHONPATH": str(ROOT),
        **extra,
    }


def run(
    *arguments: str | Path,
    cwd: Path,
    cache: Path,
    timeout: float = 300,
    script_root: Path = ROOT,
    fresh: bool = False,
    **extra: str,
) -> subprocess.CompletedProcess[str]:
    """Run ``python ARGUMENT...`` and return its output and exit code.

    Scripts and modules of the project are forked (see ``Forked``); ``fresh`` starts a new interpreter, as for
    everything else.

    Args:
        arguments: Name of a script in ``script_root``, or options of the interpreter, then further arguments.
        cwd: Working directory.
        cache: Home folder.
        timeout: Seconds after which the command is killed.
        script_root: Folder of the scripts and of the package.
        fresh: Start a new interpreter.
        extra: Environment variables.
    """
    first, *rest = map(str, arguments)
    words = [str(script_root / first) if first.endswith(".py") else first, *rest]
    env = environment(cache, **{"PYTHONPATH": str(script_root)} | extra)
    ours = first.endswith(".py") or (first == "-m" and rest[0].split(".")[0] == "fer_lightning")
    if ours and not fresh:
        return Forked(words, cwd=cwd, env=env).completed(timeout)
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_in_terminal(
    script: str, *arguments: str, cwd: Path, cache: Path, fresh: bool = False, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run a script in a terminal and return what the terminal received; ``fresh`` as in ``run``."""
    leader, follower = pty.openpty()
    words, env = [str(ROOT / script), *arguments], environment(cache, **extra)
    if fresh:
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), follower)
        process = subprocess.Popen([sys.executable, *words], cwd=cwd, env=env, **streams)
    else:
        process = Forked(words, cwd=cwd, env=env, terminal=os.ttyname(follower))
    sent = []

    def read() -> None:
        with suppress(OSError):  # the terminal is closed
            while part := os.read(leader, 4096):
                sent.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    code = process.wait(timeout=300)
    os.close(follower)
    reader.join()
    os.close(leader)
    return subprocess.CompletedProcess(words, code, b"".join(sent).decode(errors="replace"), "")


def succeed(
    *arguments: str | Path, cwd: Path, cache: Path, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command that must exit with 0."""
    done = run(*arguments, cwd=cwd, cache=cache, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """Return the error output of a command that failed, which must have no traceback."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done.stderr


class MemoryProbe(Callback):
    """Hydra callback that prints, when a job starts, which objects of earlier jobs are still in memory."""

    def __init__(self) -> None:
        self.made: weakref.WeakSet[Any] = weakref.WeakSet()

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        from fer_lightning.data.datamodule import FERDataModule
        from fer_lightning.training.classifier import FERClassifier

        for kind in (FERClassifier, FERDataModule):
            kind.__init__ = self.watched(kind.__init__)

    def watched(self, init: Any) -> Any:
        def wrapped(this: Any, *args: Any, **kwargs: Any) -> None:
            init(this, *args, **kwargs)
            self.made.add(this)

        return functools.wraps(init)(wrapped)

    def on_job_start(self, config: Any, **kwargs: Any) -> None:
        gc.collect()
        print(f"left over: {sorted(type(one).__name__ for one in self.made)}")


class ReturnValueProbe(Callback):
    """Hydra callback that prints what a job returns to the sweeper, and if garbage collection is on."""

    def on_job_start(self, config: Any, **kwargs: Any) -> None:
        print(f"starts, collecting garbage: {gc.isenabled()}")

    def on_job_end(self, config: Any, job_return: JobReturn, **kwargs: Any) -> None:
        print(f"returned {job_return.return_value}, collecting garbage: {gc.isenabled()}")
