"""Logging to Weights & Biases, which can fail without stopping a run.

The record of a run is its ``metrics.csv`` and ``metrics.json``. W&B shows the same numbers: online with a
key, offline without one, and never with a prompt.

What reaches W&B: the resolved config without this machine's folders; of ``run.json`` the git commit and
whether it was changed, the fingerprint and the counts of the data, the number of parameters; the metrics of
every epoch and the loss of single steps; the results; of an evaluated split the confusion matrix, the table
per class, of test also ROC and precision-recall curves, and up to 24 wrongly classified images. Only with
``log_predictions``: every test image with its id, label and predicted probabilities. Only with
``log_model``: checkpoints, ``report.html`` (which shows images), metrics, config and predictions as files,
with this machine's folders in the config, and the facts of the data set, but not its images. W&B itself adds
the load of the machine, its host name, hardware and operating system, the paths of the script and of the
interpreter with the command's arguments, and the list of installed packages. Code and console output are not
sent.
"""

import logging
import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray

from fer_lightning.training.loggers.wandb_artifacts import log_artifacts
from fer_lightning.training.loggers.wandb_config import (
    flatten_config,
    headline_numbers,
    record_columns,
    result_rows,
)
from fer_lightning.training.loggers.wandb_curves import curves
from fer_lightning.training.loggers.wandb_media import (
    SplitPredictions,
    confusion_matrix,
    mistakes,
    per_class_table,
    predictions_table,
    read_table,
    results_table,
)
from fer_lightning.training.loggers.wandb_open import open_run
from fer_lightning.training.loggers.wandb_session import (
    end_service,
    first_line,
    offline_commands,
    tables_staged_in,
)
from fer_lightning.training.loggers.wandb_settings import (
    DEFAULT_PROJECT,
    LogModel,
    Mode,
    check_environment,
    check_options,
    check_run_id,
    in_wandb_sweep,
    resolve_settings,
)

log = logging.getLogger(__name__)

_LIVE = ("train/loss", "val/loss", "val/acc")  # curves whose last value the table of runs shows meanwhile


