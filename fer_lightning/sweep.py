"""A sweep's summary: a table over its jobs, ``summary.csv`` and a page that compares them.

Hydra skips ``on_multirun_end`` when a job fails, so the summary is written when the command ends, however it
ends. Imported before hydra starts: nothing heavy at the top.
"""

import json
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

_sweep_folder: Path | None = None


def jobs_at_once(hydra: DictConfig, num_cores: int) -> int:
    """Count the jobs that run side by side: several under ``hydra/launcher=joblib``, else one.

    Args:
        hydra: Hydra's own config.
        num_cores: What ``n_jobs=-1`` stands for; -2 leaves one of them, and so on, as joblib has it.
    """
    if hydra.mode != RunMode.MULTIRUN or not str(hydra.launcher.get("_target_")).endswith(".JoblibLauncher"):
        return 1
    num_jobs = int(hydra.launcher.n_jobs)
    return max(1, num_jobs if num_jobs > 0 else num_cores + 1 + num_jobs)


class SweepWatcher(Callback):
    """Hydra callback: notes where a sweep works, and the jobs that failed before they had a record."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Note the sweep's folder."""
        global _sweep_folder  # hydra hands nothing from a callback to the command
        _sweep_folder = Path(config.hydra.sweep.dir)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:  # noqa: ARG002
        """Write a record for a job that failed before it could write one."""
        folder = Path(config.hydra.runtime.output_dir)
        error = job_return._return_value
        if (
            config.hydra.mode != RunMode.MULTIRUN
            or not isinstance(error, Exception)
            or (folder / "run.json").exists()
        ):
            return
        folder.mkdir(parents=True, exist_ok=True)
        record = {
            "schema": 1,
            "state": "failed",
            "reason": str(error),
            "overrides": list(job_return.overrides or []),
            "model": config.hydra.runtime.choices.get("model"),
            "job_num": config.hydra.job.num,
        }
        (folder / "run.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def finish_sweep() -> None:
    """Summarise the sweep this command ran, if it ran one."""
    if _sweep_folder is None or not _sweep_folder.is_dir():
        return
    jobs = [path.parent for path in _sweep_folder.glob("*/run.json")]
    if not jobs:
        return
    from fer_lightning.report.page import write_comparison
    from fer_lightning.report.tables import summarise_runs, summary_table, write_summary_csv
    from fer_lightning.terminal import log, show, start_terminal

    start_terminal()
    jobs.sort(key=lambda job: int(job.name.split("_")[0]) if job.name.split("_")[0].isdigit() else -1)
    rows = summarise_runs(jobs)
    write_summary_csv(rows, _sweep_folder / "summary.csv")
    page = write_comparison(jobs, _sweep_folder / "report.html")
    show(summary_table(rows))
    log.info("sweep report: %s", page)
