"""Train one model, test its best checkpoint, write its report: ``python train.py --help``.

Heavy imports stand inside the functions, so that ``--help`` and ``--cfg job`` answer at once.
"""

import fer_lightning.core.requirements  # noqa: F401 - refuses what is too old, before it is imported
from fer_lightning.core.signals import RunStopped, check_stopped, install_exit_handlers, terminate_with_parent

if __name__ == "__main__":
    install_exit_handlers()  # from here on: imports take a second

# isort: split
import contextlib
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fer_lightning.cli.command import command, gc_paused, make_stdio_robust, resume_gc
from fer_lightning.config.checks import check_batch_limits, check_values
from fer_lightning.config.resolve import (
    config_hash,
    instantiate,
    register_resolvers,
    to_plain,
)
from fer_lightning.core.errors import (
    FERError,
    as_user_error,
    is_out_of_memory,
    release_frames,
    report_user_errors,
)
from fer_lightning.runs.sweep import expand_resume, jobs_at_once, recorded_sweep

if TYPE_CHECKING:
    from fer_lightning.core.signals import StopSignals
    from fer_lightning.data.datamodule import FERDataModule
    from fer_lightning.runs.folder import Run
    from fer_lightning.training.callbacks.callbacks import MetricsCSV
    from fer_lightning.training.classifier import FERClassifier

log = logging.getLogger("fer_lightning")

SYNTHETIC_WARNING = (
    "these numbers are from drawn faces, not from FER-2013: they say nothing of real expressions"
)


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@report_user_errors
def main(config: DictConfig) -> float | None:
    """Run one job; return the score of its best checkpoint to a sweeper."""
    from fer_lightning.runs.resume import remove_if_empty

    check_stopped()
    job = HydraConfig.get()
    try:
        plain = to_plain(config)
        check_job(plain, dict(job.runtime.choices), list(job.overrides.task))
        run, plain = open_job(plain, job)  # imports torch, which takes seconds
    except (FERError, OSError):
        remove_if_empty(Path(job.runtime.output_dir))
        raise
    from fer_lightning.core.signals import StopSignals
    from fer_lightning.core.terminal import log_to
    from fer_lightning.report.page import write_page

    if run.record.get("state") == "finished":
        log.info("%s: this run is finished, there is nothing to do", run.folder)
        run.release()
        return run.record.get("best_score")

    if job.mode == RunMode.MULTIRUN:
        log.info("job %s: %s", job.job.num, " ".join(job.overrides.task))
    with StopSignals() as signals, log_to(run.folder / "train.log"):
        try:
            score = train(plain, run, signals)
            run.end("finished")
        except RunStopped as stop:
            end_stopped(run, job, stop.signal_number)
            raise
        except Exception as error:
            if signals.received is not None:  # it stops what this run works with, too
                end_stopped(run, job, signals.received)
                raise RunStopped(signals.received) from error
            told = as_user_error(error, run.folder, plain["data"])
            reason = str(told) if isinstance(told, FERError) else f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):  # a full disk must not hide why the run failed
                run.end("failed", reason)
            if job.mode == RunMode.MULTIRUN:  # hydra tells of the first failure alone, and at the very end
                log.error("job %s failed: %s", job.job.num, reason)
                release_frames(error)
            raise told from (None if told is error else error)
        finally:
            try:
                log.info("report: %s", write_page(run.folder))
            except (FERError, OSError) as error:
                log.warning("report.html could not be written: %s", getattr(error, "strerror", error))
        if plain["data"]["name"] == "synthetic":
            log.warning(SYNTHETIC_WARNING)
        signals.check()  # one that came while the report was made: this run is finished, its sweep is not
    return score


def end_stopped(run: "Run", job: DictConfig, signal_number: int) -> None:
    """Record that a signal stopped a run; tell how it goes on."""
    run.end("interrupted", f"stopped by signal {signal_number}")
    if job.mode != RunMode.MULTIRUN:  # else recorded_sweep does
        log.warning("stopped; to continue: python train.py resume=%s", run.folder)