class FailsafeWandbLogger(Logger):
    """A Lightning logger that owns one W&B run.

    Whatever wandb raises becomes one warning, and the run continues: a run that cannot start online is
    recorded offline, and one that cannot start at all or breaks later is no longer recorded. It differs from
    Lightning's ``WandbLogger`` in this, and in that ``finalize`` leaves the run open for test results and
    figures: call ``finish``. ``finish`` also ends wandb's background process, so that the next job of a
    sweep starts with a new one and a clean environment.

    Null means what the environment says (``WANDB_PROJECT``, ``WANDB_ENTITY``, ``WANDB_RUN_GROUP``,
    ``WANDB_JOB_TYPE``, ``WANDB_TAGS``, ``WANDB_NOTES``, ``WANDB_NAME``), else the default.

    Args:
        run_dir: The run folder; everything wandb keeps goes to ``wandb/`` in it.
        project: W&B project; the default is ``fer_lightning``.
        entity: W&B user or team; the default is that of the account.
        group: Name that the jobs of one sweep share.
        job_type: What kind of run this is, such as ``eval``; the default is ``train``.
        tags: Words to filter runs by.
        notes: A sentence about the run, Markdown.
        mode: ``online``, ``offline`` or ``disabled``. Null is automatic: ``$WANDB_MODE`` or W&B's own
            settings file where they say something, else online when wandb finds a key for its server, else
            offline.
        name: Name of the run; the default is the name of the run folder.
        run_id: Id of the W&B run to continue; null starts a new one, with ``$WANDB_RUN_ID`` if it is set.
        log_model: Which checkpoints become artifacts, together with the results and the facts of the data
            set: ``best``, ``all`` or ``none``.
        log_predictions: Whether to send every test image in a table with its prediction.
        log_every_n_steps: Optimiser steps between two points of ``train/loss_step``; null logs none.

    Raises:
        FERError: If W&B would refuse a setting, or a variable of the environment is nonsense.
    """

    def __init__(
        self,
        *,
        run_dir: str | Path,
        project: str | None = None,
        entity: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Sequence[str] | None = None,
        notes: str | None = None,
        mode: Mode | None = None,
        name: str | None = None,
        run_id: str | None = None,
        log_model: LogModel = "none",
        log_predictions: bool = False,
        log_every_n_steps: int | None = 50,
    ) -> None:
        super().__init__()
        check_options(mode, log_model, log_predictions, log_every_n_steps)
        check_environment()
        check_run_id("logger.run_id", run_id)
        self.log_model = log_model
        self.log_predictions = log_predictions
        self.log_every_n_steps = log_every_n_steps
        self._run_dir = Path(run_dir).absolute()
        self._mode = mode
        given = {"project": project, "entity": entity, "group": group, "job_type": job_type, "tags": tags}
        defaults = {"project": DEFAULT_PROJECT, "job_type": "train", "name": self._run_dir.name}
        self._init_arguments = resolve_settings(given | {"notes": notes, "name": name}, defaults)
        self._project = str(self._init_arguments["project"])
        # Chosen here, to know the folder of a run that did not come to life.
        self._id = run_id or os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
        if run_id is not None:
            self._init_arguments["resume"] = "allow"
        if in_wandb_sweep():  # the agent's run; wandb warns of settings that it ignores
            self._id = os.environ.get("WANDB_RUN_ID") or self._id
            for key in ("project", "entity"):
                del self._init_arguments[key]
        else:
            self._init_arguments["id"] = self._id
        self._run: wandb.Run | None = None
        self._curves: set[str] = set()
        self._recording = True
        self._look = "not recorded in W&B"

    @property
    def name(self) -> str:
        """The W&B project, as Lightning's own W&B logger has it."""
        return self._project

    @property
    def version(self) -> str:
        """The id of the W&B run."""
        return self._id

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self._run_dir)

    def identity(self) -> dict[str, Any]:
        """Return what ``run.json`` keeps, to continue the W&B run where the run is resumed."""
        return {"id": self._id, "name": self._init_arguments["name"], "project": self._project}

    @property
    def _wandb_dir(self) -> Path:
        return self._run_dir / "wandb"

    def view_instructions(self) -> str:
        """Say where this run is seen: its address, or the commands for an offline run, each on a line."""
        return self._look

    @rank_zero_only
    def start(self, config: Mapping[str, Any] | None = None, record: Mapping[str, Any] | None = None) -> None:
        """Open the W&B run, unless it is open, and give it the run's config.

        Anything logged before opens it too, then without a config.

        Args:
            config: The resolved config as plain containers; sent as ``flatten_config`` gives it.
            record: The content of ``run.json``; ``choices`` names the options of the config's groups.
        """
        if self._run is None and self._recording:
            self._run = self._open()
        if config is not None:
            record = record or {}
            columns = flatten_config(config, record.get("choices")) | record_columns(record)
            self._record(lambda run: self._set_columns(run, columns))

    @staticmethod
    def _set_columns(run: wandb.Run, columns: Mapping[str, Any]) -> None:
        if in_wandb_sweep():  # its parameters are there, and locked: wandb warns of another value
            present = set(run.config.keys())  # type: ignore[no-untyped-call]
            columns = {key: value for key, value in columns.items() if key not in present}
        run.config.update(columns, allow_val_change=True)  # type: ignore[no-untyped-call]

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a point to the curves.

        Args:
            metrics: Numbers by name, with ``epoch`` among them: the x-axis of every curve. Where it is
                missing the last one given holds.
            step: Index of the optimiser step, which is W&B's own step, too: the points of a run that was
                resumed offline go on where the earlier ones end, and a repeated step adds no second point.
        """

        def record(run: wandb.Run) -> None:
            for key in metrics.keys() - self._curves:
                # The table of runs shows the results of the best checkpoint, which `log_result` sets.
                kept = None if key in _LIVE else "none"
                axis = "trainer/global_step" if key.endswith("_step") else "epoch"
                if key not in ("epoch", "trainer/global_step"):
                    run.define_metric(key, step_metric=axis, summary=kept)
                self._curves.add(key)
            if step is None:
                run.log(dict(metrics))
            else:
                run.log({**metrics, "trainer/global_step": step}, step=step)

        self._record(record)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: ``start`` sends the whole config, of which a module's arguments are a part."""

    @rank_zero_only
    def log_result(self, metrics: Mapping[str, Any], record: Mapping[str, Any] | None = None) -> None:
        """Set what the table of runs shows, see ``headline_numbers``, and log all results as a table.

        Args:
            metrics: The content of ``metrics.json``; its parts per class are left to ``log_evaluation``.
            record: The content of ``run.json``.
        """
        numbers, rows = headline_numbers(metrics, record or {}), result_rows(metrics)

        def send(run: wandb.Run) -> None:
            with tables_staged_in(Path(run.settings.sync_dir)):
                run.log({"results": results_table(rows)})
            run.summary.update(numbers)  # after the last point of the curves, which sets val/acc, too

        self._record(send)

    @rank_zero_only
    def log_summary(self, numbers: Mapping[str, int | float]) -> None:
        """Set numbers that the table of runs shows."""
        self._record(lambda run: run.summary.update(dict(numbers)))

    @rank_zero_only
    def log_evaluation(
        self,
        split: str,
        predictions: SplitPredictions,
        metrics: Mapping[str, Any],
        images: NDArray[np.uint8],
    ) -> None:
        """Show one split: confusion matrix, table per class, and the most confident mistakes as images.

        Of test, also ROC and precision-recall curves, and with ``log_predictions`` every image.

        Args:
            split: Name of the split, the first part of the keys.
            predictions: What was said of its ``N`` images.
            metrics: The split's part of ``metrics.json``; of it ``per_class``: class, measure, number.
            images: ``(N, S, S)`` or ``(N, C, S, S)`` uint8, in the order of ``predictions``.
        """
        assert len(images) == len(predictions), (len(images), len(predictions))

        def record(run: wandb.Run) -> None:
            # The images first: online, a table asks the server a question, and fails where that is gone.
            run.log({f"{split}/mistakes": mistakes(predictions, images)})
            with tables_staged_in(Path(run.settings.sync_dir)):
                tables = {
                    f"{split}/confusion_matrix": confusion_matrix(split, predictions),
                    f"{split}/per_class": per_class_table(metrics["per_class"]),
                }
                if split == "test":
                    tables |= curves(split, predictions)
                    if self.log_predictions:
                        tables[f"{split}/predictions"] = predictions_table(predictions, images)
                run.log(tables)

        self._record(record)

    @rank_zero_only
    def log_files(self, folder: Path, record: Mapping[str, Any]) -> None:
        """Show the figure of the confusion matrix and, with ``log_model``, log the run's files as artifacts.

        Args:
            folder: The run folder; a file that is not there is left out.
            record: The content of ``run.json``.
        """

        def send(run: wandb.Run) -> None:
            figure = folder / "figures" / "confusion_test.png"
            if figure.is_file():
                run.log({"test/confusion_matrix_figure": wandb.Image(str(figure))})
            if self.log_model != "none":
                with tables_staged_in(Path(run.settings.sync_dir)):
                    log_artifacts(run, folder, self.log_model, record)

        self._record(send)

    def log_report(self, page: Path, tables: Iterable[Path]) -> None:
        """Show a report: its page, and its tables to sort and filter.

        Args:
            page: A self-contained HTML file.
            tables: CSV files, each under ``report/`` and its name.
        """

        def record(run: wandb.Run) -> None:
            run.log({"report/page": wandb.Html(page.read_text(encoding="utf-8"), inject=False)})
            with tables_staged_in(Path(run.settings.sync_dir)):
                run.log({f"report/{path.stem}": read_table(path) for path in tables})

        self._record(record)

    @rank_zero_only
    def finish(self, exit_code: int) -> None:
        """Close the W&B run with its true end, in little more than ``FINISH_TIMEOUT`` at worst.

        A second call does nothing.

        Args:
            exit_code: 0 where the run went well; anything else shows it as failed.
        """
        run, self._run = self._run, None
        if run is not None:
            try:
                run.finish(exit_code=exit_code)
            except Exception as error:  # noqa: BLE001 whatever wandb raises, the run has ended as it has
                if isinstance(error, TimeoutError):  # its server lacks what the disk has
                    self._look = offline_commands(self._wandb_dir)
                self._disable("W&B could not close its run", error)
            end_service()
        self._recording = False

    def _record(self, action: Callable[[wandb.Run], object]) -> None:
        """Do something with the W&B run, if there still is one; the first failure ends the recording."""
        self.start()
        if self._run is None or not self._recording:
            return
        try:
            action(self._run)
        except Exception as error:  # noqa: BLE001 whatever wandb raises, the run goes on
            self._disable("W&B failed and records no more of this run", error)

    def _disable(self, sentence: str, error: Exception) -> None:
        if self._recording:
            log.warning("%s: %s", sentence, first_line(error))
        self._recording = False

    def _open(self) -> wandb.Run | None:
        """Start the run as asked, else offline, else not at all."""
        try:
            run = open_run(self._init_arguments, self._wandb_dir, self._mode, self._id)
        except Exception as error:  # noqa: BLE001 whatever wandb raises, the run goes on
            self._disable("W&B does not record this run", error)
            end_service()
            return None
        if run is None:
            self._recording = False
            return None
        self._look = offline_commands(self._wandb_dir) if run.offline else str(run.url)
        return run
