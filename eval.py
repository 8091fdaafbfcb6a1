"""Evaluate checkpoints, or a vision language model, on any split of any data: ``python eval.py --help``."""

import fer_lightning.core.requirements  # noqa: F401 - refuses what is too old, before it is imported
from fer_lightning.core.signals import RunStopped, install_exit_handlers

if __name__ == "__main__":
    install_exit_handlers()  # from here on: imports take a second

# isort: split
import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fer_lightning.cli.command import command, gc_paused, resume_gc
from fer_lightning.config.checks import check_data, check_stored, check_values
from fer_lightning.config.resolve import instantiate, register_resolvers, to_plain
from fer_lightning.core.errors import FERError, as_user_error, report_user_errors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fer_lightning.core.signals import StopSignals
    from fer_lightning.data.datamodule import FERDataModule
    from fer_lightning.data.sampling import Sample
    from fer_lightning.evaluation.predictions import Predictions
    from fer_lightning.llm.settings import LLMSettings
    from fer_lightning.runs.folder import Run
    from fer_lightning.training.checkpoint import CheckpointMetadata
    from fer_lightning.training.classifier import FERClassifier

log = logging.getLogger("fer_lightning")


@hydra.main(version_base="1.3", config_path="conf", config_name="eval")
@report_user_errors
def main(config: DictConfig) -> None:
    """Evaluate one predictor, or several checkpoints, one row each."""
    from fer_lightning.runs.resume import remove_if_empty

    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        plain = resolve(config)
        from fer_lightning.core.terminal import log_to, start_terminal  # imports torch, which takes seconds

        start_terminal()
        jobs = prepare(plain)
    except (FERError, OSError):
        remove_if_empty(folder)
        raise
    from fer_lightning.core.signals import StopSignals

    # One predictor fills the folder itself; several get a folder each, and a comparison above them.
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
                evaluate(plain, job, run, signals)
            signals.check()  # one that came while the report was made
    if len(folders) > 1:
        compare(folders, folder)


def resolve(config: DictConfig) -> dict[str, Any]:
    """Turn the command's config into plain values, and refuse those that are no such thing."""
    if OmegaConf.is_missing(config.predictor, "model"):
        raise FERError("predictor.model: missing; name it as the server does, such as predictor.model=gpt-4o")
    plain = to_plain(config)
    named = {key: value for key, value in plain["data"].items() if value is not None}
    check_values(plain | {"data": named})
    if plain["split"] not in ("train", "val", "test", "all"):
        raise FERError(f"split={plain['split']}: expected train, val, test or all")
    return plain


class Job(NamedTuple):
    """A predictor and the data it meets: all that is known before anything is written.

    Attributes:
        predictor: Who predicts.
        config: What ``config.yaml`` will hold, the located data in it.
        sample: Which images of the split.
    """

    predictor: "Network | Asked"
    config: dict[str, Any]
    sample: "Sample"


def prepare(config: dict[str, Any]) -> list[Job]:
    """Find whom the command asks for, load its checkpoints and locate its data."""
    from fer_lightning.data.sampling import PAPER_PER_CLASS, parse_sample
    from fer_lightning.llm.settings import LLMSettings
    from fer_lightning.training.checkpoint import find_checkpoint, load_classifier

    if config["predictor"]["name"] == "llm":
        if config["checkpoint"] is not None:
            raise FERError(
                f"checkpoint={config['checkpoint']}: predictor=llm asks a server; leave one of the two out"
            )
        model = LLMSettings.from_config(config["predictor"])
        sample = parse_sample(config["sample"], auto=PAPER_PER_CLASS)
        return [Job(Asked(model), config | {"data": choose_data(config, None)}, sample)]
    given = config["checkpoint"] if isinstance(config["checkpoint"], list) else [config["checkpoint"]]
    if not given or None in given:
        raise FERError(
            "checkpoint: missing; name a checkpoint or a run folder (checkpoint=PATH), or ask a language "
            "model (predictor=llm)"
        )
    sample = parse_sample(config["sample"], auto=None)
    jobs = []
    for checkpoint in map(find_checkpoint, given):
        network = Network(checkpoint, *load_classifier(checkpoint))
        remembered = network.origin.config
        check_stored(remembered, checkpoint, trains=False)
        jobs.append(Job(network, remembered | {"data": choose_data(config, remembered["data"])}, sample))
    return jobs


def is_ours(record: Mapping[str, Any]) -> bool:
    """Tell whether the same command wrote a folder's record."""
    return "predictor" in record and record.get("overrides") == list(HydraConfig.get().overrides.task)