def check_job(config: dict[str, Any], choices: dict[str, Any], overrides: list[str]) -> None:
    """Refuse what would be noticed an hour later, or never.

    Args:
        config: Plain.
        choices: The option of each config group.
        overrides: The command's, ``hydra.`` ones aside.

    Raises:
        FERError: If a setting is not what it must be, or two do not go together.
    """
    by_hand = [override for override in overrides if override.lstrip("+~").startswith("family")]
    if by_hand:
        raise FERError(f"{by_hand[0]}: recipe= and model= choose it together; name those")
    if choices.get("experiment") == "paper" and choices.get("recipe"):
        raise FERError(
            f"recipe={choices['recipe']}: experiment=paper is the paper's own recipe; give "
            "experiment=improved, or leave one of the two out"
        )
    check_values(config)


def open_job(config: dict[str, Any], job: DictConfig) -> tuple["Run", dict[str, Any]]:
    """Choose machine, data and folder of a job, once all of its parts are known to take their settings.

    Args:
        config: Plain.
        job: Hydra's own config.

    Returns:
        The locked run and the config to follow.

    Raises:
        FERError: If there is no such device, data or folder, or a part refuses a setting.
    """
    from fer_lightning.config.checks import check_parts, check_stored
    from fer_lightning.core.hardware import available_cores, resolve_hardware, take_gpu
    from fer_lightning.core.terminal import start_terminal
    from fer_lightning.data.locate import locate
    from fer_lightning.runs.resume import is_bare_resume, open_run

    start_terminal()
    overrides = list(job.overrides.task)
    if jobs_at_once(job, available_cores()) > 1:  # in a process of its own, which has done none of main's
        install_exit_handlers()
        make_stdio_robust()
        take_gpu(job.job.num)
        terminate_with_parent()
    config = resolve_hardware(config)
    if not is_bare_resume(config["resume"], overrides):
        check_parts(config)
        config["data"] = locate(config["data"], log=log.warning)
    given = any(
        override.split("=")[0] in ("hydra.run.dir", "hydra.sweep.dir") for override in job.overrides.hydra
    )
    run, followed = open_run(config, folder_given=given, overrides=overrides)
    if followed is not config and is_bare_resume(config["resume"], overrides):
        try:
            check_stored(followed, run.folder / "config.yaml", trains=True)
            check_parts(followed)
        except FERError:
            run.release()
            raise
    return run, followed


def train(config: dict[str, Any], run: "Run", signals: "StopSignals") -> float | None:
    """Build, fit, test the best, report.

    Args:
        config: Plain, its data located.
        run: The locked folder to work in.
        signals: Where a SIGTERM or SIGINT is noted.

    Returns:
        The best score of ``monitor``; None where there is no validation split.
    """
    from lightning.pytorch import seed_everything

    from fer_lightning.core import hardware
    from fer_lightning.evaluation.evaluate import draw_figures, predict_split, show_results, write_results
    from fer_lightning.training.checkpoint import load_classifier
    from fer_lightning.training.loggers.wandb import FailsafeWandbLogger

    num_threads = hardware.prepare(
        config["num_threads"], jobs_at_once=jobs_at_once(HydraConfig.get(), hardware.available_cores())
    )
    write_config(config, run)
    run.start(
        **describe_job(config, run),
        machine=hardware.describe_machine(
            config["trainer"]["accelerator"], hardware.first_device(config["trainer"]["devices"])
        ),
        git=hardware.describe_git(),
        versions=hardware.describe_versions(),
        precision=config["trainer"]["precision"],
        num_threads=num_threads,
    )
    seed_everything(config["seed"], verbose=False)
    resume_gc()  # before the data, which would stay in memory as what is imported does
    with run.stage("data_s"):
        data = load_data(config, run)
    predicted = {split: len(data.eval_loader(split)) for split in ("val", "test") if len(data.rows[split])}
    batches = {"val": predicted.get("val", 0), "predict": min(predicted.values())}
    check_batch_limits(config["trainer"], {"train": len(data.train_dataloader()), **batches})
    signals.check()

    logger = instantiate(complete_logger(config, run))
    window = logger if isinstance(logger, FailsafeWandbLogger) else None
    exit_code = 1
    try:
        if window is not None:
            window.start(config)
        with run.stage("fit_s"):
            fit(config, run, data, logger, signals)
        with run.stage("test_s"):
            classifier, origin = load_classifier(run.folder / "best.ckpt")
            splits = [split for split in ("val", "test") if len(data.rows[split])]
            predictions = {
                split: predict_split(classifier, origin, data, split, config["trainer"]) for split in splits
            }
            metrics = write_results(run.folder, data, origin, predictions)
            run.update(selected_by=origin.selected_by, best_epoch=origin.epoch, best_score=origin.score)
        signals.check()
        with run.stage("report_s"):
            if window is not None:
                window.log_result(metrics)
                for split in splits:
                    images = data.images_of(predictions[split].ids)
                    window.log_evaluation(split, predictions[split], metrics[split], images)
            draw_figures(run.folder, data, "test", predictions["test"])
        exit_code = 0
    finally:
        if window is not None:
            window.finish(exit_code)
    show_results(metrics, "test")
    if window is not None:
        log.info("W&B: %s", window.view_instructions())
    return origin.score


