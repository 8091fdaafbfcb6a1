"""What train.py does with one job: prepare it, train, test the best checkpoint, report."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch import Trainer, seed_everything
from omegaconf import DictConfig

from fer_lightning.cli.steps import (
    SYNTHETIC_WARNING,
    describe_process,
    draw_figures,
    explain_results,
    load_data,
    recorded,
    show_final_line,
    show_results,
    write_config,
    write_report,
)
from fer_lightning.config.checks import check_batch_limits, check_stored
from fer_lightning.config.compare import config_hash
from fer_lightning.config.limits import limits_of, limits_warning
from fer_lightning.config.resolve import to_plain
from fer_lightning.config.targets import ANY_TARGET, named_targets
from fer_lightning.config.types import TrainConfig
from fer_lightning.core import hardware
from fer_lightning.core.errors import FERError, as_user_error
from fer_lightning.core.garbage import resume_gc
from fer_lightning.core.parallel import available_cores
from fer_lightning.core.processes import announce, check_processes, leave, started_processes
from fer_lightning.core.program import command_line, pasteable
from fer_lightning.core.progress import show_progress
from fer_lightning.core.signals import (
    RunStopped,
    StopSignals,
    check_stopped,
    install_exit_handlers,
    terminate_with_parent,
)
from fer_lightning.core.stdio import make_stdio_robust
from fer_lightning.core.terminal import log_to, start_terminal
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.locate import locate
from fer_lightning.data.splits import check_divisible, check_not_empty
from fer_lightning.evaluation.calibration import calibrate
from fer_lightning.evaluation.evaluate import predict_splits, write_results
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.runs.folder import RunFolder
from fer_lightning.runs.placement import place_of, threads_of_job
from fer_lightning.runs.resume import follows_stored_config, open_run, remove_if_empty
from fer_lightning.training.build import (
    build_callbacks,
    build_classifier,
    build_datamodule,
    build_loggers,
    build_trainer,
)
from fer_lightning.training.callbacks import ModelCheckpoint
from fer_lightning.training.checkpoint import load_classifier, store_calibration
from fer_lightning.training.checkpoint_metadata import CheckpointMetadata, is_channels_last
from fer_lightning.training.classifier import FERClassifier
from fer_lightning.training.continuation import check_best, images_per_step
from fer_lightning.training.fit import callback_of, fit, training_times
from fer_lightning.training.loggers.naming import run_name
from fer_lightning.training.loggers.run_loggers import RunLoggers
from fer_lightning.training.loggers.wandb_settings import fill_settings

log = logging.getLogger("fer_lightning")


class Job(NamedTuple):
    """A job that is ready to train.

    Attributes:
        run: The locked folder.
        config: The config to follow: the command's, or the resumed run's.
        module: The classifier with its initial weights.
        data: The data module, before ``setup``.
        trainer: The Trainer with its callbacks and logger.
        loggers: Empty for ``logger=none``.
        signals: Records an ending signal.
    """

    run: RunFolder
    config: TrainConfig
    module: FERClassifier
    data: FERDataModule
    trainer: Trainer
    loggers: RunLoggers
    signals: StopSignals


def run_job(composed: DictConfig) -> float | None:
    """Run one job from its composed config; return the best score of ``monitor`` to a sweeper."""
    check_stopped()
    hydra: Any = HydraConfig.get()
    folder, config = Path(hydra.runtime.output_dir), to_plain(composed)
    processes = started_processes()
    try:
        job = prepare(config, hydra)
    except (FERError, OSError):
        remove_if_empty(folder)
        raise
    except (RuntimeError, MemoryError) as error:  # of a network that does not fit into memory
        remove_if_empty(folder)
        reported = as_user_error(error, folder, config["data"])
        raise reported from (None if reported is error else error)
    if isinstance(job, RunFolder):
        log.info("%s: this run is finished, there is nothing to do", job.folder)
        job.release()
        return job.record.get("best_score")
    if hydra.mode == RunMode.MULTIRUN:
        log.info("job %s: %s", hydra.job.num, " ".join(hydra.overrides.task))
    with job.signals, log_to(job.run.folder / "train.log"):
        try:
            with recorded(job.run, job.signals, job.config["data"]):
                score = train(job)
        except RunStopped:
            if processes is not None:
                again = pasteable("resume", job.run.folder)
                log.warning("stopped; to continue, start it with %s again, and %s", processes.launcher, again)
            elif hydra.mode != RunMode.MULTIRUN:  # else the sweep says it
                again = f"{command_line('train')} {pasteable('resume', job.run.folder)}"
                log.warning("stopped; to continue: %s", again)
            raise
        except Exception as error:
            if hydra.mode == RunMode.MULTIRUN:  # Hydra reports only the first failure, at the very end
                log.error("job %s failed: %s", hydra.job.num, job.run.record.get("reason") or error)
            raise
        if job.run.record["limited"]:
            log.warning("WARNING: %s", limits_warning(job.run.record["limited"]))
        if job.config["data"]["name"] == "synthetic":
            log.warning(SYNTHETIC_WARNING)
        name = f"job {hydra.job.num}: " if hydra.mode == RunMode.MULTIRUN else ""
        show_final_line(job.run, name)
        job.signals.check()  # one that came during the report: this run is finished, its sweep is not
    return score


def prepare(composed: dict[str, Any], hydra: DictConfig) -> Job | RunFolder:
    """Build every part of a job, locate its data and lock its folder; a finished run's folder is returned.

    Raises:
        FERError: If a setting is wrong, or there is no such device, data or folder.
    """
    start_process(hydra)
    plain = hardware.resolve_hardware(composed)
    plain["trainer"].pop("num_nodes", None)  # checked, and of this command alone
    overrides = list(hydra.overrides.task)
    module, trust = None, ANY_TARGET
    if follows_stored_config(plain["resume"]):
        trust = (*plain["trust"], *named_targets(plain))
    else:
        check_processes(plain["trainer"])
        module = build_network(cast(TrainConfig, plain), trust)
        plain["data"] = locate(plain["data"], log=log.warning)
    given = any(
        override.split("=")[0] in ("hydra.run.dir", "hydra.sweep.dir") for override in hydra.overrides.hydra
    )
    run, plain = open_run(plain, folder_given=given, overrides=overrides)
    if run.record.get("state") == "finished":
        return run
    try:
        plain["data"] = locate(plain["data"], log=log.warning)
        config = cast(TrainConfig, plain)
        if module is not None:
            return build_job(run, config, module, trust)
        check_processes(plain["trainer"])
        return build_stored_job(run, config, trust)
    except FERError:
        run.discard()
        raise


def build_stored_job(run: RunFolder, config: TrainConfig, trust: Collection[str]) -> Job:
    """Build a job from the config of its folder, which errors name."""
    stored = run.folder / "config.yaml"
    check_stored(config, stored, trains=True)
    try:
        return build_job(run, config, build_network(config, trust), trust)
    except FERError as error:
        raise FERError(f"{stored}: {error}") from error


def build_network(config: TrainConfig, trust: Collection[str]) -> FERClassifier:
    """Build the module with the run's initial weights, on the run's threads and from its seed."""
    hydra: Any = HydraConfig.get()
    processes, cores = started_processes(), available_cores()
    threads = threads_of_job(hydra, cores) if processes is None else processes.threads(cores)
    hardware.prepare(config["num_threads"], default=threads)
    seed_everything(config["seed"], verbose=False)
    return build_classifier(config, trust=trust)


def build_job(run: RunFolder, config: TrainConfig, module: FERClassifier, trust: Collection[str]) -> Job:
    """Build the other parts of a job, which know the run's folder."""
    data = build_datamodule(config["data"], trust=trust)
    data.read_teacher()  # a missing or unsuitable file is refused before the data are decoded
    loggers = build_loggers(complete_loggers(config, run), trust=trust)
    callbacks = build_callbacks(config, trust=trust)
    trainer = build_trainer(config, run.folder, callbacks, loggers, trust=trust)
    module.config = config
    signals = StopSignals()
    callback_of(trainer, ModelCheckpoint).signals = signals
    return Job(run, config, module, data, trainer, RunLoggers(loggers), signals)


