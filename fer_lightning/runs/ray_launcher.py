"""The launcher of ``hydra/launcher=ray``.

It differs from that of hydra-ray-launcher as ours of submitit do: a job that ends without a result is one job
that failed, and a command that is stopped stops its jobs, which save.
"""

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra_plugins.hydra_ray_launcher.ray_launcher import RayLauncher as PluginsLauncher
from omegaconf import open_dict

from fer_lightning.core.errors import FERError
from fer_lightning.core.signals import check_stopped, install_exit_handlers
from fer_lightning.runs.sweep import current_sweep, record_failed_job

log = logging.getLogger("fer_lightning")

_POLL = 0.5  # seconds; Python runs the handler of a signal between two of them


class RayLauncher(PluginsLauncher):  # type: ignore[misc] # it has no types
    """Runs each job of a sweep as a task of Ray.

    Args:
        ray: ``init`` and ``remote``, the arguments of ``ray.init`` and ``ray.remote``.
    """

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Start the jobs, as many at a time as Ray has cores or GPUs for, and wait for all of them.

        Args:
            job_overrides: Of each job.
            initial_job_idx: The first job's number.

        Raises:
            FERError: If Ray cannot be started or reached.
        """
        import ray
        from hydra_plugins.hydra_ray_launcher._launcher_util import start_ray

        from fer_lightning.core.terminal import start_terminal

        start_terminal()
        setup_globals()
        overrides = dict(enumerate(map(list, job_overrides), initial_job_idx))
        try:
            start_ray(self.ray_cfg.init)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise FERError(
                f"hydra.launcher.ray.init: Ray could not be started or reached: {reason}"
            ) from error
        install_exit_handlers()  # Ray has set its own, which end with another exit code
        tasks: dict[Any, int] = {}
        results: dict[int, JobReturn] = {}
        try:
            for number, texts in overrides.items():
                tasks[self._start(number, texts)] = number
            while tasks:
                ended, _ = ray.wait(list(tasks), timeout=_POLL)
                for task in ended:
                    number = tasks[task]
                    results[number] = self._result(task, number, overrides[number])
                    del tasks[task]
        except BaseException:
            for task in tasks:
                with contextlib.suppress(Exception):
                    ray.cancel(task)  # as with Ctrl-C
            if (sweep := current_sweep()) is not None:
                sweep.wait_for_jobs()
            ray.shutdown()  # at exit it would change the exit code
            check_stopped()
            raise
        return [results[number] for number in overrides]

    def _start(self, number: int, overrides: list[str]) -> Any:
        from hydra_plugins.hydra_ray_launcher._launcher_util import launch_job_on_ray

        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = f"job_id_for_{number}"
            config.hydra.job.num = number
        return launch_job_on_ray(
            self.hydra_context,
            self.ray_cfg.remote,
            config,
            self.task_function,
            Singleton.get_state(),
        )

    def _result(self, task: Any, number: int, overrides: list[str]) -> JobReturn:
        """Return what a job gave, or that it failed; its process may have been killed."""
        import ray

        try:
            result: JobReturn = ray.get(task)
        except ray.exceptions.RayError as error:
            reason = " ".join(str(error).splitlines()[0].split())
            failure = FERError(
                f"job {number} ended without a result ({reason}); go on with the same command and resume=auto"
            )
            result = JobReturn(overrides=overrides, status=JobStatus.FAILED)
            result.return_value = failure
            config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
            record_failed_job(config, result, number)
        if result.status == JobStatus.FAILED:
            log.error("job %s: failed: %s", number, result._return_value)
        return result
