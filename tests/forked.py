"""Run commands as processes that start at once, forked from a server that has imported all that they import.

Each command is a separate process with its own arguments, environment, folder and output. What is imported in
advance, the package included, reads nothing at import that belongs to a command. Three things differ
from a new interpreter: at exit the modules are not torn down, all commands have one hash seed, and figures
are blank, because drawing them takes three times as long as all the rest (tests/report looks at real ones).
A test of what depends on how an interpreter starts (its flags, its encoding, its hash seed) needs a new one.
"""

import atexit
import functools
import gc
import io
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

PRELOADED = (
    *("torch", "torchvision", "lightning.pytorch", "torchmetrics.classification", "wandb", "hydra", "numpy"),
    *("matplotlib.figure", "matplotlib.backends.backend_agg", "PIL.Image", "rich.progress", "rich.table"),
    *("filelock", "httpx", "jinja2"),
)
ROOT = Path(__file__).parent.parent
COMMANDS = tuple(f"fer_lightning.cli.{name}" for name in ("train", "evaluate", "report", "sweep", "wandb"))


class Forked:
    """A running command, with the part of the interface of ``subprocess.Popen`` that the tests need.

    Args:
        arguments: Arguments of the interpreter: the path of a script, or ``-m`` and a module of the package,
            then the arguments of that script or module.
        cwd: Working directory.
        env: The whole environment.
        terminal: Device that is its input and output; without one, the input is empty and outputs are files.
    """

    def __init__(
        self, arguments: list[str], *, cwd: Path, env: dict[str, str], terminal: str | None = None
    ) -> None:
        self._arguments = arguments
        server = _server()
        self._folder = Path(tempfile.mkdtemp(prefix="command-", dir=server.folder))
        for name in ("out", "err"):
            (self._folder / name).touch()
        outputs = [terminal or str(self._folder / name) for name in ("out", "err")]
        request = {"arguments": arguments, "cwd": str(cwd), "env": env, "folder": str(self._folder)}
        request |= {"streams": [terminal or os.devnull, *outputs]}
        server.process.stdin.write(json.dumps(request) + "\n")
        server.process.stdin.flush()
        self.pid = int(server.process.stdout.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while the command runs."""
        if self.returncode is None and (self._folder / "code").exists():
            self.returncode = int((self._folder / "code").read_text())
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        """Wait until the command ends, and return its exit code."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.send_signal(signal.SIGKILL)
                raise subprocess.TimeoutExpired(str(self.pid), timeout, *self.output())
            time.sleep(0.01)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the command has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended, and its exit code is not written yet
                os.kill(self.pid, number)

    def completed(self, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Wait until the command ends, and return its exit code and output."""
        return subprocess.CompletedProcess(self._arguments, self.wait(timeout), *self.output())

    def output(self) -> tuple[str, str]:
        """Return the standard output and the standard error so far."""
        return tuple(
            (self._folder / name).read_text(encoding="utf-8", errors="replace") for name in ("out", "err")
        )


class _Server:
    """The process that forks commands, and a folder for their outputs that goes when this process ends."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="commands-")
        home = Path(self.folder) / "home"
        home.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        settings = {"OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(home / "matplotlib"), "HOME": str(home)}
        settings["TMPDIR"] = self.folder
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=kept | settings,
            text=True,
        )
        atexit.register(self._close)

    def _close(self) -> None:
        self.process.communicate()  # closing its input ends it
        shutil.rmtree(self.folder, ignore_errors=True)


@functools.cache
def _server() -> _Server:
    """Start the server, once per pytest process."""
    return _Server()


BLANK = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="72pt" height="72pt">image</svg>',
    "pdf": b"%PDF-1.4\n%%EOF\n",
}


def blank_drawing() -> dict[str, Any]:
    """Return methods of ``matplotlib.figure.Figure``, by name, that write empty files of the format.

    Drawing takes three quarters of the time of a small run.
    """
    from matplotlib.transforms import Bbox
    from PIL import Image

    png = io.BytesIO()
    Image.new("L", (1, 1)).save(png, format="PNG")
    contents = BLANK | {"png": png.getvalue()}

    def savefig(figure: Any, file: Any, **settings: Any) -> None:
        file.write(contents[settings["format"]])

    return {
        "savefig": savefig,
        "draw_without_rendering": lambda figure: None,
        "get_tightbbox": lambda figure, *_: Bbox.unit(),
    }


def _draw_blank_figures() -> None:
    from matplotlib.figure import Figure

    for name, method in blank_drawing().items():
        setattr(Figure, name, method)


def _forget_the_package() -> None:
    """Let a command import the package from its own folder."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "fer_lightning"]:
        del sys.modules[name]


_code: int | None = None  # exit code of a command that ended by itself


def _end_at_once() -> None:
    """Exit at once when the exit code is known, without tearing down the imported modules."""
    if _code is not None:
        with suppress(OSError, ValueError):  # the interpreter's own exit handles these
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(_code)


def _serve() -> dict | None:
    """Fork for each request; return the request in the child that runs the command, None in the server."""
    atexit.register(_end_at_once)  # registered first, called last
    gc.disable()
    sys.path.insert(0, str(ROOT))
    for module in (*PRELOADED, *COMMANDS):
        __import__(module)
    del sys.path[0]
    _draw_blank_figures()
    gc.freeze()  # garbage collection in a child would copy every page of the modules
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        if os.fork() == 0:  # the waiter process, which writes the exit code of the command
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            request = json.loads(line)
            child = os.fork()
            if child == 0:
                signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup around the tests switches off
                return request
            os.write(1, f"{child}\n".encode())
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            code_file = Path(request["folder"]) / "code"
            code_file.with_suffix(".new").write_text(str(code))
            code_file.with_suffix(".new").rename(code_file)
            os._exit(0)
    return None


if __name__ == "__main__":
    request = _serve()
    if request is not None:
        for number, name in enumerate(request["streams"]):
            file = os.open(name, os.O_RDWR | os.O_APPEND)
            os.dup2(file, number)
            os.close(file)
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        random.seed()  # as in a new interpreter: what nothing seeds differs between two commands
        np.random.seed()  # noqa: NPY002
        path = [place for place in request["env"].get("PYTHONPATH", "").split(os.pathsep) if place]
        # wandb stages images in a folder that it makes at import; the first child would remove the server's.
        sys.modules["wandb.sdk.data_types._private"].MEDIA_TMP.__init__("wandb-media")
        try:
            if request["arguments"][0] == "-m":
                sys.argv = request["arguments"][1:]
                sys.path[:1] = [request["cwd"], *path]
                runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
            else:
                sys.argv = request["arguments"]
                sys.path[:1] = [str(Path(sys.argv[0]).parent), *path]
                if Path(sys.path[0]) != ROOT:
                    _forget_the_package()
                runpy.run_path(sys.argv[0], run_name="__main__")
            _code = 0
        except SystemExit as end:
            if end.code is None or isinstance(end.code, int):
                _code = (end.code or 0) & 255
            raise