def start_process(hydra: DictConfig) -> None:
    """Set this process up: its output, and its signals and GPU if it is one of several jobs side by side."""
    start_terminal()
    place = place_of(hydra)
    if place != "here":  # a process of its own, which has not run the command's first lines
        install_exit_handlers()
        make_stdio_robust()
        if place in ("joblib", "local"):  # Slurm and Ray give each job its own
            hardware.take_gpu(hydra.job.num)
        terminate_with_parent()
    resume_gc()  # before anything large is built, which would otherwise stay in memory


def train(job: Job) -> float | None:
    """Fit, test the best checkpoint, write results and figures; return the best score of ``monitor``."""
    run, config, data, loggers = job.run, job.config, job.data, job.loggers
    description = describe_job(config, run)
    write_config(run.folder, config, description["overrides"])
    device, devices = config["trainer"]["accelerator"], config["trainer"]["devices"]
    run.start(
        **description,
        **describe_process(torch.get_num_threads(), device, hardware.first_device(devices)),
        precision=str(job.trainer.precision),
        num_processes=job.trainer.world_size,
    )
    with run.stage("data_s"):
        load_data(data, run)
    limits = limits_of(
        config["trainer"],
        count_batches(config, data, job.trainer.world_size),
        option=run.record["choices"].get("trainer"),
    )
    run.update(limited=limits)
    if limits:
        log.warning("WARNING: %s", limits_warning(limits))
    job.signals.check()
    exit_code = 1
    try:
        run.update(**loggers.identity())
        loggers.start(config, run.record | {"num_parameters": count_parameters(job.module.backbone)})
        with run.stage("fit_s"):
            train_network(job)
        with run.stage("test_s"):
            show_progress("testing the best checkpoint")
            tested = test_best(job, limits)
            metadata, predictions, metrics = tested.metadata, tested.predictions, tested.metrics
            run.update(selected_by=metadata.selected_by, best_epoch=metadata.epoch, best_score=metadata.score)
        job.signals.check()
        with run.stage("report_s"):
            loggers.log_result(metrics, run.record, job.trainer.global_step)
            for split, predicted in predictions.items():
                loggers.log_evaluation(split, predicted, metrics[split], data.images_of(predicted.ids))
            explain_results(run.folder, data, "test", predictions["test"], tested.classifier)
            draw_figures(run.folder, data, "test", predictions["test"])
            if loggers.log_page:
                run.update(state="finished")  # the page that becomes an artifact says so
                write_report(run.folder)
            loggers.log_files(run.folder, run.record, job.trainer.global_step)
        exit_code = 0
    finally:
        loggers.finish(exit_code)
    in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    show_results(metrics, "test", one_of_several=in_sweep)
    for text in loggers.view_instructions():
        if not in_sweep or "\n" not in text:  # a sweep names the commands for offline runs once, at its end
            log.info("%s", text)
    return metadata.score


