"""Evaluate checkpoints on any split of any data set: ``python eval.py --help``."""

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fer_lightning.config import instantiate, named_settings, register_resolvers, to_plain
from fer_lightning.errors import FERError, RunStopped, tell_mistakes

if TYPE_CHECKING:
    from fer_lightning.checkpoint import Origin
    from fer_lightning.classifier import FERClassifier
    from fer_lightning.run import Run
    from fer_lightning.signals import StopSignals

log = logging.getLogger("fer_lightning")


@hydra.main(version_base="1.3", config_path="conf", config_name="eval")
@tell_mistakes
def main(config: DictConfig) -> None:
    """Evaluate one checkpoint, or several, one row each."""
    from fer_lightning.resume import remove_if_empty
    from fer_lightning.run import Run
    from fer_lightning.signals import StopSignals
    from fer_lightning.terminal import log_to, start_terminal

    start_terminal()
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        plain = to_plain(config)
        if plain["split"] not in ("train", "val", "test", "all"):
            raise FERError(f"split={plain['split']}: expected train, val, test or all")
        given = plain["checkpoint"] if isinstance(plain["checkpoint"], list) else [plain["checkpoint"]]
        if not given:
            raise FERError("checkpoint=[]: expected at least one checkpoint or run folder")
        jobs = [prepare(plain, path) for path in given]
    except FERError:
        remove_if_empty(folder)
        raise

    # One checkpoint fills the folder itself; several get a folder each, and a comparison above them.
    folders = [folder]
    if len(jobs) > 1:
        folders = [folder / f"{number}_{job.checkpoint.parent.name}" for number, job in enumerate(jobs)]
    with StopSignals() as signals:
        for job, place in zip(jobs, folders, strict=True):
            run = Run(place)
            if not run.is_new:
                run.release()
                raise FERError(f"{place}: already holds results; choose another hydra.run.dir")
            with log_to(place / "eval.log"):
                evaluate(plain, job, run, signals)
    if len(folders) > 1:
        compare(folders, folder)


class Job(NamedTuple):
    """A checkpoint, the classifier in it, where that comes from, and the data it meets."""

    checkpoint: Path
    classifier: "FERClassifier"
    origin: "Origin"
    data_config: dict[str, Any]


def prepare(config: dict[str, Any], path: str) -> Job:
    """Load a checkpoint and locate its data, before anything is written."""
    from fer_lightning.checkpoint import find_checkpoint, load_classifier

    checkpoint = find_checkpoint(path)
    classifier, origin = load_classifier(checkpoint)
    return Job(checkpoint, classifier, origin, choose_data(config, origin))


def evaluate(config: dict[str, Any], job: Job, run: "Run", signals: "StopSignals") -> None:
    """Evaluate one checkpoint, and record how that ended."""
    from fer_lightning.report.page import write_page

    try:
        measure(config, job, run, signals)
        run.end("finished")
    except RunStopped as stop:
        run.end("interrupted", f"stopped by signal {stop.signal_number}")
        raise
    except Exception as error:
        run.end("failed", str(error) if isinstance(error, FERError) else f"{type(error).__name__}: {error}")
        raise
    finally:
        with contextlib.suppress(OSError):  # a full disk must not hide why it failed
            log.info("report: %s", write_page(run.folder))


def measure(config: dict[str, Any], job: Job, run: "Run", signals: "StopSignals") -> None:
    """Predict the split, and write and show what came of it."""
    from lightning.pytorch import seed_everything

    from fer_lightning import machine
    from fer_lightning.data.summary import summarise
    from fer_lightning.evaluation import draw_figures, predict_split, show_results, write_results

    split, origin = config["split"], job.origin
    num_threads = machine.prepare(config["num_threads"])
    trainer = origin.config["trainer"]
    device = machine.choose_device("auto")
    if device != trainer["accelerator"]:
        log.info("trained on %s, evaluated on %s: the last digits may differ", trainer["accelerator"], device)
    run.start(
        model=origin.config["model"]["_target_"].rpartition(".")[2].lower(),
        checkpoint=str(job.checkpoint),
        dataset=job.data_config["name"],
        synthetic=job.data_config["name"] == "synthetic",
        seed=origin.config["seed"],
        overrides=list(HydraConfig.get().overrides.task),
        machine=machine.describe_machine(device),
        git=machine.describe_git(),
        versions=machine.describe_versions(),
        precision=origin.precision,
        num_threads=num_threads,
        num_parameters=sum(parameter.numel() for parameter in job.classifier.backbone.parameters()),
        selected_by=origin.selected_by,
        best_epoch=origin.epoch,
        best_score=origin.score,
    )
    write_config(origin.config | {"data": job.data_config}, run)
    seed_everything(config["seed"], verbose=False)
    with run.stage("data_s"):
        data = instantiate(job.data_config)
        data.setup()
        facts = summarise(data)
        run.update(data=facts)
    log.info("%s", facts["summary"])
    if facts["fingerprint"] != origin.fingerprint:
        log.info("other data than the checkpoint was trained on (fingerprint %s)", origin.fingerprint[:12])
    signals.check()
    with run.stage("test_s"):
        predictions = predict_split(job.classifier, origin, data, split, trainer | {"accelerator": device})
        metrics = write_results(run.folder, data, origin, {split: predictions})
    signals.check()
    with run.stage("report_s"):
        draw_figures(run.folder, data, split, predictions)
    log.info("%s", job.checkpoint)
    show_results(metrics, split)


def choose_data(config: dict[str, Any], origin: "Origin") -> dict[str, Any]:
    """Take the checkpoint's data node or the one named, with what the command overrides.

    The class list is the checkpoint's: labels of another data set are mapped to it by name.
    """
    from fer_lightning.data.locate import locate

    given = {key: value for key, value in config["data"].items() if value is not None}
    if HydraConfig.get().runtime.choices.get("data") is not None:
        node = given
    else:
        node = origin.config["data"] | given
    node |= {key: origin.config["data"][key] for key in ("classes", "num_classes", "image_size")}
    named = named_settings("data", HydraConfig.get().overrides.task)
    return locate(node, say=log.warning, given=named)


def write_config(config: dict[str, Any], run: "Run") -> None:
    """Write the checkpoint's config as it was used here."""
    from omegaconf import OmegaConf

    from fer_lightning.run import write_atomically

    write_atomically(run.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))


def compare(folders: list[Path], folder: Path) -> None:
    """Write the table and the page over several evaluated checkpoints."""
    from fer_lightning.report.page import write_comparison
    from fer_lightning.report.tables import summarise_runs, summary_table, write_summary_csv
    from fer_lightning.terminal import show

    rows = summarise_runs(folders)
    write_summary_csv(rows, folder / "summary.csv")
    show(summary_table(rows))
    log.info("comparison: %s", write_comparison(folders, folder / "report.html"))


if __name__ == "__main__":
    register_resolvers()
    main()
