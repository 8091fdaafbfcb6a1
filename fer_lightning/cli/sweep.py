"""The end of a sweep: its record, its summary and its page."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fer_lightning.config.folders import CONFIG_DIR
from fer_lightning.core.errors import FERError, exit_with_error
from fer_lightning.core.program import command_line, pasteable
from fer_lightning.core.signals import RunStopped, stop_requested
from fer_lightning.runs.sweep import Sweep, current_sweep


@contextmanager
def recorded_sweep() -> Iterator[None]:
    """Record how the command's sweep ends, if it runs one, and summarise its jobs unless it was stopped."""
    state = "failed"
    try:
        yield
        state = "finished"
    except BaseException as error:
        if stop_requested() or isinstance(error, RunStopped):
            state = "interrupted"
        raise
    finally:
        if (sweep := current_sweep()) is not None:
            try:
                _close(sweep, state)
            except (FERError, OSError) as error:
                exit_with_error(FERError(f"the sweep's summary could not be written: {error}"))
            if state == "interrupted":
                options = [shlex.quote(word) for word in sys.argv[1:] if word.startswith(CONFIG_DIR)]
                again = " ".join([command_line("train"), *options, pasteable("resume", sweep.folder)])
                print(f"stopped; to continue: {again}")  # noqa: T201


def _close(sweep: Sweep, state: str) -> None:
    """Summarise and record a sweep, unless other processes still work on it."""
    if not sweep.leave():
        print(f"{sweep.folder}: other processes go on with this search; the last one writes its page")  # noqa: T201
        return
    num_jobs = 0
    if state != "interrupted":  # a scheduler that stops it grants only seconds
        num_jobs = summarise_sweep(sweep.folder)
    sweep.end(state)
    if state == "finished" and not num_jobs:
        exit_with_error(FERError("-m: no job was run; an override lists no values"))


def summarise_sweep(folder: Path) -> int:
    """Write ``summary.csv`` and the page that compares a sweep's jobs; show the table; count the jobs."""
    jobs = [path.parent for path in folder.glob("*/run.json")]
    if not jobs:
        return 0
    from fer_lightning.core.terminal import log, show, start_terminal
    from fer_lightning.report.comparison_page import write_comparison
    from fer_lightning.report.search_section import best_of_search
    from fer_lightning.report.summary import summarise_runs, write_summary_csv
    from fer_lightning.report.summary_table import summary_table

    start_terminal()
    jobs.sort(key=lambda job: int(job.name.split("_")[0]) if job.name.split("_")[0].isdecimal() else -1)
    rows = summarise_runs(jobs)
    write_summary_csv(rows, folder / "summary.csv")
    page = write_comparison(jobs, folder / "report.html")
    show(summary_table(rows))
    if any(folder.glob("*/wandb/offline-run-*")):
        place = shlex.quote(str(folder))
        log.info("W&B: recorded offline; to publish it:\n  wandb sync %s/*/wandb", place)
    if best := best_of_search(folder):
        log.info("%s; to train with its settings:\n  %s", *best)
    log.info("sweep report: %s", page)
    return len(jobs)
