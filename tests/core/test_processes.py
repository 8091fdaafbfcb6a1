"""Processes that torchrun or srun has started, as the environment describes them."""

import pytest
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from fer_lightning.core.errors import FERError
from fer_lightning.core.processes import Processes, check_processes, leave, started_processes
from fer_lightning.training.trainer import Trainer
from tests.several import variables


@pytest.fixture
def given(monkeypatch):
    """Set variables, and none else of a launcher."""

    def give(**values):
        for name in {*variables("torchrun", 0, 2), *variables("srun", 0, 2), "SLURM_CPUS_PER_TASK"}:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        return started_processes()

    return give


@pytest.mark.parametrize("launcher", ["torchrun", "srun"])
def test_the_third_of_four_processes_on_two_nodes(launcher, given):
    assert given(**variables(launcher, 2, 4, nodes=2)) == Processes(launcher, 2, 4, 2, 2)
    leave()
    assert started_processes() is None


@pytest.mark.parametrize(
    "values",
    [
        {},
        variables("torchrun", 0, 1),
        variables("srun", 0, 1),
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "3"},  # a script of sbatch
        {"RANK": "1", "WORLD_SIZE": "2"},  # of another program
    ],
    ids=["python", "torchrun", "srun", "sbatch", "another"],
)
def test_a_process_that_is_alone(values, given):
    assert given(**values) is None
    check_processes({"strategy": "auto", "devices": 1})


def test_each_process_of_torchrun_has_its_part_of_the_cores(given):
    assert given(**variables("torchrun", 0, 4, nodes=2)).threads(8) == 4
    assert given(**variables("srun", 0, 4)).threads(8) == 8  # Slurm has bound it to these
    assert given(**variables("srun", 0, 4), SLURM_CPUS_PER_TASK="2").threads(8) == 2


@pytest.mark.parametrize("devices", [-1, "auto", 2])
def test_devices_may_be_left_to_the_launcher(devices, given):
    given(**variables("torchrun", 0, 2))
    check_processes({"strategy": "ddp_spawn", "devices": devices})


def test_a_trainer_of_one_process_or_of_other_devices_is_refused(given):
    given(**variables("srun", 0, 4, nodes=2))
    with pytest.raises(FERError, match=r"srun has started 4 processes, .* add trainer=ddp"):
        check_processes({"strategy": "auto", "devices": 1})
    with pytest.raises(FERError, match=r"trainer.devices=4: srun has started 2 processes on each node"):
        check_processes({"strategy": "ddp_spawn", "devices": 4})


@pytest.mark.parametrize("launcher", ["torchrun", "srun"])
def test_one_task_starts_its_processes_itself(launcher, given):
    """Lightning would take the task for one of the processes."""
    given(**variables(launcher, 0, 1))
    trainer = Trainer(strategy="ddp_spawn", accelerator="cpu", devices=2, logger=False)
    assert isinstance(trainer.strategy.cluster_environment, LightningEnvironment)
    assert trainer.world_size == 2
