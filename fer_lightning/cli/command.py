"""What surrounds ``main`` of train.py and eval.py: arguments, settings, sweeps, and mistakes in one sentence.

The commands import it before anything else, so it must stay cheap: hydra and omegaconf only.
"""

import functools
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_lightning import __version__
from fer_lightning.cli.slurm import requeue_if_asked, resume_if_requeued
from fer_lightning.cli.sweep import recorded_sweep
from fer_lightning.config.arguments import option_names, sort_arguments
from fer_lightning.config.checks import check_values
from fer_lightning.config.folders import CONF, check_added_folders, check_single_options
from fer_lightning.config.known_keys import EVAL_KEYS, TRAIN_KEYS, check_known_keys
from fer_lightning.config.resolve import register_resolvers, to_plain
from fer_lightning.config.secrets import check_no_secrets
from fer_lightning.core.errors import (
    FULL_ERROR,
    FULL_ERROR_HINT,
    FERError,
    describe_error,
    exit_with_error,
    is_bug,
    release_frames,
)
from fer_lightning.core.garbage import gc_paused
from fer_lightning.core.processes import leading, started_processes
from fer_lightning.core.program import command_line
from fer_lightning.core.signals import RunStopped, check_stopped
from fer_lightning.core.stdio import make_stdio_robust
from fer_lightning.runs.resume import remove_if_empty
from fer_lightning.runs.sweep_resume import expand_resume

T = TypeVar("T")

# What this package adds to Hydra for trainings.
_OF_TRAININGS = {
    ("hydra/launcher", "submitit_local"),
    ("hydra/launcher", "submitit_slurm"),
    ("hydra/launcher", "ray"),
    ("hydra/sweeper", "optuna"),
}

_raises_all = False  # whether the user set HYDRA_FULL_ERROR=1


@contextmanager
def sharing_processes() -> Iterator[bool]:
    """Share the work among processes of torchrun or srun; yield whether this one only follows."""
    with ExitStack() as stack:
        try:
            processes = started_processes()
            is_follower = processes is not None and processes.rank > 0
            if processes is not None and not is_follower:
                stack.enter_context(leading(processes))
        except FERError as error:
            exit_with_error(error)
        if processes is not None and is_follower:
            from fer_lightning.cli.follow import follow

            follow(processes)
        yield is_follower


def _check_alone(config_name: str, options: Collection[str]) -> None:
    """Refuse to evaluate, or to run a sweep, in several processes that torchrun or srun has started."""
    processes = started_processes()
    if processes is None or not (config_name == "eval" or "--multirun" in options):
        return
    if processes.rank:
        sys.exit(1)  # the first process says it
    what = "eval.py works in one process" if config_name == "eval" else "-m: a sweep starts its own processes"
    raise FERError(
        f"{what}, and {processes.launcher} has started {processes.world_size}; start the command alone "
        "(hydra/launcher=joblib runs jobs side by side, trainer=ddp trains one on several devices)"
    )


def _check_sweep_of_evaluations(config_name: str, arguments: Sequence[str]) -> None:
    """Refuse for eval.py what continues and records trainings."""
    for argument in arguments if config_name == "eval" else ():
        group, _, option = argument.partition("=")
        if (group, option) in _OF_TRAININGS:
            raise FERError(
                f"{argument}: of train.py; evaluations of -m run one after another, or side by side with "
                "hydra/launcher=joblib"
            )


@contextmanager
def command(config_name: str) -> Iterator[None]:
    """Run a Hydra command; a mistake in it becomes ``error: ...`` on stderr and exit code 1.

    Hydra's own messages describe the inside of the config and give misleading hints (``modle=cnn``: "To
    append to your config use +modle=cnn"). With HYDRA_FULL_ERROR=1 every error is raised as it is.

    Args:
        config_name: ``train`` or ``eval``.
    """
    register_resolvers()
    make_stdio_robust()
    try:
        sys.argv[1:] = sort_arguments(sys.argv[1:])
        check_no_secrets({}, sys.argv[1:])  # a sweep writes them down before its jobs start
        check_single_options(sys.argv[1:])
        check_added_folders(sys.argv[1:])
        options = option_names(sys.argv[1:])
        _check_alone(config_name, options)
        _check_sweep_of_evaluations(config_name, sys.argv[1:])
    except FERError as error:
        exit_with_error(error)
    if "--help" in options:
        sys.stdout.write(f"{help_text(config_name)}\n")
        sys.exit()
    if "--version" in options:
        sys.stdout.write(f"fer_lightning {__version__}\n")
        sys.exit()
    if config_name == "train" and not options & {"--cfg", "--info", "--shell-completion"}:
        sys.argv[1:] = expand_resume(resume_if_requeued(sys.argv[1:]))
    with gc_paused(), _reporting(config_name):
        try:
            with recorded_sweep():
                yield
        except RunStopped as stop:
            requeue_if_asked(stop.signal_number)
            raise