def is_finished(folder: Path, job: Job) -> bool:
    """Tell whether the same command has finished this job, with this very predictor, in its folder."""
    from fer_lightning.runs.folder import read_record

    record = read_record(folder) or {}
    same = job.predictor.facts().items() <= record.items()
    return same and is_ours(record) and record.get("state") == "finished"


def open_folder(folder: Path) -> "Run":
    """Lock a folder that is new, or in which the same command was stopped."""
    from fer_lightning.runs.folder import Run

    run = Run(folder)
    stopped = is_ours(run.record) and run.record.get("state") != "finished"
    if not run.is_new and not stopped:
        run.release()
        raise FERError(f"{folder}: already holds results; choose another hydra.run.dir")
    return run


def evaluate(config: dict[str, Any], job: Job, run: "Run", signals: "StopSignals") -> None:
    """Evaluate one predictor, and record how that ended."""
    from fer_lightning.report.page import write_page

    try:
        measure(config, job, run, signals)
        run.end("finished")
    except RunStopped as stop:
        run.end("interrupted", f"stopped by signal {stop.signal_number}")
        raise
    except Exception as error:
        if signals.received is not None:
            run.end("interrupted", f"stopped by signal {signals.received}")
            raise RunStopped(signals.received) from error
        told = as_user_error(error, run.folder, job.config["data"])
        run.end("failed", str(told) if isinstance(told, FERError) else f"{type(error).__name__}: {error}")
        raise told from (None if told is error else error)
    finally:
        with contextlib.suppress(OSError):  # a full disk must not hide why it failed
            log.info("report: %s", write_page(run.folder))


def measure(config: dict[str, Any], job: Job, run: "Run", signals: "StopSignals") -> None:
    """Load the data, predict, write and show what came of it."""
    from lightning.pytorch import seed_everything

    from fer_lightning.core import hardware
    from fer_lightning.data.audit.summary import summarise_data
    from fer_lightning.data.sampling import MANIFEST, select_rows, write_manifest
    from fer_lightning.evaluation.evaluate import draw_figures, show_results, write_audit, write_results

    split, predictor = config["split"], job.predictor
    num_threads = hardware.prepare(config["num_threads"])
    run.start(
        predictor=config["predictor"]["name"],
        dataset=job.config["data"]["name"],
        synthetic=job.config["data"]["name"] == "synthetic",
        seed=job.config["seed"],
        overrides=list(HydraConfig.get().overrides.task),
        machine=hardware.describe_machine(hardware.choose_device("auto")),
        git=hardware.describe_git(),
        versions=hardware.describe_versions(),
        num_threads=num_threads,
        **predictor.facts(),
    )
    write_config(job.config, run)
    seed_everything(config["seed"], verbose=False)
    resume_gc()  # before the data, which would stay in memory as what is imported does
    with run.stage("data_s"):
        data = instantiate(job.config["data"], kind="fer_lightning.data.")
        data.setup()
        run.update(data=summarise_data(data))
        rows = select_rows(job.sample, data.faces, data.split_rows(split), split=split, seed=config["seed"])
        if job.sample is not None:
            write_manifest(run.folder / MANIFEST, data.faces, rows)
    log.info("%s", run.record["data"]["summary"])
    write_audit(run.folder, data)
    signals.check()
    with run.stage("test_s"):
        predictions = predictor.predict(data, split, rows, run, signals)
        metrics = write_results(run.folder, data, predictor.origin, {split: predictions})
    signals.check()
    with run.stage("report_s"):
        draw_figures(run.folder, data, split, predictions)
    log.info("%s", predictor)
    show_results(metrics, split)