def describe_job(config: dict[str, Any], run: "Run") -> dict[str, Any]:
    """Say what this job is, for ``run.json``: what it was from its start, where ``resume=PATH`` goes on."""
    job = HydraConfig.get()
    record = run.record
    return {
        "model": record.get("model") or job.runtime.choices.get("model"),
        "dataset": config["data"]["name"],
        "synthetic": config["data"]["name"] == "synthetic",
        "seed": config["seed"],
        "overrides": record.get("overrides")
        or [override for override in job.overrides.task if not override.startswith("resume=")],
        "config_hash": config_hash(config),
        "job_num": job.job.num if job.mode == RunMode.MULTIRUN else None,
        "monitor": config["monitor"],
    }


def load_data(config: dict[str, Any], run: "Run") -> "FERDataModule":
    """Decode or find the faces, split them, and tell what they are."""
    from fer_lightning.data.audit.summary import summarise_data
    from fer_lightning.evaluation.evaluate import write_audit

    data: FERDataModule = instantiate(config["data"], kind="fer_lightning.data.")
    data.setup()
    facts = summarise_data(data)
    run.update(data=facts)
    log.info("%s", facts["summary"])
    write_audit(run.folder, data)
    return data


def complete_logger(config: dict[str, Any], run: "Run") -> dict[str, Any]:
    """Fill in what makes the dashboard of a sweep readable: the group, and tags to filter by."""
    logger = dict(config["logger"] or {})
    if "tags" in logger:
        job = describe_job(config, run)
        logger["tags"] = [*logger["tags"], job["model"], job["dataset"]]
        if job["job_num"] is not None:
            logger["group"] = logger["group"] or run.folder.parent.name
    return logger


