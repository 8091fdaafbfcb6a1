"""Weights & Biases as a window on a run: it may break, the run may not.

The record of a run is its own ``metrics.csv`` and ``metrics.json``. This module shows the same numbers in
W&B: online with a key, offline without one, never with a prompt, and never at the price of the run.

What reaches W&B: the resolved config without this machine's folders, the metrics of every epoch, the
results, and of an evaluated split the confusion matrix, the table per class and up to 24 wrongly classified
images. W&B itself adds the load of the machine, its host name, hardware and operating system, the paths of
the script and of the interpreter with the command's arguments, and the list of installed packages. Code, git
state, console output and checkpoints are not sent.
"""

import csv
import logging
import os
import secrets
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import wandb
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.evaluation.predictions import Predictions

Mode = Literal["online", "offline", "disabled"]

# Seconds; $WANDB_INIT_TIMEOUT and $WANDB_FINISH_TIMEOUT go before them.
INIT_TIMEOUT = 20.0  # wandb waits 90 for a server that can't be reached, at the start of every job
FINISH_TIMEOUT = 60.0  # wandb waits for ever for an upload; what is left then goes by `wandb sync`
NUM_MISTAKES = 24

_log = logging.getLogger(__name__)


class FailsafeWandbLogger(Logger):
    """A Lightning logger that owns one W&B run.

    Whatever wandb raises is told in one sentence, and the run goes on: a run that can't start online is
    recorded offline, one that can't start at all or that breaks later is no longer recorded. Lightning's
    ``finalize`` leaves the run open, because ``test`` and the figures follow ``fit``: call ``finish``.

    One window at a time: ``finish`` also ends wandb's background process, so that the next job of a sweep
    begins with a fresh one and a clean environment.

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
        for key, value in _flatten(metrics):
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
        predictions: Predictions,
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
            run.log({f"{split}/mistakes": _mistakes(predictions, images)})
            with _tables_staged_in(Path(run.settings.sync_dir)):
                run.log(
                    {
                        f"{split}/confusion_matrix": _confusion_matrix(split, predictions),
                        f"{split}/per_class": _per_class(metrics["per_class"]),
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
            with _tables_staged_in(Path(run.settings.sync_dir)):
                run.log({f"report/{path.stem}": _read_table(path) for path in tables})

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
                    self._look = _offline_commands(Path(run.settings.sync_dir))
                self._disable("W&B could not close its run", error)
            _end_service()
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
            _log.warning("%s: %s", sentence, _reason(error))
        self._recording = False

    def _open(self) -> wandb.Run | None:
        """Start the run as asked, else offline, else not at all."""
        try:
            mode = _resolve_mode(self._mode)
            if mode == "disabled":
                self._recording = False
                _end_service()
                return None
            _check_writable(self._run_dir / "wandb")
            try:
                return self._init(mode)
            except Exception as error:
                if mode == "offline":
                    raise
                _log.warning("W&B can't be used online, so this run is recorded offline: %s", _reason(error))
                return self._init("offline")
        except Exception as error:  # noqa: BLE001 whatever wandb raises, the run goes on
            self._disable("W&B does not record this run", error)
            _end_service()
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
                    **_timeouts(),
                ),
            )
            run.define_metric("epoch", hidden=True)
            run.define_metric("trainer/global_step", hidden=True)
            run.define_metric("*", step_metric="epoch", step_sync=True)
        except Exception:
            self._discard()
            raise
        self._look = str(run.url) if mode == "online" else _offline_commands(Path(run.settings.sync_dir))
        return run

    def _discard(self) -> None:
        """Remove what a start that failed has left, lest `wandb sync` publishes an empty run."""
        _end_service()
        for folder in (self._run_dir / "wandb").glob(f"*run-*-{self.version}"):
            shutil.rmtree(folder, ignore_errors=True)


def flatten_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Make a config readable as columns of a dashboard.

    ``{"model": {"_target_": "a.b.CNN", "width": 32}}`` becomes ``{"model": "CNN", "model/width": 32}``. The
    parts are joined by slashes, as in the names of metrics, because W&B takes a dot in a name for nesting.
    Left out are the logger itself, Hydra's directives, and the folders of this machine: absolute paths,
    ``root`` and ``*_dir``.

    Args:
        config: The resolved config as plain containers.

    Returns:
        Numbers, strings, lists and nulls by name.
    """
    columns = {}
    for key, value in _flatten({group: value for group, value in config.items() if group != "logger"}):
        parent, _, name = key.rpartition("/")
        if name == "_target_":
            columns[parent] = value.rpartition(".")[2]
        elif not (name.startswith("_") or _is_folder(name, value)):
            columns[key] = value
    return columns


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _is_folder(name: str, value: object) -> bool:
    if name == "root" or name.endswith("_dir"):
        return True
    return isinstance(value, str | Path) and (Path(value).is_absolute() or str(value).startswith("~/"))


