"""What can be mistyped, and the odd places and terminals in which commands are run."""

import ast
import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.commands import ROOT, TINY, environment, run, run_in_terminal, succeed
from tests.forked import Forked
from tests.slow import slow_except

RUN = ("train.py", *TINY, "model=mlp", "logger=none", "trainer.max_epochs=1")

# Each is refused before data are decoded, and leaves no folder.
MISTAKES = {
    "group": ["modle=cnn"],
    "setting without its group": ["max_epochs=3"],
    "setting of another model": ["model.rows_per_step=4", "model=cnn"],
    "setting that is not in the config": ["trainer.accumulate_grad_batches=2"],
    "unknown setting with a plus": ["+model.widht=7", "model=cnn"],
    "option": ["model=resnt"],
    "null for a group": ["model=null"],
    "two options of a group": ["model=[mlp,cnn]"],
    "interval": ["-m", "optimizer.lr=interval(0.1,0.2)"],
    "setting below null": ["-m", '+hydra.sweeper.params.seed="0,1"'],
    "folder in terms of itself": ["run_dir=${run_dir}"],
    "sweep of nothing": ["-m", "seed=range(0,0)"],
    "search of nothing": ["-m", "hydra/sweeper=optuna"],
    "search over seeds": ["-m", "hydra/sweeper=optuna", "seed=0,1"],
    "number of trials": ["-m", "hparams_search=mlp", "hydra.sweeper.n_trials=0"],
    "sampler": ["-m", "hparams_search=mlp", "hydra.sweeper.sampler._target_=optuna.samplers.TPE"],
    "setting of the sampler": ["-m", "hparams_search=mlp", "+hydra.sweeper.sampler.startup=3"],
    "direction of a search": ["-m", "hparams_search=mlp", "hydra.sweeper.direction=max"],
    "ends of an interval": ["-m", "hydra/sweeper=optuna", "optimizer.lr=interval(2,1)"],
    "setting in a search": ["-m", "hydra/sweeper=optuna", "optimizer.lrr=interval(1,2)"],
    "group taken away": ["~model"],
    "comma": ["data.root=a,b"],
    "accent": ["data.root=é"],
    "space": ["data.root=my", "faces"],
    "unknown interpolation": ["seed=${nothing}"],
    "unknown option in a sweep": ["-m", "model=mlp,vit"],
    "number": ["data.batch_size=x"],
    "part of the batches": ["trainer.limit_val_batches=0"],
    "clipping": ["trainer.gradient_clip_val=abc"],
    "threads": ["num_threads=0"],
    "early stopping without val": ["early_stopping=3", "data.protocol=paper"],
    "monitor": ["monitor=test/acc"],
    "start": ["init_from=nowhere"],
    "type of the optimiser's": ["optimizer.lr=abc"],
    "range of the optimiser's": ["optimizer.lr=-1"],
    "schedule": ["scheduler=cosine", "scheduler.T_max=abc"],
    "precision": ["trainer.precision=bf16-true"],
    "precision of a GPU": ["trainer.precision=16-mixed", "trainer=cpu"],
    "augmentation": ["+data.augment.flop=1"],
    "soft targets": ["data.soft_targets=nowhere.npz", "data=synthetic"],
    "share of soft targets": ["data.soft_targets_weight=2", "data=synthetic"],
    "faces": ["data.source.num_train=x", "data=synthetic"],
    "depth and weights": ["experiment=improved_resnet", "model.pretrained=true"],
    "setting of the logger": ["logger=wandb", "logger.wandb.mode=onlin"],
    "setting the logger has not": ["logger=wandb", "+logger.wandb.tag=x"],
    "GPU": ["trainer.accelerator=gpu"],
    "several devices": ["trainer.devices=2"],
    "another strategy": ["+trainer.strategy=ddp"],
    "what to resume": ["resume=true"],
    "dashes": ["--model=mlp"],
    "option of the command": ["model=mlp", "--foo"],
    "short option": ["-x", "model=mlp"],
    "option without its value": ["model=mlp", "--config-dir"],
    "two modes": ["-m", "model=mlp,cnn", "--cfg", "job"],
    "stray word": ["model=mlp", "cnn"],
    "folder of configs": ["model=mlp", "--config-dir", "nowhere"],
}
SEARCHES = (
    "search of nothing", "search over seeds", "number of trials", "sampler", "setting of the sampler",
    "direction of a search", "ends of an interval", "setting in a search",
)  # fmt: skip
# One of each kind: groups, settings, interpolations, sweeps, numbers, ranges, parts of Lightning, options.
USUAL_MISTAKES = (
    "group", "setting without its group", "unknown setting with a plus", "option", "null for a group",
    "unknown interpolation", "unknown option in a sweep", "number", "threads", "monitor", "start",
    "range of the optimiser's", "augmentation", "soft targets", "several devices", "dashes", "stray word",
)  # fmt: skip