def fit(
    config: dict[str, Any], run: "Run", data: "FERDataModule", logger: Any, signals: "StopSignals"
) -> "FERClassifier":
    """Train from scratch, or from ``last.ckpt`` where the run's folder has one; return what was trained."""
    import numpy as np
    import torch
    from lightning.pytorch.callbacks import EarlyStopping

    from fer_lightning.core.hardware import check_compiler, prefers_channels_last
    from fer_lightning.evaluation.metrics import check_monitor
    from fer_lightning.training.callbacks.callbacks import (
        MetricsCSV,
        ModelCheckpoint,
        ProgressBar,
        StopOnNonFiniteLoss,
    )
    from fer_lightning.training.checkpoint import (
        AtomicCheckpointIO,
        CheckpointMetadata,
        build_backbone,
        find_checkpoint,
        init_backbone,
        read_checkpoint,
    )
    from fer_lightning.training.profiler import NoProfiler

    trainer_config = config["trainer"]
    monitor = config["monitor"] if len(data.rows["val"]) else None
    if monitor is None:
        log.info("no validation split: best.ckpt is the last epoch's, selected by nothing")
    else:
        check_monitor(monitor, config["monitor_mode"], len(data.classes))

    backbone = build_backbone(config["model"], channels_last=False)
    channels_last = prefers_channels_last(
        backbone, trainer_config["accelerator"], trainer_config["precision"]
    )
    if channels_last:
        backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained_on = data.faces.hashes[data.rows["train"]]
    if config["init_from"] is not None:
        before = init_backbone(backbone, find_checkpoint(config["init_from"]), data.classes, log.info)
        trained_on = np.concatenate([trained_on, before.trained_on, before.selected_on])
    mean, std = data.pixel_statistics()
    module: FERClassifier = instantiate(
        config["classifier"],
        backbone=backbone,
        classes=data.classes,
        mean=mean,
        std=std,
        optimizer=instantiate(config["optimizer"]),
        scheduler=instantiate(config["scheduler"]["schedule"]),
        scheduler_interval=config["scheduler"]["interval"],
        class_counts=data.class_counts("train"),
    )
    if config["compile"]:
        check_compiler(trainer_config["accelerator"])
        backbone.compile()
    num_parameters = sum(parameter.numel() for parameter in backbone.parameters())
    run.update(num_parameters=num_parameters, channels_last=channels_last)
    log.info(
        "%s, %s parameters, on %s in %s%s",
        type(backbone).__name__,
        f"{num_parameters:,}",
        trainer_config["accelerator"],
        trainer_config["precision"],
        ", channels last" if channels_last else "",
    )

    origin = CheckpointMetadata(
        config=config,
        classes=data.classes,
        fingerprint=data.faces.fingerprint,
        trained_on=np.unique(trained_on),
        selected_on=np.unique(data.faces.hashes[data.rows["val"]]),
        selected_by="last",
        epoch=0,
        score=None,
        precision=trainer_config["precision"],
        channels_last=channels_last,
    )
    record = MetricsCSV(run.folder)
    keep = ModelCheckpoint(
        folder=run.folder,
        origin=origin,
        monitor=monitor,
        mode=config["monitor_mode"],
        signals=signals,
        keep_epochs=config["keep_epochs"],
        every_steps=config["save_every_steps"],
        every_minutes=config["save_every_minutes"],
    )
    callbacks: list[Any] = [record, StopOnNonFiniteLoss(run.folder), keep, ProgressBar(record, keep)]
    if config["early_stopping"] is not None:
        if monitor is None:
            raise FERError(
                "early_stopping: needs a validation split; set data.val_fraction or protocol=official"
            )
        callbacks.append(
            EarlyStopping(monitor, patience=config["early_stopping"], mode=config["monitor_mode"])
        )
    # Lightning warns about an empty list of loaders unless it is told that nothing is validated.
    without_val = {"limit_val_batches": 0} if monitor is None else {}
    trainer = instantiate(
        trainer_config | without_val,
        logger=logger or False,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=str(run.folder),
        profiler=trainer_config.get("profiler") or NoProfiler(),
    )
    last = run.folder / "last.ckpt"
    if last.is_file():
        begun = read_checkpoint(last)[1].epoch + 1  # a damaged one is told in a sentence here
        if begun > trainer_config["max_epochs"]:
            raise FERError(
                f"trainer.max_epochs={trainer_config['max_epochs']}: this run has begun epoch {begun}; "
                "expected at least as many"
            )
        log.info("continuing from %s", last)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=last if last.is_file() else None, weights_only=True)
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        if keep.started or not last.is_file() or isinstance(error, FERError) or is_out_of_memory(error):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise FERError(
            f"{last}: its state does not fit this run ({reason[:200]}); it is another run's or was altered; "
            "its weights may start a new run: init_from=PATH"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # a full disk must not hide why the run ended
            note_times(run, record)
    return module


def note_times(run: "Run", record: "MetricsCSV") -> None:
    """Write down what training took so far, in this process and in former ones."""
    rates = record.images_per_s
    facts = {
        "first_step": run.record.get("first_step") or record.first_step,
        "epoch_seconds": record.epoch_seconds,
        "epoch_end_seconds": record.epoch_end_seconds,
        "images_per_s": round(sum(rates) / len(rates), 1) if rates else None,
    }
    run.update(**{name: value for name, value in facts.items() if value})


def write_config(config: dict[str, Any], run: "Run") -> None:
    """Write what was asked for: the resolved config and the overrides that led to it."""
    from omegaconf import OmegaConf

    from fer_lightning.core.files import write_atomically

    overrides = describe_job(config, run)["overrides"]
    write_atomically(run.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
    write_atomically(run.folder / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(overrides)))


if __name__ == "__main__":
    register_resolvers()
    sys.argv[1:] = expand_resume(sys.argv[1:])
    with gc_paused(), command("train"), recorded_sweep():
        main()
