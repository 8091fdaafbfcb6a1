"""Commands as processes that start at once: forked from one that has imported what takes seconds.

Each is a process of its own, with its own arguments, environment, folder and output, and ends as a command
ends, but for the modules that are not taken apart; only the libraries around the package, which read nothing
of a command's, are imported before. Their figures are blank, which would take as long as all else;
tests/report looks at drawn ones. What depends on how an interpreter starts (its flags, its encoding, its hash
seed) needs a fresh one.
"""

import atexit
import gc
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

PRELOADED = (
    *("torch", "torchvision", "lightning.pytorch", "torchmetrics.classification", "wandb", "hydra", "numpy"),
    *("matplotlib.figure", "matplotlib.backends.backend_agg", "PIL.Image", "rich.progress", "rich.table"),
    *("filelock", "httpx"),
)


class Forked:
    """A command at work; what ``subprocess.Popen`` offers of it.

    Args:
        arguments: As an interpreter's: a script's path, or ``-m`` and a module of the package, and theirs.
        cwd: Its working directory.
        env: Its whole environment.
        terminal: Whose device is its input and outputs; None: nothing, and files.
    """

    def __init__(
        self, arguments: list[str], *, cwd: Path, env: dict[str, str], terminal: str | None = None
    ) -> None:
        self._arguments = arguments
        self._folder = Path(tempfile.mkdtemp(prefix="forked-"))
        for name in ("out", "err"):
            (self._folder / name).touch()
        outputs = [terminal or str(self._folder / name) for name in ("out", "err")]
        request = {"arguments": arguments, "cwd": str(cwd), "env": env, "folder": str(self._folder)}
        request |= {"streams": [terminal or os.devnull, *outputs]}
        mother = _mother()
        mother.stdin.write(json.dumps(request) + "\n")
        mother.stdin.flush()
        self.pid = int(mother.stdout.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None while it works."""
        if self.returncode is None and (self._folder / "code").exists():
            self.returncode = int((self._folder / "code").read_text())
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        """Wait for its end."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(str(self.pid), timeout, *self.output())
            time.sleep(0.01)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Signal it, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def completed(self, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Wait for its end and return all of it."""
        return subprocess.CompletedProcess(self._arguments, self.wait(timeout), *self.output())

    def output(self) -> tuple[str, str]:
        """Return what it has printed and its errors, so far."""
        return tuple(
            (self._folder / name).read_text(encoding="utf-8", errors="replace") for name in ("out", "err")
        )


_started: list[subprocess.Popen] = []


def _mother() -> subprocess.Popen:
    """Start the process from which commands are forked, once for each process of pytest's."""
    if not _started:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        settings = {
            "OMP_NUM_THREADS": "1",
            "MPLCONFIGDIR": tempfile.mkdtemp(prefix="matplotlib-"),
            "HOME": tempfile.mkdtemp(prefix="home-"),
        }
        _started.append(
            subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=kept | settings,
                text=True,
            )
        )
        atexit.register(_started[0].communicate)  # it ends with its input
    return _started[0]


def _draw_blank_figures() -> None:
    from matplotlib.figure import Figure
    from PIL import Image

    blank, draw = io.BytesIO(), Figure.savefig
    Image.new("L", (1, 1)).save(blank, format="PNG")

    def savefig(figure: Figure, file: Any, **settings: Any) -> None:
        if settings.get("format") == "png":
            file.write(blank.getvalue())
        else:
            draw(figure, file, **settings)

    Figure.savefig = savefig


_code: int | None = None  # of a command that ended by itself


def _end_at_once() -> None:
    """End a command whose exit is known, instead of taking apart all that is imported."""
    if _code is not None:
        with suppress(OSError, ValueError):  # an interpreter's own end has its own answer to these
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(_code)


def _serve() -> dict | None:
    """Fork for each request; return it in the child that is to be the command, None at the end of all."""
    atexit.register(_end_at_once)  # the first registered is the last called
    gc.disable()
    for module in PRELOADED:
        __import__(module)
    _draw_blank_figures()
    gc.freeze()  # a collection in a child would copy every page of what is imported
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        if os.fork() == 0:  # a nurse, who waits for the command and leaves its exit code
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            request = json.loads(line)
            child = os.fork()
            if child == 0:
                return request
            os.write(1, f"{child}\n".encode())
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            left = Path(request["folder"]) / "code"
            left.with_suffix(".new").write_text(str(code))
            left.with_suffix(".new").rename(left)
            os._exit(0)
    return None


if __name__ == "__main__":
    asked = _serve()
    if asked is not None:
        for number, name in enumerate(asked["streams"]):
            file = os.open(name, os.O_RDWR | os.O_APPEND)
            os.dup2(file, number)
            os.close(file)
        os.environ.clear()
        os.environ.update(asked["env"])
        os.chdir(asked["cwd"])
        path = [place for place in asked["env"].get("PYTHONPATH", "").split(os.pathsep) if place]
        # wandb stages pictures in a folder made at its import: the mother's, which the first child removes.
        sys.modules["wandb.sdk.data_types._private"].MEDIA_TMP.__init__("wandb-media")
        try:
            if asked["arguments"][0] == "-m":
                sys.argv = asked["arguments"][1:]
                sys.path[:1] = [asked["cwd"], *path]
                runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
            else:
                sys.argv = asked["arguments"]
                sys.path[:1] = [str(Path(sys.argv[0]).parent), *path]
                runpy.run_path(sys.argv[0], run_name="__main__")
            _code = 0
        except SystemExit as end:
            if end.code is None or isinstance(end.code, int):
                _code = (end.code or 0) & 255
            raise