@pytest.mark.parametrize("mistake", slow_except(USUAL_MISTAKES, MISTAKES))
def test_mistake_is_reported_in_one_sentence_and_leaves_no_file(mistake, fault_row, cache, tmp_path):
    fault_row.check(run("train.py", *MISTAKES[mistake], cwd=tmp_path, cache=cache, CUDA_VISIBLE_DEVICES=""))
    swept = mistake in ("unknown option in a sweep", "sweep of nothing", *SEARCHES, "interval")
    kept = ["outputs"] if swept else []  # the sweep's record
    assert [path.name for path in tmp_path.iterdir()] == kept


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["predictor.model=gpt-4o"], id="setting of another predictor"),
        pytest.param(
            ["predictor=llm", "predictor.model=x", "data=synthetic", "data.protocol=mine"], id="protocol"
        ),
        pytest.param(
            ["predictor=llm", "predictor.model=x", "data=synthetic", "data.soft_targets=a.npz"],
            id="soft targets",
        ),
        pytest.param(["checkpoint=best.ckpt", "split=tset"], id="split"),
        pytest.param(["checkpoint=best.ckpt", "predictor.tta=tencrop"], id="tta"),
        pytest.param(["checkpoint=[a,b]", "ensemble=best"], id="ensemble"),
        pytest.param(["checkpoint=a", "ensemble=true"], id="ensemble of one"),
    ],
)
def test_mistake_in_an_evaluation_is_reported_in_one_sentence(arguments, fault_row, cache, tmp_path):
    fault_row.check(run("eval.py", *arguments, cwd=tmp_path, cache=cache))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["trian"], id="command"),
        pytest.param(["model=mlp"], id="no command"),
        pytest.param(["--foo"], id="option"),
    ],
)
def test_wrong_command_of_fer_lightning_is_reported(arguments, fault_row, cache, tmp_path):
    fault_row.check(run("-m", "fer_lightning", *arguments, cwd=tmp_path, cache=cache))


def test_config_that_would_be_hidden_by_ours_is_refused(fault_row, cache, tmp_path):
    (tmp_path / "my_conf/model").mkdir(parents=True)
    (tmp_path / "my_conf/model/cnn.yaml").write_text("hidden: [8]\n")
    fault_row.check(run("train.py", "--config-dir", "my_conf", "model=cnn", cwd=tmp_path, cache=cache))
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_option_between_overrides_works(fault_row, cache, tmp_path):
    words = ("model=mlp", "--multirun", "seed=0,1", *TINY, "trainer=smoke", "logger=none")
    fault_row.check(run("train.py", *words, "hydra.sweep.dir=sweep", cwd=tmp_path, cache=cache))
    assert len(list(tmp_path.glob("sweep/*/report.html"))) == 2


def test_mistyped_value_is_reported_before_torch_is_imported(fault_row, cache, tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    done = run(
        "train.py", "trainer.max_epochs=x", cwd=tmp_path, cache=cache, fresh=True,
        PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}",
    )  # fmt: skip
    fault_row.check(done)


def test_a_refusal_leaves_the_user_s_folder_alone(fault_row, cache, tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    fault_row.check(run("train.py", "seed=x", "hydra.run.dir=run", cwd=here, cache=cache))
    assert here.is_dir()
    assert not list(here.iterdir())


def test_missing_working_directory_is_reported(fault_row, cache, tmp_path):
    (tmp_path / "gone").mkdir()
    removing = f"rmdir ../gone; exec {sys.executable} {ROOT / 'train.py'} seed=1"
    done = subprocess.run(
        ["sh", "-c", removing], cwd=tmp_path / "gone", env=environment(cache), capture_output=True, text=True
    )
    fault_row.check(done)


def test_too_long_folder_name_is_reported(fault_row, cache, tmp_path):
    fault_row.check(run("train.py", f"hydra.run.dir={'x' * 256}", cwd=tmp_path, cache=cache))
    assert not list(tmp_path.iterdir())


# Versions


@pytest.mark.parametrize("script", ["train.py", "eval.py"])
def test_old_interpreter_is_refused_with_the_versions_needed(script, fault_row, cache, tmp_path):
    old = f"import runpy, sys; sys.version_info = (3, 9, 18); runpy.run_path({str(ROOT / script)!r})"
    fault_row.check(run("-c", old, cwd=tmp_path, cache=cache))


@pytest.mark.parametrize(
    "file", ["train.py", "eval.py", "fer_lightning/__init__.py", "fer_lightning/core/requirements.py"]
)
def test_version_check_parses_on_an_old_interpreter(file):
    ast.parse((ROOT / file).read_text(encoding="utf-8"), feature_version=(3, 7))


def test_old_package_is_refused_with_the_version_needed(fault_row, cache, tmp_path):
    metadata = tmp_path / "lightning-2.5.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lightning\nVersion: 2.5.0\n")
    done = run(
        "train.py", "--help", cwd=tmp_path, cache=cache, fresh=True,
        PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}",
    )  # fmt: skip
    fault_row.check(done)


