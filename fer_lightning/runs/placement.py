"""Where the jobs of a sweep run: one after another, side by side, on Slurm or Ray; what each may use.

Imported before Hydra starts: nothing heavy at the top.
"""

import shutil
from importlib.util import find_spec
from typing import Literal

from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig

from fer_lightning.config.resolve import drop_plugin_options
from fer_lightning.core.errors import FERError
from fer_lightning.core.parallel import available_cores

Place = Literal["here", "joblib", "local", "slurm", "ray"]

_SLURM = "hydra_plugins.fer_lightning.SlurmLauncher"
_LOCAL = "hydra_plugins.fer_lightning.LocalLauncher"
_SUBMITIT = "hydra_plugins.hydra_submitit_launcher"
_RAY = "hydra_plugins.fer_lightning.RayLauncher"
_RAY_PLUGIN = "hydra_plugins.hydra_ray_launcher"
_PLACES: dict[str, Place] = {
    "JoblibLauncher": "joblib",
    "LocalLauncher": "local",
    "SlurmLauncher": "slurm",
    "RayLauncher": "ray",
}


def register_launchers() -> None:
    """Make our launchers known to Hydra, which takes others from the package ``hydra_plugins`` alone."""
    drop_plugin_options()
    classes = Plugins.instance().class_name_to_class
    if _is_installed(_SUBMITIT):
        from fer_lightning.runs.submitit_launcher import LocalLauncher, SlurmLauncher

        classes[_SLURM], classes[_LOCAL] = SlurmLauncher, LocalLauncher
    if _is_installed(_RAY_PLUGIN):
        from fer_lightning.runs.ray_launcher import RayLauncher

        classes[_RAY] = RayLauncher


def _is_installed(plugin: str) -> bool:
    try:
        return find_spec(plugin) is not None
    except ModuleNotFoundError:  # no plugin of Hydra at all
        return False


def place_of(hydra: DictConfig, num_cores: int | None = None) -> Place:
    """Return where a command's jobs run: ``here``, in its own process, unless its launcher starts others.

    Args:
        hydra: Hydra's own config.
        num_cores: As in ``jobs_at_once``; None: those that this process may use.
    """
    if hydra.mode != RunMode.MULTIRUN:
        return "here"
    place = _PLACES.get(str(hydra.launcher.get("_target_")).rpartition(".")[2], "here")
    return "here" if place == "joblib" and _joblib_jobs(hydra, num_cores or available_cores()) == 1 else place


def _joblib_jobs(hydra: DictConfig, num_cores: int) -> int:
    num_jobs = int(hydra.launcher.n_jobs)
    return max(1, num_jobs if num_jobs > 0 else num_cores + 1 + num_jobs)


def jobs_at_once(hydra: DictConfig, num_cores: int) -> int:
    """Count the jobs that run at the same time.

    Args:
        hydra: Hydra's own config.
        num_cores: The meaning of ``n_jobs=-1``; -2 leaves one core free, and so on, as in joblib. Ray runs as
            many jobs as it has cores for.
    """
    match place_of(hydra, num_cores):
        case "joblib":
            return _joblib_jobs(hydra, num_cores)
        case "local" | "slurm":
            return int(hydra.launcher.array_parallelism)
        case "ray":
            return max(1, int(num_cores / (hydra.launcher.ray.remote.get("num_cpus") or 1)))
        case _:
            return 1


def threads_of_job(hydra: DictConfig, num_cores: int) -> int:
    """Count the CPU threads of a job without ``num_threads``: what its launcher asked for, or its share.

    Args:
        hydra: Hydra's own config.
        num_cores: The cores that the job's process may use.
    """
    place, threads = place_of(hydra, num_cores), None
    if place in ("local", "slurm"):
        threads = hydra.launcher.get("cpus_per_task")
    elif place == "ray":
        threads = hydra.launcher.ray.remote.get("num_cpus") or 1
    if threads is not None:
        return max(1, min(num_cores, int(threads)))
    return max(1, num_cores // (1 if place == "slurm" else jobs_at_once(hydra, num_cores)))


def check_launcher(hydra: DictConfig) -> None:
    """Refuse a launcher that cannot work here, before there is a folder.

    Raises:
        FERError: If its package or Slurm is missing, or a setting is wrong.
    """
    place = place_of(hydra)
    name = f"hydra/launcher={hydra.runtime.choices.get('hydra/launcher')}"
    if place in ("local", "slurm"):
        if not _is_installed(_SUBMITIT):
            raise FERError(f"{name}: submitit is not installed; pip install hydra-submitit-launcher")
        at_once = hydra.launcher.array_parallelism
        if not isinstance(at_once, int) or isinstance(at_once, bool) or at_once < 1:
            raise FERError(f"hydra.launcher.array_parallelism={at_once}: expected a whole number from 1")
    if place == "ray" and not _is_installed(_RAY_PLUGIN):
        raise FERError(f"{name}: Ray is not installed; pip install hydra-ray-launcher")
    if place == "slurm" and (missing := [each for each in ("sbatch", "srun") if shutil.which(each) is None]):
        raise FERError(
            f"{name}: found no {missing[0]} on the path; start the sweep where Slurm takes jobs, or use "
            "hydra/launcher=submitit_local"
        )
