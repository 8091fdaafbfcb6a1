"""What eval.py does: find the predictors, predict a split, write results and a page for each."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import seed_everything
from numpy.typing import NDArray
from omegaconf import DictConfig

from fer_lightning.cli.evaluation_jobs import Job, prepare
from fer_lightning.cli.steps import (
    describe_process,
    draw_figures,
    explain_results,
    load_data,
    recorded,
    show_final_line,
    show_results,
    write_config,
)
from fer_lightning.config.limits import limits_warning
from fer_lightning.config.resolve import to_plain
from fer_lightning.core import hardware
from fer_lightning.core.errors import FERError
from fer_lightning.core.garbage import resume_gc
from fer_lightning.core.signals import StopSignals
from fer_lightning.core.terminal import log_to, show, start_terminal
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.sampling import (
    MANIFEST,
    select_rows,
    write_manifest,
)
from fer_lightning.evaluation.calibration import Calibration, calibrate
from fer_lightning.evaluation.checkpoint_predictor import CheckpointPredictor
from fer_lightning.evaluation.evaluate import is_trained_on_val, write_results
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.inference.ensemble import EnsemblePredictor
from fer_lightning.inference.stored_predictors import (
    OnnxPredictor,
    with_training_images,
)
from fer_lightning.llm.predictor import LLMPredictor
from fer_lightning.llm.settings import LLMSettings
from fer_lightning.report.comparison_page import write_comparison
from fer_lightning.report.summary import summarise_runs, write_summary_csv
from fer_lightning.report.summary_table import summary_table
from fer_lightning.runs.folder import RunFolder, read_record
from fer_lightning.runs.resume import remove_if_empty

log = logging.getLogger("fer_lightning")


def run_evaluation(composed: DictConfig) -> None:
    """Evaluate the predictors that a composed config names."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        config = to_plain(composed)
        start_terminal()
        resume_gc()  # before anything large is built, which would otherwise stay in memory
        jobs = prepare(config)
    except (FERError, OSError):
        remove_if_empty(folder)
        raise
    # One predictor fills the folder itself; each of several gets a folder, with a comparison above them.
    folders = [folder]
    if len(jobs) > 1:
        folders = [folder / f"{number}_{job.predictor.name}" for number, job in enumerate(jobs)]
    with StopSignals() as signals:
        for job, place in zip(jobs, folders, strict=True):
            if len(jobs) > 1 and is_finished(place, job):
                log.info("%s: finished before", place)
                continue
            run = open_folder(place)
            with log_to(place / "eval.log"):
                with recorded(run, signals, job.config["data"]):
                    evaluate_job(config, job, run, signals, one_of_several=len(jobs) > 1)
                show_final_line(run)
            signals.check()  # one that came during the report
    if len(folders) > 1:
        compare(folders, folder)


def is_ours(record: Mapping[str, Any]) -> bool:
    """Return whether the same command wrote a folder's record."""
    return "predictor" in record and record.get("overrides") == list(HydraConfig.get().overrides.task)


def is_finished(folder: Path, job: Job) -> bool:
    """Return whether the same command has finished this job, with this very predictor, in its folder."""
    record = read_record(folder) or {}
    same = job.predictor.facts().items() <= record.items()
    return same and is_ours(record) and record.get("state") == "finished"


def open_folder(folder: Path) -> RunFolder:
    """Lock a folder that is new, or in which the same command was stopped."""
    run = RunFolder(folder)
    stopped = is_ours(run.record) and run.record.get("state") != "finished"
    if not run.is_new and not stopped:
        run.release()
        raise FERError(f"{folder}: already holds results; choose another hydra.run.dir")
    run.claim()
    return run