@contextmanager
def _reporting(config_name: str) -> Iterator[None]:
    """End the command with one sentence for whatever its arguments, files or environment caused."""
    global _raises_all
    _raises_all = os.environ.get(FULL_ERROR) == "1"
    if _raises_all:
        yield
        return
    try:
        os.getcwd()  # noqa: PTH109 - hydra asks it like this
        os.environ[FULL_ERROR] = "1"  # hydra then raises instead of printing
        yield
    except Exception as error:
        check_stopped()
        sentence = _user_message(error, config_name)
        if sentence is None:
            raise  # a bug of ours, which wants its traceback
        exit_with_error(FERError(sentence))
    finally:
        os.environ.pop(FULL_ERROR, None)


def check_settings(config: DictConfig) -> None:
    """Check all settings that need no torch; leave no folder of a command that is refused.

    Raises:
        FERError: If a value is missing or wrong.
    """
    try:
        if "predictor" in config and OmegaConf.is_missing(config.predictor, "model"):
            raise FERError(
                "predictor.model: missing; name it as the server does, such as predictor.model=gpt-4o"
            )
        folder = HydraConfig.get().runtime.output_dir
        if config.run_dir is not None:
            raise FERError(
                f"run_dir={config.run_dir}: filled in by the command; choose the folder with "
                f"hydra.run.dir=..."
            )
        config.run_dir = folder
        plain = to_plain(config)
        check_no_secrets(plain)  # of configs that --config-dir adds; the overrides were checked before
        check_known_keys(plain, EVAL_KEYS if _config_name(config) == "eval" else TRAIN_KEYS)
        check_values(plain)
    except (FERError, OmegaConfBaseException) as error:
        remove_if_empty(Path(HydraConfig.get().runtime.output_dir))
        if isinstance(error, FERError):
            raise
        from fer_lightning.config.overrides import explain_override

        raise FERError(explain_override(error, _config_name(config))) from error


def _config_name(config: DictConfig) -> str:
    return "eval" if "predictor" in config else "train"


def report_user_errors(task: Callable[[DictConfig], T]) -> Callable[[DictConfig], T]:
    """Decorate a Hydra task so that what a single run ends with is one line on stderr, and exit code 1.

    Hydra would add a line before it and a hint at tracebacks after it. In a sweep the error goes on to Hydra,
    which then runs the other jobs and keeps the error: without the frames that hold the job's memory.
    """

    @functools.wraps(task)
    def reporting(config: DictConfig) -> T:
        is_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
        try:
            return task(config)
        except Exception as error:
            if not (is_sweep or _raises_all):
                sentence = _user_message(error, _config_name(config))
                if sentence is not None:
                    exit_with_error(FERError(sentence))
            if is_sweep:
                release_frames(error)
            raise

    return reporting


def help_text(config_name: str) -> str:
    """Write what ``--help`` prints.

    Hydra would compose the config for it and list every group there is, its own too: a second more.

    Args:
        config_name: Of the command's config, such as ``train``.
    """
    settings = OmegaConf.load(CONF / "hydra" / "help" / f"{config_name}.yaml")
    text = str(OmegaConf.create({"hydra": {"help": settings}}).hydra.help.template)
    for name in ("train", "eval"):
        text = text.replace(f"python {name}.py", command_line(name))
    return text


def _user_message(error: Exception, config_name: str) -> str | None:
    """Put an error in a sentence; None where it is not of a user's making."""
    if isinstance(error, FERError):
        return str(error)
    if isinstance(error, FileNotFoundError) and error.filename is None:
        return "the folder in which this command was started does not exist any more; change to another (cd)"
    if is_bug(error):
        return None
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"{error.filename}: {error.strerror}; choose another folder, with hydra.run.dir= (a sweep's with "
            "hydra.sweep.dir=)"
        )
    if type(error).__name__ == "TerminatedWorkerError":  # joblib's, which is not imported for this
        return (
            "a process of the sweep was killed, as the system does where memory runs out; take a smaller "
            "hydra.launcher.n_jobs, and go on with the same command and resume=auto"
        )
    from fer_lightning.config.overrides import explain_override  # needed by mistakes alone

    return explain_override(error, config_name) or f"{describe_error(error)}; {FULL_ERROR_HINT}"
