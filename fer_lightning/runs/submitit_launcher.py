"""The launchers of ``hydra/launcher=submitit_slurm`` and ``submitit_local``.

They differ from those of hydra-submitit-launcher in this: a job that ends without a result is one job that
failed, and the others go on; a command that is stopped stops its jobs, which save; a job that is started
again continues from its checkpoint.
"""

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher

from fer_lightning.core.errors import FERError
from fer_lightning.core.signals import RunStopped, install_exit_handlers
from fer_lightning.runs.slurm_queue import Queue, was_preempted
from fer_lightning.runs.sweep import current_sweep, record_failed_job

if TYPE_CHECKING:
    from submitit import Executor, Job
    from submitit.helpers import DelayedSubmission

log = logging.getLogger("fer_lightning")

_POLL = 0.5  # seconds between two looks at the jobs
_RESULT_DELAY = {"local": 0.0, "slurm": 20.0}  # seconds in which a network's file system shows a new file
_RESUME = "resume=auto"


class SubmititLauncher(BaseSubmititLauncher):  # type: ignore[misc] # it has no types
    """Runs each job of a sweep in a process that submitit starts.

    Args:
        params: Of ``conf/hydra/launcher/submitit_*.yaml``.
    """

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self._launched_by = os.getpid()
        self._gpus = os.environ.get("CUDA_VISIBLE_DEVICES")

    def __call__(self, sweep_overrides: list[str], *arguments: Any) -> JobReturn:
        """Run one job, in its own process.

        Args:
            sweep_overrides: The job's overrides.
            arguments: Of hydra-submitit-launcher.
        """
        from submitit import JobEnvironment

        warning = JobEnvironment._usr_sig()
        queue_again: Any = signal.getsignal(warning)  # submitit's handler, which asks for another start
        install_exit_handlers()
        if self._EXECUTOR == "local":
            self._settle_here()
        elif os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0"):
            sweep_overrides = _resumed(sweep_overrides)
        try:
            result: JobReturn = super().__call__(sweep_overrides, *arguments)
        except RunStopped as stop:
            again = stop.signal_number in (warning, signal.SIGUSR1)
            if again or (self._EXECUTOR == "slurm" and was_preempted()):
                queue_again(warning, None)
            raise
        return result

    def _settle_here(self) -> None:
        """Let this process of a local job see the GPUs of its launcher, and end with it."""
        if self._gpus is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = self._gpus
        os.setpgid(0, 0)  # Ctrl-C in the terminal is the launcher's, which passes it on once
        if hasattr(os, "pidfd_open"):
            threading.Thread(target=_end_with, args=(self._launched_by,), daemon=True).start()

    def checkpoint(self, sweep_overrides: list[str], *arguments: Any) -> "DelayedSubmission":
        """Return what submitit calls at the job's next start."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, _resumed(sweep_overrides), *arguments)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Start the jobs, as many at a time as ``array_parallelism`` says, and wait for all of them.

        Args:
            job_overrides: Of each job.
            initial_job_idx: The first job's number.

        Raises:
            FERError: If Slurm does not take the jobs.
        """
        from fer_lightning.core.terminal import start_terminal

        start_terminal()
        assert self.config is not None
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        overrides = dict(enumerate(map(list, job_overrides), initial_job_idx))
        waiting = deque(overrides)
        running: dict[int, Job[JobReturn]] = {}
        results: dict[int, JobReturn] = {}
        queue, executor = Queue(), self._executor()
        try:
            with _children_find_packages():
                while waiting or running:
                    free = self.params["array_parallelism"] - len(running)
                    numbers = waiting if self._EXECUTOR == "slurm" else list(waiting)[:free]
                    running |= self._submit(executor, {number: overrides[number] for number in numbers})
                    waiting = deque(number for number in waiting if number not in running)
                    for number, job in list(running.items()):
                        if self._has_ended(job, queue):
                            results[number] = self._result(number, running.pop(number), overrides[number])
                    time.sleep(_POLL if running else 0)
        except BaseException:
            self._stop(list(running.values()))
            raise
        return [results[number] for number in overrides]

    def _executor(self) -> "Executor":
        import submitit

        given = {key: value for key, value in self.params.items() if value not in (None, {}, [])}
        folder, starts = given.pop("submitit_folder"), given.pop("max_num_timeout")
        executor: Executor
        if self._EXECUTOR == "local":
            executor = submitit.LocalExecutor(folder, max_num_timeout=starts)
            executor.update_parameters(**given)
            return executor
        executor = submitit.SlurmExecutor(folder, max_num_timeout=starts)
        given |= {"nodes": 1, "tasks_per_node": 1}
        if "cpus_per_task" in given:  # srun takes it from sbatch no more since Slurm 22.05
            given["srun_args"] = [f"--cpus-per-task={given['cpus_per_task']}"]
        try:
            executor.update_parameters(**executor._convert_parameters(given))
        except (ValueError, TypeError) as error:
            raise FERError(f"hydra.launcher: {str(error).splitlines()[0]}") from error
        return executor

    def _submit(self, executor: "Executor", overrides: dict[int, list[str]]) -> "dict[int, Job[JobReturn]]":
        """Start jobs; those of Slurm as one array."""
        from submitit.core.utils import FailedJobError

        if not overrides:
            return {}
        state = Singleton.get_state()
        calls = [
            (texts, "hydra.sweep.dir", number, f"job_id_for_{number}", state)
            for number, texts in overrides.items()
        ]
        try:
            with _terminal_signals_ignored() if self._EXECUTOR == "local" else contextlib.nullcontext():
                jobs = executor.map_array(self, *zip(*calls, strict=True))
        except FailedJobError as error:
            refused = " ".join(str(error).split())
            without = " (hydra.launcher.gpus_per_node=null asks for no GPU)" if "gres" in refused else ""
            raise FERError(
                f"Slurm did not take the jobs: {refused}; change hydra.launcher{without}"
            ) from error
        for number, job in zip(overrides, jobs, strict=True):
            log.info("job %s: %s %s, prints to %s", number, self._name, job.job_id, job.paths.stdout)
        return dict(zip(overrides, jobs, strict=True))

    def _has_ended(self, job: "Job[JobReturn]", queue: Queue) -> bool:
        if job.paths.result_pickle.exists():
            return True
        return job.done() if self._EXECUTOR == "local" else queue.has_ended(job.job_id)

    def _result(self, number: int, job: "Job[JobReturn]", overrides: list[str]) -> JobReturn:
        """Return what a job that has ended gave, or that it failed; it may have been killed."""
        from submitit.core.utils import pickle_load

        deadline = time.monotonic() + _RESULT_DELAY[self._EXECUTOR]
        while not job.paths.result_pickle.exists() and time.monotonic() < deadline:
            time.sleep(_POLL)
        outcome: str
        value: Any
        outcome, value = "error", ""
        if job.paths.result_pickle.exists():
            outcome, value = pickle_load(job.paths.result_pickle)
        if outcome == "success":
            result: JobReturn = value
            if result.status == JobStatus.COMPLETED:
                log.info("job %s: finished", number)
            else:
                log.error("job %s: failed: %s", number, result._return_value)
            return result
        last = value.strip().splitlines()[-1].partition(": ")[2] if value else "it was killed or stopped"
        error = FERError(
            f"job {number} ended without a result ({last}), see {job.paths.stdout}; go on with the same "
            "command and resume=auto"
        )
        log.error("%s", error)
        failed = JobReturn(overrides=overrides, status=JobStatus.FAILED)
        failed.return_value = error
        assert self.hydra_context is not None
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        record_failed_job(config, failed, number)
        return failed

    def _stop(self, jobs: "list[Job[JobReturn]]") -> None:
        """Ask all jobs to stop, and wait until they have saved."""
        for job in jobs:
            with contextlib.suppress(Exception):
                if self._EXECUTOR == "local":
                    job._process.send_signal(signal.SIGTERM)  # type: ignore[attr-defined]
                else:
                    job.cancel(check=False)
        sweep = current_sweep()
        if sweep is not None and jobs:
            sweep.wait_for_jobs()
        for job in jobs:
            if self._EXECUTOR == "local":
                with contextlib.suppress(subprocess.TimeoutExpired):  # its folder is free
                    job._process.wait(10)  # type: ignore[attr-defined]

    @property
    def _name(self) -> str:
        return "process" if self._EXECUTOR == "local" else "Slurm job"