def evaluate_job(
    config: dict[str, Any], job: Job, run: RunFolder, signals: StopSignals, *, one_of_several: bool = False
) -> None:
    """Load the data, predict, write and show the results."""
    split, predictor, data = config["split"], job.predictor, job.data
    num_threads = hardware.prepare(config["num_threads"])
    run.start(
        predictor=config["predictor"]["name"],
        dataset=job.config["data"]["name"],
        synthetic=job.config["data"]["name"] == "synthetic",
        seed=job.config["seed"],
        overrides=list(HydraConfig.get().overrides.task),
        **describe_process(num_threads, hardware.choose_device("auto")),
        **predictor.facts(),
    )
    write_config(run.folder, job.config)
    seed_everything(config["seed"], verbose=False)
    with run.stage("data_s"):
        is_named = HydraConfig.get().runtime.choices.get("data") is not None
        load_data(data, run, dealt=split if is_named and split != "all" else None)
        rows = select_rows(job.sample, data.faces, data.split_rows(split), split=split, seed=config["seed"])
        if job.sample is not None:
            write_manifest(run.folder / MANIFEST, data.faces, rows)
    signals.check()
    with run.stage("test_s"):
        metadata, unknown = None, ""
        if isinstance(predictor, LLMSettings):
            predictions = ask(predictor, data, rows, run, signals)
        elif isinstance(predictor, EnsemblePredictor):
            predictions = predictor.predict(data, split, rows, signals.check)
            metadata, unknown = predictor.metadata, predictor.unknown
            run.update(ensemble=predictor.summary)
        else:
            predictor, unknown = with_training_images(predictor, data)
            metadata, predictions = predictor.metadata, predictor.predict(data, split, rows)
        limits = metadata.limits if metadata else []
        limits = predictor.limits if isinstance(predictor, EnsemblePredictor) else limits
        run.update(limited=limits)
        calibration = find_calibration(predictor, data, split, predictions)
        metrics = write_results(
            run.folder,
            data,
            metadata,
            {split: predictions},
            calibration=calibration,
            limited=limits,
            unknown=unknown,
            ensemble=isinstance(predictor, EnsemblePredictor),
        )
    signals.check()
    with run.stage("report_s"):
        if isinstance(predictor, CheckpointPredictor):
            explain_results(run.folder, data, split, predictions, predictor.classifier)
        draw_figures(run.folder, data, split, predictions)
    log.info("%s", predictor)
    show_results(metrics, split, one_of_several=one_of_several)
    if limits:
        log.warning("WARNING: %s: %s", predictor, limits_warning(limits))


def find_calibration(
    predictor: CheckpointPredictor | OnnxPredictor | EnsemblePredictor | LLMSettings,
    data: FERDataModule,
    split: str,
    predictions: Predictions,
) -> Calibration | None:
    """Return a predictor's calibration, made on val if it predicts with other views than its own.

    Args:
        predictor: The predictor.
        data: After ``setup``.
        split: That was predicted.
        predictions: Of it.
    """
    if isinstance(predictor, LLMSettings):
        return None
    if not isinstance(predictor, CheckpointPredictor) or not predictor.other_views:
        return predictor.calibration
    rows = data.split_rows("val")
    known = data.faces.fingerprint == predictor.metadata.fingerprint
    if not len(rows) or not known or is_trained_on_val(predictor.metadata, data):
        return None
    whole_val = split == "val" and len(predictions) == len(rows)
    return calibrate(predictions if whole_val else predictor.predict(data, "val", rows))


def ask(
    model: LLMSettings,
    data: FERDataModule,
    rows: NDArray[np.int64],
    run: RunFolder,
    signals: StopSignals,
) -> Predictions:
    """Ask a language model about some images, and keep the replies however it ends."""
    faces = data.faces
    run.update(prompt=model.question(data.classes))
    predictor = LLMPredictor(
        model,
        images=faces.images[rows],
        ids=faces.ids[rows],
        labels=faces.labels[rows],
        hashes=faces.hashes[rows],
        classes=data.classes,
    )
    try:
        return predictor.predict(check=signals.check)
    finally:
        run.update(**predictor.facts())
        predictor.write(run.folder / "replies.jsonl")


def compare(folders: list[Path], folder: Path) -> None:
    """Write the table and the page over several evaluated checkpoints."""
    rows = summarise_runs(folders)
    write_summary_csv(rows, folder / "summary.csv")
    show(summary_table(rows))
    log.info("comparison: %s", write_comparison(folders, folder / "report.html"))
