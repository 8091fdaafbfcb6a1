"""Parts of Lightning, torch and the user that cannot work are named in one sentence, most before training."""

import json

import pytest

from tests.commands import TINY, run, succeed
from tests.extending.conftest import MINE
from tests.slow import slow_except

SMALL = (
    *TINY, "model=mlp", "model.hidden=[16]", "data.image_size=16", "trainer.max_epochs=2",
    "hydra.run.dir=run",
)  # fmt: skip
LIGHTNING = "lightning.pytorch.callbacks"
MIXUP = "data.batch_transforms=[{_target_:torchvision.transforms.v2.MixUp,num_classes:7}]"
REFUSED = {
    "plateau": ("scheduler=plateau", "data.protocol=paper"),
    "early_stopping": (
        f"+callbacks.x={{_target_:{LIGHTNING}.EarlyStopping,monitor:val/loss}}",
        "data.protocol=paper",
    ),
    "no_such_metric": (f"+callbacks.x={{_target_:{LIGHTNING}.EarlyStopping,monitor:val/lss}}",),
    "no_logger": (f"+callbacks.x._target_={LIGHTNING}.LearningRateMonitor",),
    "no_checkpoint": ("~callbacks.checkpoint",),
    "left_over": ("loss._target_=torch.nn.CrossEntropyLoss",),
    "soft_targets": ("~loss", "+loss._target_=torch.nn.MultiMarginLoss", MIXUP),
    "vector": ("~loss", "+loss={_target_:torch.nn.CrossEntropyLoss,reduction:none}"),
    "no_option": ("logger=[csv,tb]",),
    "max_steps": ("+trainer.max_steps=0",),
    "fast_dev_run": ("+trainer.fast_dev_run=true",),
    "sam_accumulates": ("optimizer=sam", "+trainer.accumulate_grad_batches=2"),
    "sam_distance": ("optimizer=sam", "optimizer.rho=0"),
    "val_check_interval": ("+trainer.val_check_interval=2",),
}


@pytest.mark.parametrize(
    "case", slow_except(("no_such_metric", "left_over", "soft_targets", "max_steps"), REFUSED)
)
def test_part_that_cannot_work_is_named(case, fault_row, cache, tmp_path):
    logger = () if case == "no_option" else ("logger=none",)
    fault_row.check(run("train.py", *SMALL, *logger, *REFUSED[case], cwd=tmp_path, cache=cache))


def test_logger_that_fails_stops_no_run(fault_row, cache, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    logger = "+logger.mine={_target_:mine.Lines,path:lines.txt,fails_in:metrics}"
    python_path = {"PYTHONPATH": f"{run.__globals__['ROOT']}:{tmp_path}"}
    done = succeed("train.py", *SMALL, "logger=none", logger, cwd=tmp_path, cache=cache, **python_path)
    fault_row.check(done)
    assert (tmp_path / "run/report.html").is_file()


@pytest.mark.slow
def test_checkpoint_of_an_untrusted_package_is_refused(fault_row, cache, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    python_path = {"PYTHONPATH": f"{run.__globals__['ROOT']}:{tmp_path}"}
    module = (
        (tmp_path / "mine.py").read_text()
        + """

from fer_lightning.models.mlp import MLP


class Net(MLP):
    pass
"""
    )
    (tmp_path / "mine.py").write_text(module)
    command = (*SMALL, "logger=none", "trainer=smoke", "model._target_=mine.Net")
    succeed("train.py", *command, cwd=tmp_path, cache=cache, **python_path)
    fault_row.check(run("eval.py", "checkpoint=run", cwd=tmp_path, cache=cache, **python_path))


BROKEN = """
from lightning.pytorch import Callback


class AtStart(Callback):
    def __init__(self, factor=1):
        raise KeyError("mine")


class InTraining(Callback):
    def on_train_batch_end(self, *args):
        return 1 / 0
"""


@pytest.mark.parametrize("name", ["AtStart", "InTraining"])
def test_error_in_code_of_the_user_names_its_line(name, fault_row, cache, tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    python_path = {"PYTHONPATH": f"{run.__globals__['ROOT']}:{tmp_path}"}
    words = (*SMALL, "logger=none", f"+callbacks.mine._target_=broken.{name}")
    done = run("train.py", *words, cwd=tmp_path, cache=cache, **python_path)
    fault_row.check(done)
    if name == "InTraining":
        log = (tmp_path / "run/train.log").read_text()
        assert "Traceback (most recent call last)" in log
        assert 'broken.py", line 12, in on_train_batch_end' in log


SPOILER = """
from lightning.pytorch import Callback

from fer_lightning.cli import steps


def fails(*args, **kwargs):
    raise ZeroDivisionError("no such figure")


class Spoiler(Callback):
    def on_fit_end(self, *args):
        for name in ("draw_all", "draw_audit", "write_page", "confusion_table", "headline_table"):
            setattr(steps, name, fails)
"""


def test_figure_table_or_page_that_fails_hides_no_result(fault_row, cache, tmp_path):
    (tmp_path / "spoiler.py").write_text(SPOILER)
    python_path = {"PYTHONPATH": f"{run.__globals__['ROOT']}:{tmp_path}"}
    words = (*SMALL, "logger=none", "+callbacks.mine._target_=spoiler.Spoiler")
    done = run("train.py", *words, cwd=tmp_path, cache=cache, **python_path)
    fault_row.check(done)
    assert json.loads((tmp_path / "run/run.json").read_text())["state"] == "finished"
    assert json.loads((tmp_path / "run/metrics.json").read_text())["test"]["n"] == 42
    for what in ("figures of the audit", "tables per class", "the table of the results", "report.html"):
        assert f"WARNING: {what} could not be made: ZeroDivisionError: no such figure" in done.stdout
    assert 'spoiler.py", line 8, in fails' in (tmp_path / "run/train.log").read_text()


def test_hydra_full_error_prints_the_traceback(cache, tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    python_path = {"PYTHONPATH": f"{run.__globals__['ROOT']}:{tmp_path}", "HYDRA_FULL_ERROR": "1"}
    words = (*SMALL, "logger=none", "+callbacks.mine._target_=broken.AtStart")
    done = run("train.py", *words, cwd=tmp_path, cache=cache, **python_path)
    assert done.returncode == 1
    assert 'broken.py", line 7, in __init__' in done.stderr


def test_environment_that_lightning_refuses_is_a_sentence(fault_row, cache, tmp_path):
    slurm = {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "3"}
    fault_row.check(run("train.py", *SMALL, "logger=none", cwd=tmp_path, cache=cache, **slurm))
