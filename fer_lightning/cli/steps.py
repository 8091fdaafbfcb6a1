"""Steps that training and evaluation have in common."""

import contextlib
import logging
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fer_lightning.core import hardware
from fer_lightning.core.errors import FERError, as_user_error, describe_error
from fer_lightning.core.files import read_json_object, write_atomically, write_json
from fer_lightning.core.progress import show_progress
from fer_lightning.core.signals import RunStopped, StopSignals
from fer_lightning.core.terminal import console, show, write_to_log
from fer_lightning.data.audit.facts import load_audit
from fer_lightning.data.audit.summary import summarise_data
from fer_lightning.data.cache_files import audit_folder
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.dealing import is_dealt
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.inference.explain_split import explain_split, map_embeddings
from fer_lightning.report.drawing import draw_all, draw_audit
from fer_lightning.report.run_page import write_page
from fer_lightning.report.tables import (
    accuracy_sentence,
    confusion_table,
    headline_table,
    per_class_table,
)
from fer_lightning.runs.folder import RunFolder
from fer_lightning.training.classifier import FERClassifier

log = logging.getLogger("fer_lightning")

PAGE = "report.html"
SYNTHETIC_WARNING = (
    "WARNING: trained and tested on synthetic faces; the results do not transfer to photographs"
)


@contextmanager
def recorded(run: RunFolder, signals: StopSignals, data: Mapping[str, Any]) -> Iterator[None]:
    """Record in ``run.json`` how a run ends, and write its page unless a signal stopped it.

    Args:
        run: The locked folder.
        signals: Records an ending signal. After one, whatever fails is taken for its consequence, and no
            figure or page is drawn: schedulers grant only seconds.
        data: The run's data node, for messages.

    Raises:
        FERError: In place of an error that the user or the machine caused.
    """
    try:
        yield
        run.end("finished")
    except RunStopped as stop:
        run.end("interrupted", f"stopped by signal {stop.signal_number}")
        raise
    except Exception as error:
        if signals.received is not None:
            run.end("interrupted", f"stopped by signal {signals.received}")
            raise RunStopped(signals.received) from error
        reported: Exception = error
        if not isinstance(error, FERError):
            log_file = write_to_log("".join(traceback.format_exception(error)))
            written = log_file and run.folder / log_file.name
            reported = as_user_error(error, run.folder, data, log_file=written)
        reason = str(reported) if isinstance(reported, FERError) else f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):  # a full disk must not hide why the run failed
            run.end("failed", reason)
        if write_report(run.folder):
            log.info("report: %s", run.folder / PAGE)
        raise reported from (None if reported is error else error)
    write_report(run.folder)


@contextmanager
def dispensable(what: str) -> Iterator[None]:
    """Go on without figures, tables or a page that cannot be made: the results are written before them.

    A full disk raises, since a resumed run makes them.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - any
        write_to_log("".join(traceback.format_exception(error)))
        reason = str(error) if isinstance(error, FERError) else describe_error(error)
        log.warning("WARNING: %s could not be made: %s", what, reason)


def write_report(folder: Path) -> bool:
    """Write ``report.html``, and return whether that could be done; it is not worth failing for."""
    show_progress("writing the report")
    try:
        with dispensable(PAGE):
            write_page(folder)
            return True
    except OSError as error:
        log.warning("%s could not be written: %s", PAGE, error.strerror or error)
    return False


def show_final_line(run: RunFolder, name: str = "") -> None:
    """Say in one line how accurate a finished run is, and where its page is.

    Args:
        run: The folder.
        name: What the line begins with, such as the job of a sweep.
    """
    with dispensable("the final line"):
        sentence = accuracy_sentence(read_json_object(run.folder / "metrics.json") or {})
        page = f"; report: {run.folder / PAGE}" if (run.folder / PAGE).exists() else ""
        log.info("%s", f"{name}{sentence}{page}")


def describe_process(num_threads: int, device: hardware.Device, index: int = 0) -> dict[str, Any]:
    """Return what ``run.json`` records of machine, code and libraries."""
    return {
        "machine": hardware.describe_machine(device, index),
        "git": hardware.describe_git(),
        "versions": hardware.describe_versions(),
        "num_threads": num_threads,
    }


def write_config(folder: Path, config: Mapping[str, Any], overrides: Sequence[str] | None = None) -> None:
    """Write the resolved config, and the overrides that led to it."""
    write_atomically(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))
    if overrides is not None:
        write_atomically(folder / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(list(overrides))))


def load_data(data: FERDataModule, run: RunFolder, *, dealt: str | None = None) -> None:
    """Decode the images or find them in the cache, split them, and report what they are.

    Args:
        data: Before or after ``setup``.
        run: The run folder.
        dealt: A split that is worth a warning if it was dealt out and is not the data set's own.
    """
    show_progress("loading the data")
    data.setup()
    facts = summarise_data(data)
    run.update(data=facts)
    log.info("%s", facts["summary"])
    for note in facts["notes"]:
        if note not in data.faces.notes:  # the audit has those
            log.warning("WARNING: %s", note)
    show_progress("auditing the data")
    cache_dir = audit_folder(data.cache_dir)
    audit = load_audit(data.faces, cache_dir=cache_dir, name=str(data.name), log=log.info)
    if dealt is not None and is_dealt(data.source, dealt):
        audit["warnings"].append(
            f"{data.name} has no {dealt} split of its own: {len(data.split_rows(dealt)):,} of its "
            f"{len(data.faces.labels):,} images were dealt out for it; split=all evaluates all images"
        )
    write_json(run.folder / "audit.json", audit)
    for warning in audit["warnings"]:
        log.warning("WARNING: %s", warning)


def explain_results(
    folder: Path, data: FERDataModule, split: str, predictions: Predictions, classifier: FERClassifier
) -> None:
    """Write what the network looks at and the map of its embeddings, for the page."""
    images = data.images_of(predictions.ids)
    show_progress("explaining the predictions")
    with dispensable("heat maps of the classes"):
        explain_split(classifier, predictions, images).save(folder / f"explanations_{split}.npz")
    with dispensable("the map of the embeddings"):
        placed = map_embeddings(predictions, images)
        if placed is not None:
            placed.save(folder / f"embeddings_{split}.npz")


def draw_figures(folder: Path, data: FERDataModule, split: str, predictions: Predictions) -> None:
    """Draw the figures that need images; results and audit must be written already."""
    show_progress("drawing figures")
    faces = data.faces
    train = data.rows["train"] if len(data.rows["train"]) else data.split_rows(split)
    with dispensable("figures of the audit"):
        draw_audit(folder, images=faces.images, labels=faces.labels, classes=faces.classes)
    with dispensable("figures of the results"):
        draw_all(
            folder,
            split=split,
            images=data.images_of(predictions.ids),
            train_samples=(faces.images[train], faces.labels[train]),
        )


def show_results(metrics: Mapping[str, Any], split: str, *, one_of_several: bool = False) -> None:
    """Show a split's table per class, its confusion matrix, and the run's headline.

    Args:
        metrics: The content of ``metrics.json``.
        split: The reported split.
        one_of_several: Show nothing: a table compares the runs at the end.
    """
    if one_of_several:
        return
    with dispensable("tables per class"):
        show(per_class_table(metrics[split], title=split))
        show(confusion_table(metrics[split], title=split, width=min(console.width, 120)))
    with dispensable("the table of the results"):
        show(headline_table(dict(metrics)))