# Machines


def test_too_little_memory_names_the_size_of_the_batches(fault_row, cache, tmp_path):
    arguments = [str(ROOT / RUN[0]), *RUN[1:], "trainer=cpu", "model.hidden=[30000000]", "hydra.run.dir=run"]
    command = Forked(arguments, cwd=tmp_path, env=environment(cache))
    # The first layer wants 276 GB, which without a limit a system that promises any would begin to fill.
    resource.prlimit(command.pid, resource.RLIMIT_AS, (64 << 30, 64 << 30))
    fault_row.check(command.completed())
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_several_processes_train_a_sweep_s_jobs_one_after_another(fault_row, cache, tmp_path):
    fault_row.check(
        run(
            *RUN,
            "-m",
            "trainer=ddp",
            "trainer.accelerator=cpu",
            "trainer.devices=2",
            "seed=0,1",
            "hydra.sweep.dir=sweep",
            cwd=tmp_path,
            cache=cache,
        )
    )
    folders = sorted(path.parent.name for path in (tmp_path / "sweep").glob("*/run.json"))
    assert folders == ["0_mlp", "1_mlp"]
    for folder in folders:
        assert json.loads((tmp_path / "sweep" / folder / "run.json").read_text())["state"] == "finished"
        lines = (tmp_path / "sweep" / folder / "train.log").read_text().splitlines()
        assert len([line for line in lines if " epoch 1/1 " in line]) == 1


@pytest.mark.slow
def test_processes_that_train_one_run_save_and_stop_together(fault_row, cache, tmp_path):
    several = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_epochs=9999")
    words = [str(ROOT / RUN[0]), *RUN[1:], "model.hidden=[16]", *several, "hydra.run.dir=run"]
    command = Forked(words, cwd=tmp_path, env=environment(cache))
    while not (tmp_path / "run/last.ckpt").exists():
        assert command.poll() is None, command.output()
    command.send_signal(signal.SIGTERM)
    fault_row.check(command.completed())
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert (record["state"], record["reason"]) == ("interrupted", "stopped by signal 15")


@pytest.mark.slow
def test_jobs_side_by_side_outlive_who_reads_them(fault_row, cache, tmp_path):
    parallel = "-m seed=0,1,2 hydra/launcher=joblib hydra.launcher.n_jobs=2 hydra.sweep.dir=sweep"
    words = " ".join(map(str, (sys.executable, ROOT / RUN[0], *RUN[1:], parallel)))
    piped = f"({words}; echo ended with $? >code) | head -n 1; cat code; exit $(tail -c 2 code)"
    done = subprocess.run(
        ["sh", "-c", piped], cwd=tmp_path, env=environment(cache), capture_output=True, text=True
    )
    fault_row.check(done)
    for job in ("0_mlp", "1_mlp", "2_mlp"):
        assert json.loads((tmp_path / "sweep" / job / "run.json").read_text())["state"] == "finished"


@pytest.mark.slow
def test_several_processes_train_one_run(fault_row, cache, tmp_path):
    done = run(
        *RUN, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "hydra.run.dir=run",
        cwd=tmp_path, cache=cache,
    )  # fmt: skip
    fault_row.check(done)
    assert len((tmp_path / "run/metrics.csv").read_text().splitlines()) == 2
    assert (tmp_path / "run/best.ckpt").is_file()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
@pytest.mark.parametrize("command", ["eval.py", "fer-lightning"])
def test_a_command_stopped_while_it_starts_says_nothing(number, code, command, fault_row, cache, tmp_path):
    started = {"eval.py": [str(ROOT / "eval.py")], "fer-lightning": ["-m", "fer_lightning", "eval"]}
    words = [sys.executable, *started[command], "checkpoint=nowhere"]
    env = environment(cache)
    with subprocess.Popen(
        words, cwd=tmp_path, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        handled, mask = 0, 1 << (signal.SIGTERM - 1)
        while not handled & mask:  # until then it is the interpreter that is stopped
            status = Path(f"/proc/{process.pid}/status").read_text()
            handled = int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16)
        process.send_signal(number)
        printed = b"".join(process.communicate(timeout=300)).decode()
    fault_row.check(subprocess.CompletedProcess(words, process.returncode, printed, ""))
    assert printed == ""