def _resolve_mode(mode: Mode | None) -> Mode:
    """Settle how to run without ever letting wandb ask for a key."""
    # Settings of the process: the messages about keys heed these and not those of the run.
    settings = wandb.setup(settings=wandb.Settings(silent=True)).settings
    wanted = mode or settings.mode  # $WANDB_MODE, else what `wandb offline` wrote to a file, else online
    if wanted == "disabled":
        return "disabled"
    if wanted in ("offline", "dryrun"):
        return "offline"
    if _has_key(settings.base_url):
        return "online"
    if mode or os.environ.get("WANDB_MODE"):
        _log.warning("W&B has no key for %s, so this run is recorded offline", settings.base_url)
    return "offline"


def _has_key(server: str) -> bool:
    # Not a public function, but the very search that decides whether wandb.init would ask for a key: the
    # environment, netrc (wherever it lies), W&B's settings file. A search of our own might differ from it.
    from wandb.sdk.lib import wbauth

    try:
        auth = wbauth.authenticate_session(
            host=server, source="fer_lightning", prompt=False, update_session=False
        )
    except wandb.errors.AuthenticationError:
        return True  # there is one, malformed: wandb.init says what is wrong with it
    return auth is not None


def _timeouts() -> dict[str, Any]:
    """Bound how long wandb may hold a run up, where the environment doesn't: a setting would overrule it."""
    ours = {"init_timeout": INIT_TIMEOUT, "finish_timeout": FINISH_TIMEOUT}
    return {name: seconds for name, seconds in ours.items() if f"WANDB_{name.upper()}" not in os.environ}


def _check_writable(folder: Path) -> None:
    """Raise ``OSError`` where wandb would silently write to the system's temporary folder instead."""
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


@contextmanager
def _tables_staged_in(folder: Path) -> Iterator[None]:
    """Keep the files that wandb uploads a table from in ``folder`` instead of the user's home.

    An offline run needs them until it is synced, and no setting but the environment moves them.
    """
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_DATA_DIR"]
        else:
            os.environ["WANDB_DATA_DIR"] = before


def _end_service() -> None:
    """End wandb's background process and drop what it put into the environment."""
    with suppress(Exception):  # it was killed: then it has ended
        wandb.teardown()


def _offline_commands(folder: Path) -> str:
    here = Path.cwd()
    path = shlex.quote(str(folder.relative_to(here) if folder.is_relative_to(here) else folder))
    return f"look with `wandb leet {path}`, publish with `wandb sync {path}`"


def _reason(error: Exception) -> str:
    """Give the first line of an error: those of wandb go on with advice that doesn't fit here."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _mistakes(predictions: Predictions, images: NDArray[np.uint8]) -> list[wandb.Image]:
    """Draw the wrong answers given with most confidence, the most confident first."""
    predicted = predictions.predicted
    wrong = np.flatnonzero((predicted >= 0) & (predicted != predictions.labels))
    confidence = predictions.probs[wrong, predicted[wrong]]
    worst = wrong[np.argsort(-confidence, kind="stable")[:NUM_MISTAKES]]
    classes = predictions.classes
    return [
        wandb.Image(
            np.asarray(images[row]),
            caption=f"{classes[predictions.labels[row]]}, taken for {classes[predicted[row]]} "
            f"({predictions.probs[row, predicted[row]]:.0%}): {predictions.ids[row]}",
        )
        for row in worst
    ]


def _confusion_matrix(split: str, predictions: Predictions) -> Any:
    classes = [*predictions.classes]
    predicted = predictions.predicted
    if (predicted < 0).any():
        predicted = np.where(predicted < 0, len(classes), predicted)
        classes.append("no answer")
    return wandb.plot.confusion_matrix(
        y_true=predictions.labels.tolist(),
        preds=predicted.tolist(),
        class_names=classes,
        title=f"{split}: {len(predictions)} images",
    )


def _per_class(per_class: Mapping[str, Mapping[str, float]]) -> wandb.Table:
    measures = [*next(iter(per_class.values()))]
    rows = [[name, *(values[measure] for measure in measures)] for name, values in per_class.items()]
    return wandb.Table(columns=["class", *measures], data=rows)


def _read_table(path: Path) -> wandb.Table:
    with path.open(newline="", encoding="utf-8") as file:
        headers, *rows = csv.reader(file)
    columns = [_numbers(column) for column in zip(*rows, strict=True)]
    return wandb.Table(columns=[*headers], data=[list(row) for row in zip(*columns, strict=True)])


def _numbers(cells: Sequence[str]) -> list[float | None] | list[str | None]:
    """Read a column of a CSV file: numbers if all are, for W&B refuses to mix them with words."""
    try:
        return [float(cell) if cell else None for cell in cells]
    except ValueError:
        return [cell or None for cell in cells]