class Tested(NamedTuple):
    """The best checkpoint of a run, and what its test gave.

    Attributes:
        classifier: From ``best.ckpt``.
        metadata: From there, too.
        predictions: By split.
        metrics: The content of ``metrics.json``.
    """

    classifier: FERClassifier
    metadata: CheckpointMetadata
    predictions: dict[str, Predictions]
    metrics: dict[str, Any]


def test_best(job: Job, limits: Sequence[str]) -> Tested:
    """Predict val and test with ``best.ckpt``, calibrate it on val, write the results."""
    config, data, best = job.config, job.data, job.run.folder / "best.ckpt"
    # Its config was written by this run, so it may name what this run's config names.
    classifier, metadata = load_classifier(best, trust=named_targets([config["model"], config["classifier"]]))
    check_best(metadata, config, data, best)
    splits = [split for split in ("val", "test") if len(data.rows[split])]
    predictions = predict_splits(classifier, metadata, data, splits, config["trainer"])
    calibration = calibrate(predictions["val"]) if "val" in predictions else None
    metrics = write_results(
        job.run.folder, data, metadata, predictions, calibration=calibration, limited=limits
    )
    if calibration is not None:
        store_calibration(best, calibration.temperature, calibration.threshold)
    return Tested(classifier, metadata, predictions, metrics)


