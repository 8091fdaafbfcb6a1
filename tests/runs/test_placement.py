"""Where the jobs of a sweep run, and what each may use."""

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf

from fer_lightning.config.resolve import compose_config
from fer_lightning.core.errors import FERError
from fer_lightning.runs import placement
from fer_lightning.runs.placement import check_launcher, jobs_at_once, place_of, threads_of_job


@pytest.mark.parametrize(
    ("launcher", "mode", "expected"),
    [
        ({"_target_": "hydra_plugins.x.JoblibLauncher", "n_jobs": 3}, RunMode.MULTIRUN, 3),
        ({"_target_": "hydra_plugins.x.JoblibLauncher", "n_jobs": -1}, RunMode.MULTIRUN, 8),
        ({"_target_": "hydra_plugins.x.JoblibLauncher", "n_jobs": -3}, RunMode.MULTIRUN, 6),
        ({"_target_": "hydra_plugins.x.JoblibLauncher", "n_jobs": -99}, RunMode.MULTIRUN, 1),
        ({"_target_": "hydra_plugins.x.JoblibLauncher", "n_jobs": 3}, RunMode.RUN, 1),
        ({"_target_": "hydra._internal.x.BasicLauncher"}, RunMode.MULTIRUN, 1),
        ({"_target_": "x.SlurmLauncher", "array_parallelism": 16}, RunMode.MULTIRUN, 16),
        ({"_target_": "x.LocalLauncher", "array_parallelism": 2}, RunMode.MULTIRUN, 2),
        ({"_target_": "x.LocalLauncher", "array_parallelism": 2}, RunMode.RUN, 1),
        ({"_target_": "x.RayLauncher", "ray": {"remote": {"num_cpus": 2}}}, RunMode.MULTIRUN, 4),
        ({"_target_": "x.RayLauncher", "ray": {"remote": {}}}, RunMode.MULTIRUN, 8),
    ],
)
def test_the_jobs_side_by_side_are_those_that_the_launcher_runs(launcher, mode, expected):
    hydra = OmegaConf.create({"launcher": launcher, "mode": mode})
    assert jobs_at_once(hydra, num_cores=8) == expected


@pytest.mark.parametrize(
    ("launcher", "expected"),
    [
        ({"_target_": "x.BasicLauncher"}, 8),
        ({"_target_": "x.JoblibLauncher", "n_jobs": 3}, 2),
        ({"_target_": "x.JoblibLauncher", "n_jobs": 20}, 1),
        # Slurm gives each job its own cores: nothing is shared
        ({"_target_": "x.SlurmLauncher", "array_parallelism": 16, "cpus_per_task": 4}, 4),
        ({"_target_": "x.SlurmLauncher", "array_parallelism": 16, "cpus_per_task": 12}, 8),
        ({"_target_": "x.SlurmLauncher", "array_parallelism": 16, "cpus_per_task": None}, 8),
        ({"_target_": "x.LocalLauncher", "array_parallelism": 2, "cpus_per_task": None}, 4),
        ({"_target_": "x.LocalLauncher", "array_parallelism": 2, "cpus_per_task": 1}, 1),
        ({"_target_": "x.RayLauncher", "ray": {"remote": {"num_cpus": 2}}}, 2),
        ({"_target_": "x.RayLauncher", "ray": {"remote": {"num_cpus": 0.5}}}, 1),
    ],
)
def test_a_job_has_the_threads_that_its_launcher_asks_for(launcher, expected):
    hydra = OmegaConf.create({"launcher": launcher, "mode": RunMode.MULTIRUN})
    assert threads_of_job(hydra, 8) == expected


@pytest.mark.parametrize(("option", "place"), [("submitit_slurm", "slurm"), ("submitit_local", "local"),
                                               ("ray", "ray"), ("joblib", "joblib")])  # fmt: skip
def test_every_option_of_a_launcher_has_its_place(option, place, monkeypatch):
    monkeypatch.setattr(placement, "available_cores", lambda: 8)
    config = composed(f"hydra/launcher={option}")
    assert place_of(config.hydra) == place


def composed(*overrides):
    """A sweep's config with Hydra's own."""
    from hydra import compose, initialize_config_dir

    from fer_lightning.config.folders import CONF
    from fer_lightning.config.resolve import drop_plugin_options, register_resolvers

    register_resolvers()
    drop_plugin_options()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [*overrides, "+hydra.mode=MULTIRUN"], return_hydra_config=True)


@pytest.mark.parametrize("option", ["submitit_slurm", "submitit_local"])
def test_a_launcher_whose_package_is_missing_names_it(option, monkeypatch):
    monkeypatch.setattr(placement, "_is_installed", lambda plugin: False)
    config = composed(f"hydra/launcher={option}")
    with pytest.raises(FERError, match=f"hydra/launcher={option}: .*pip install hydra-submitit-launcher"):
        check_launcher(config.hydra)


def test_ray_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(placement, "_is_installed", lambda plugin: False)
    with pytest.raises(FERError, match="hydra/launcher=ray: .*pip install hydra-ray-launcher"):
        check_launcher(composed("hydra/launcher=ray").hydra)


def test_the_options_of_the_launchers_compose_without_their_packages():
    """The plugins store options of the same names, which lack some of our keys."""
    config = compose_config("train", ["hydra/launcher=submitit_local", "hydra.launcher.max_num_timeout=1"])
    assert config.model
