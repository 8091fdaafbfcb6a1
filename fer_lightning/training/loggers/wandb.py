"""Logging to Weights & Biases, which can fail without stopping a run.

The record of a run is its ``metrics.csv`` and ``metrics.json``. W&B shows the same numbers: online with a
key, offline without one, and never with a prompt.

What reaches W&B: the resolved config without this machine's folders, the metrics of every epoch, the
results, and of an evaluated split the confusion matrix, the table per class and up to 24 wrongly classified
images. W&B itself adds the load of the machine, its host name, hardware and operating system, the paths of
the script and of the interpreter with the command's arguments, and the list of installed packages. Code, git
state, console output and checkpoints are not sent.
"""

import logging
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.training.loggers.wandb_media import (
    SplitPredictions,
    confusion_matrix,
    flatten,
    flatten_config,
    mistakes,
    per_class_table,
    read_table,
)
from fer_lightning.training.loggers.wandb_session import (
    Mode,
    check_writable,
    end_service,
    first_line,
    offline_commands,
    resolve_mode,
    tables_staged_in,
    timeouts,
)

log = logging.getLogger(__name__)


class FailsafeWandbLogger(Logger):
    """A Lightning logger that owns one W&B run.

    Whatever wandb raises becomes one warning, and the run continues: a run that cannot start online is
    recorded offline, and one that cannot start at all or breaks later is no longer recorded. It differs from
    Lightning's ``WandbLogger`` in this, and in that ``finalize`` leaves the run open for test results and
    figures: call ``finish``. ``finish`` also ends wandb's background process, so that the next job of a
    sweep starts with a new one and a clean environment.

    Args:
        run_dir: The run folder; everything wandb keeps goes to ``wandb/`` in it.
        project: W&B project.
        entity: W&B user or team; null is the default of the account.
        group: Name that the jobs of one sweep share.
        job_type: What kind of run this is, such as ``train`` or ``eval``.
        tags: Words to filter runs by.
        notes: A sentence about the run, Markdown.
        mode: ``online``, ``offline`` or ``disabled``. Null is automatic: ``$WANDB_MODE`` or W&B's own
            settings file where they say something, else online when wandb finds a key for its server, else
            offline.
        name: Name of the run; null is the name of the run folder.

    Raises:
        FERError: If ``mode`` is none of these.
    """

    def __init__(
        self,
        *,
        run_dir: str | Path,
        project: str = "fer_lightning",
        entity: str | None = None,
        group: str | None = None,
        job_type: str = "train",
        tags: Sequence[str] = (),
        notes: str | None = None,
        mode: Mode | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__()
        if mode not in (None, "online", "offline", "disabled"):
            raise FERError(f"logger.mode={mode!r}: expected null, online, offline or disabled")
        self._run_dir = Path(run_dir).absolute()
        self._project = project
        self._mode = mode
        self._init_arguments: dict[str, Any] = {
            "project": project,
            "entity": entity,
            "group": group,
            "job_type": job_type,
            "tags": list(tags),
            "notes": notes,
            "name": name or self._run_dir.name,
            # Chosen here, to know the folder of a run that did not come to life.
            "id": secrets.token_hex(4),
        }
        self._run: wandb.Run | None = None
        self._recording = True
        self._look = "not recorded in W&B"

    @property
    def name(self) -> str:
        """The W&B project, as Lightning's own W&B logger has it."""
        return self._project

    @property
    def version(self) -> str:
        """The id of the W&B run."""
        return str(self._init_arguments["id"])

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self._run_dir)

    def view_instructions(self) -> str:
        """Say in one line where this run is seen: its address, or the commands for an offline run."""
        return self._look

    @rank_zero_only
    def start(self, config: Mapping[str, Any] | None = None) -> None:
        """Open the W&B run, unless it is open, and give it the run's config.

        Anything logged before opens it too, then without a config.

        Args:
            config: The resolved config as plain containers; sent as ``flatten_config`` gives it.
        """
        if self._run is None and self._recording:
            self._run = self._open()
        if config is not None:
            columns = flatten_config(config)
            self._record(
                lambda run: run.config.update(columns, allow_val_change=True)  # type: ignore[no-untyped-call]
            )

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a point to the curves.

        Args:
            metrics: Numbers by name, with ``epoch`` among them: the x-axis of every curve. Where it is
                missing the last one given holds.
            step: Optimiser steps taken so far.
        """
        point = dict(metrics) if step is None else {**metrics, "trainer/global_step": step}
        self._record(lambda run: run.log(point))

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: ``start`` sends the whole config, of which a module's arguments are a part."""

    @rank_zero_only
    def log_result(self, metrics: Mapping[str, Any]) -> None:
        """Set what the table of runs shows: ``test/acc``, ``test/ci95/acc/low``, ``test/leak_free/acc``.

        Args:
            metrics: The content of ``metrics.json``; its parts per class are left to ``log_evaluation``.
        """
        result: dict[str, int | float | str] = {}
        for key, value in flatten(metrics):
            parts = key.split("/")
            if "ci95" in parts and value is not None:
                result |= {f"{key}/low": value[0], f"{key}/high": value[1]}
            elif isinstance(value, int | float | str) and "per_class" not in parts:
                result[key] = value
        self._record(lambda run: run.summary.update(result))

    @rank_zero_only
    def log_evaluation(
        self,
        split: str,
        predictions: SplitPredictions,
        metrics: Mapping[str, Any],
        images: NDArray[np.uint8],
    ) -> None:
        """Show one split: confusion matrix, table per class, and the most confident mistakes as images.

        Args:
            split: Name of the split, the first part of the keys.
            predictions: What was said of its ``N`` images.
            metrics: The split's part of ``metrics.json``; of it ``per_class``: class, measure, number.
            images: ``(N, S, S)`` uint8 grey levels, in the order of ``predictions``.
        """
        assert len(images) == len(predictions), (len(images), len(predictions))

        def record(run: wandb.Run) -> None:
            # The images first: online, a table asks the server a question, and fails where that is gone.
            run.log({f"{split}/mistakes": mistakes(predictions, images)})
            with tables_staged_in(Path(run.settings.sync_dir)):
                run.log(
                    {
                        f"{split}/confusion_matrix": confusion_matrix(split, predictions),
                        f"{split}/per_class": per_class_table(metrics["per_class"]),
                    }
                )

        self._record(record)

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
                    self._look = offline_commands(Path(run.settings.sync_dir))
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
            mode = resolve_mode(self._mode)
            if mode == "disabled":
                self._recording = False
                end_service()
                return None
            check_writable(self._run_dir / "wandb")
            try:
                return self._init(mode)
            except Exception as error:
                if mode == "offline":
                    raise
                log.warning(
                    "W&B can't be used online, so this run is recorded offline: %s", first_line(error)
                )
                return self._init("offline")
        except Exception as error:  # noqa: BLE001 whatever wandb raises, the run goes on
            self._disable("W&B does not record this run", error)
            end_service()
            return None

    def _init(self, mode: Mode) -> wandb.Run:
        try:
            run = wandb.init(
                **self._init_arguments,
                dir=self._run_dir,
                mode=mode,
                settings=wandb.Settings(
                    console="off",
                    silent=True,
                    save_code=False,
                    disable_git=True,
                    finish_timeout_raises=True,
                    reinit="create_new",  # by default a job would go on in a run that another left open
                    use_dot_wandb=False,
                    **timeouts(),
                ),
            )
            run.define_metric("epoch", hidden=True)
            run.define_metric("trainer/global_step", hidden=True)
            run.define_metric("*", step_metric="epoch", step_sync=True)
        except Exception:
            self._discard()
            raise
        self._look = str(run.url) if mode == "online" else offline_commands(Path(run.settings.sync_dir))
        return run

    def _discard(self) -> None:
        """Remove the files of a failed start, so that `wandb sync` does not publish an empty run."""
        end_service()
        for folder in (self._run_dir / "wandb").glob(f"*run-*-{self.version}"):
            shutil.rmtree(folder, ignore_errors=True)