class Network(NamedTuple):
    """A classifier that this project trained."""

    path: Path
    classifier: "FERClassifier"
    origin: "CheckpointMetadata"

    @property
    def name(self) -> str:
        """Its run's folder."""
        return self.path.parent.name

    def __str__(self) -> str:
        return str(self.path)

    @property
    def arithmetic(self) -> tuple[str, str]:
        """The device and precision to predict with here.

        The checkpoint's precision, unless it is a mixed one that was chosen for another kind of device:
        this one may compute it slowly, or not at all.
        """
        from fer_lightning.core import hardware

        trained_on = self.origin.config["trainer"]["accelerator"]
        device = hardware.choose_device("auto")
        if device == trained_on or self.origin.precision == "32-true":
            return device, self.origin.precision
        return device, hardware.choose_precision("auto", device)

    def facts(self) -> dict[str, Any]:
        """Describe it for ``run.json``."""
        return {
            "model": self.origin.config["model"]["_target_"].rpartition(".")[2].lower(),
            "checkpoint": str(self.path),
            "precision": self.arithmetic[1],
            "num_parameters": sum(parameter.numel() for parameter in self.classifier.backbone.parameters()),
            "selected_by": self.origin.selected_by,
            "best_epoch": self.origin.epoch,
            "best_score": self.origin.score,
        }

    def predict(
        self,
        data: "FERDataModule",
        split: str,
        rows: "NDArray[np.int64]",
        run: "Run",  # noqa: ARG002 - as Asked.predict
        signals: "StopSignals",  # noqa: ARG002 - as Asked.predict
    ) -> "Predictions":
        """Predict the whole split, since the last digits depend on the batch, and keep the rows asked for."""
        import numpy as np

        from fer_lightning.evaluation.evaluate import predict_split
        from fer_lightning.training.checkpoint import SYNTHETIC_WARNING

        if self.origin.is_synthetic:
            log.warning("%s: %s", self.path, SYNTHETIC_WARNING)
        trainer = self.origin.config["trainer"]
        device, precision = self.arithmetic
        if device != trainer["accelerator"]:
            log.info(
                "trained on %s in %s, evaluated on %s in %s: the last digits may differ",
                *(trainer["accelerator"], self.origin.precision, device, precision),
            )
        if data.faces.fingerprint != self.origin.fingerprint:
            log.info(
                "other data than the checkpoint was trained on (fingerprint %s)", self.origin.fingerprint[:12]
            )
        trainer = trainer | {"accelerator": device, "devices": 1, "precision": precision}
        if len(rows) < len(data.split_rows(split)):
            trainer["limit_predict_batches"] = 1.0  # a smoke run's limit would cut the sample
        everything = predict_split(self.classifier, self.origin, data, split, trainer)
        return everything.subset(np.isin(everything.ids, data.faces.ids[rows]))


class Asked(NamedTuple):
    """A vision language model behind a server."""

    model: "LLMSettings"
    origin: None = None

    @property
    def name(self) -> str:
        """Its name, as the server knows it."""
        return self.model.model

    def __str__(self) -> str:
        return f"{self.model.model} at {self.model.base_url}"

    def facts(self) -> dict[str, Any]:
        """Describe it for ``run.json``."""
        return {
            "model": self.model.model,
            "base_url": self.model.base_url,
            "api_key_env": self.model.api_key_env,
        }

    def predict(
        self,
        data: "FERDataModule",
        split: str,  # noqa: ARG002 - as Network.predict
        rows: "NDArray[np.int64]",
        run: "Run",
        signals: "StopSignals",
    ) -> "Predictions":
        """Ask about every image, and keep the replies, however the asking ends."""
        from fer_lightning.llm.predictor import LLMPredictor

        faces = data.faces
        run.update(prompt=self.model.question(data.classes))
        predictor = LLMPredictor(
            self.model,
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


def choose_data(config: dict[str, Any], remembered: dict[str, Any] | None) -> dict[str, Any]:
    """Take the data node that is named, or the one a checkpoint remembers, with what the command overrides.

    The class list is the checkpoint's: labels of another data set are mapped to it by name.
    """
    from fer_lightning.data.locate import locate

    node = {key: value for key, value in config["data"].items() if value is not None}
    if HydraConfig.get().runtime.choices.get("data") is None:
        if remembered is None:
            raise FERError(
                "data=null: a language model remembers no data set; name one, such as data=fer2013"
            )
        node = remembered | node
    if remembered is not None:
        node |= {key: remembered[key] for key in ("classes", "num_classes", "image_size")}
    check_data(node)
    return locate(node, log=log.warning)


def write_config(config: dict[str, Any], run: "Run") -> None:
    """Write the config as it was used here."""
    from fer_lightning.core.files import write_atomically

    write_atomically(run.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))


def compare(folders: list[Path], folder: Path) -> None:
    """Write the table and the page over several evaluated checkpoints."""
    from fer_lightning.core.terminal import show
    from fer_lightning.report.page import write_comparison
    from fer_lightning.report.tables import summarise_runs, summary_table, write_summary_csv

    rows = summarise_runs(folders)
    write_summary_csv(rows, folder / "summary.csv")
    show(summary_table(rows))
    log.info("comparison: %s", write_comparison(folders, folder / "report.html"))


if __name__ == "__main__":
    register_resolvers()
    with gc_paused(), command("eval"):
        main()