def train_network(job: Job) -> None:
    """Fit, and record the network's size and what training took, however it ends."""
    run, backbone = job.run, job.module.backbone
    num_parameters = count_parameters(backbone)
    channels_last = is_channels_last(backbone)
    run.update(num_parameters=num_parameters, channels_last=channels_last)
    log.info(
        "%s, %s parameters, on %s in %s%s",
        type(backbone).__name__,
        f"{num_parameters:,}",
        job.config["trainer"]["accelerator"],
        job.trainer.precision,
        ", channels last" if channels_last else "",
    )
    fingerprint = job.data.faces.fingerprint
    announce({"config": job.config, "folder": str(run.folder.absolute()), "fingerprint": fingerprint})
    together = {"images_per_step": images_per_step(job.trainer, job.data)}
    if "images_per_step" not in run.record:
        run.update(**together)
    try:
        fit(job.trainer, job.module, job.data, run.folder)
        run.update(**together)
    finally:
        leave()
        facts = training_times(job.trainer)
        run.try_update(**facts | {"first_step": run.record.get("first_step") or facts.get("first_step")})


def count_parameters(network: torch.nn.Module) -> int:
    """Count the trained numbers of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_batches(config: TrainConfig, data: FERDataModule, num_processes: int) -> dict[str, int]:
    """Count the batches of each split; refuse a limit that leaves none, now that their number is known."""
    check_not_empty(data.rows, ["train", "test"], data.protocol)
    check_divisible(data.rows, num_processes)
    counts = {split: len(data.eval_loader(split)) for split in ("val", "test") if len(data.rows[split])}
    numbers = {"train": len(data.train_dataloader()), "val": counts.get("val", 0)}
    evaluated = min(counts.values())
    check_batch_limits(config["trainer"], numbers | {"predict": evaluated, "test": evaluated})
    return numbers | {"test": counts["test"]}


def describe_job(config: TrainConfig, run: RunFolder) -> dict[str, Any]:
    """Describe a job for ``run.json``; a resumed run keeps the description of its start."""
    hydra = HydraConfig.get()
    record = run.record
    choices = {group: option for group, option in hydra.runtime.choices.items() if "hydra" not in group}
    overrides = [override for override in hydra.overrides.task if not override.startswith("resume=")]
    return {
        "model": record.get("model") or hydra.runtime.choices.get("model"),
        "dataset": config["data"]["name"],
        "synthetic": config["data"]["name"] == "synthetic",
        "seed": config["seed"],
        "overrides": record.get("overrides") or overrides,
        "config_hash": config_hash(config),
        "choices": record.get("choices") or choices,
        "job_num": hydra.job.num if hydra.mode == RunMode.MULTIRUN else None,
        "monitor": config["monitor"],
    }


def complete_loggers(config: TrainConfig, run: RunFolder) -> dict[str, Any]:
    """Add what makes a W&B dashboard readable, name, group and tags, and the W&B run to continue."""
    hydra, description = HydraConfig.get(), describe_job(config, run)
    in_sweep = hydra.mode == RunMode.MULTIRUN
    model, dataset, choices = description["model"], description["dataset"], description["choices"]
    before = run.record.get("wandb") or {}
    completed = dict(config["logger"])
    for key, node in completed.items():
        if not isinstance(node, dict) or "tags" not in node:
            continue
        name = before.get("name") or run_name(
            model or config["model"]["_target_"].rpartition(".")[2],
            config["seed"],
            description["overrides"],
            experiment=choices.get("experiment"),
            dataset=dataset,
        )
        limits = limits_of(config["trainer"], option=choices.get("trainer"))
        tags = [tag for tag in (model, dataset, "limited" if limits else None) if tag]
        filled = fill_settings(node, name=name, group=run.folder.parent.name if in_sweep else None, tags=tags)
        completed[key] = filled | ({"run_id": before["id"]} if "id" in before else {})
    return completed