class LocalLauncher(SubmititLauncher):
    """``hydra/launcher=submitit_local``: processes of this machine."""

    _EXECUTOR = "local"


class SlurmLauncher(SubmititLauncher):
    """``hydra/launcher=submitit_slurm``: jobs of Slurm."""

    _EXECUTOR = "slurm"


def _resumed(overrides: list[str]) -> list[str]:
    """Return the overrides with which a job continues that was started before."""
    return [*(each for each in overrides if not each.startswith("resume=")), _RESUME]


def _end_with(process: int) -> None:
    """Wait until a process has ended, and end this one as by its scheduler.

    The jobs of a killed launcher would else continue, and keep their folders locked against its successor.
    """
    with contextlib.suppress(OSError):  # it ended before
        descriptor = os.pidfd_open(process)
        select.select([descriptor], [], [])
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _terminal_signals_ignored() -> Iterator[None]:
    """Start processes that signals of a terminal do not end: this one passes them on, and jobs save once."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]
    former: dict[int, Callable[..., Any] | int | None] = {}
    if threading.current_thread() is threading.main_thread():
        former = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def _children_find_packages() -> Iterator[None]:
    """Let processes that are started find the packages of this one, those next to the script included."""
    before = os.environ.get("PYTHONPATH")
    installed = (sys.prefix, sys.base_prefix, sys.exec_prefix)
    own = [path for path in sys.path if path and not path.startswith(installed)]
    os.environ["PYTHONPATH"] = os.pathsep.join(
        dict.fromkeys([*own, *filter(None, (before or "").split(os.pathsep))])
    )
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