def test_batch_fraction_below_one_batch_is_refused_before_training(fault_row, cache, tmp_path):
    fault_row.check(run(*RUN, "trainer.limit_predict_batches=0.1", cwd=tmp_path, cache=cache))
    assert not list(tmp_path.rglob("*.ckpt"))


# Terminals

TERMINALS = {
    "dumb": ({"TERM": "dumb"}, r"\x1b"),
    "no colour": ({"NO_COLOR": "1"}, r"\x1b\[[\d;]*\b(3[0-8]|4[0-8]|9[0-7]|10[0-7])[\d;]*m"),
}


@pytest.mark.parametrize(("setting", "forbidden"), TERMINALS.values(), ids=TERMINALS)
def test_a_terminal_is_sent_what_it_can_show(setting, forbidden, fault_row, cache, tmp_path):
    settings = {"TERM": "xterm-256color"} | setting
    done = run_in_terminal(*RUN, "hydra.run.dir=run", cwd=tmp_path, cache=cache, **settings)
    fault_row.check(done)
    assert not re.search(forbidden, done.stdout), done.stdout


@pytest.mark.slow
def test_a_run_outlives_who_reads_it(fault_row, cache, tmp_path):
    words = " ".join(map(str, (sys.executable, ROOT / RUN[0], *RUN[1:], "hydra.run.dir=run")))
    piped = f"({words}; echo ended with $? >code) | head -n 1; cat code; exit $(tail -c 2 code)"
    done = subprocess.run(
        ["sh", "-c", piped], cwd=tmp_path, env=environment(cache), capture_output=True, text=True
    )
    fault_row.check(done)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 2
    assert json.loads((tmp_path / "run/run.json").read_text())["state"] == "finished"
    assert "test accuracy" in (tmp_path / "run/train.log").read_text()


@pytest.mark.slow
def test_a_run_needs_no_output_no_home_and_no_letters_but_ascii(fault_row, cache, tmp_path):
    """Closed outputs in one command, an encoding without é in another; neither has a home that exists."""
    odd = {"HOME": "/proc/nowhere", "PYTHONIOENCODING": "ascii", "LANG": "C", "LC_ALL": "C", "TERM": "dumb"}
    name = "é (1) 'quoted'"
    words = [sys.executable, str(ROOT / RUN[0]), *RUN[1:]]
    shut = subprocess.run(
        ["sh", "-c", '"$@" >&- 2>&-', "sh", *words, "hydra.run.dir=shut"],
        cwd=tmp_path,
        env=environment(cache, **odd),
    )
    assert shut.returncode == 0
    assert json.loads((tmp_path / "shut/run.json").read_text())["state"] == "finished"
    done = run(*RUN, f'hydra.run.dir="{name}"', cwd=tmp_path, cache=cache, fresh=True, **odd)
    fault_row.check(done)
    assert done.stdout.isascii()
    assert json.loads((tmp_path / name / "run.json").read_text())["state"] == "finished"


@pytest.mark.slow
def test_a_narrow_terminal_shows_every_probability(fault_row, cache, tmp_path):
    succeed(*RUN, "hydra.run.dir=run", cwd=tmp_path, cache=cache)
    Image.new("L", (48, 48), 128).save(tmp_path / "face.png")
    done = run(
        "-m",
        "fer_lightning.predict",
        "face.png",
        "--detector",
        "none",
        "--checkpoint",
        "run",
        cwd=tmp_path,
        cache=cache,
        COLUMNS="60",
    )
    fault_row.check(done)
    assert "…" not in done.stdout
    done = succeed("eval.py", "checkpoint=run", "hydra.run.dir=eval", cwd=tmp_path, cache=cache)
    assert "trained on synthetic faces" in done.stdout


# Folders


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "sweep", "evaluation"])
def test_folder_with_other_files_is_left_alone(command, fault_row, cache, tmp_path):
    names = ("config.yaml", "metrics.csv", "report.html", "thesis.tex")
    (tmp_path / "mine").mkdir()
    for name in names:
        (tmp_path / "mine" / name).write_text("years")
    if command == "evaluation":
        succeed(*RUN, "trainer=smoke", "hydra.run.dir=run", cwd=tmp_path, cache=cache)
    arguments = {
        "run": (*RUN, "hydra.run.dir=mine"),
        "sweep": (*RUN, "-m", "seed=0,1", "hydra.sweep.dir=mine"),
        "evaluation": ("eval.py", "checkpoint=run", "hydra.run.dir=mine"),
    }[command]
    fault_row.check(run(*arguments, cwd=tmp_path, cache=cache))
    assert sorted(path.name for path in (tmp_path / "mine").iterdir() if path.name != ".lock") == sorted(
        names
    )
    assert {(tmp_path / "mine" / name).read_text() for name in names} == {"years"}
