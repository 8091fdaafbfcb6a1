"""What Slurm says of jobs: which have ended, and whether this one was preempted.

``squeue`` answers on every cluster; ``sacct``, which submitit asks, only where Slurm keeps accounts.
"""

import logging
import os
import re
import subprocess
import time

log = logging.getLogger("fer_lightning")

# Why a job waits where nothing has to be done about it.
_USUAL = {
    "None",
    "Priority",
    "Resources",
    "JobArrayTaskLimit",
    "BeginTime",
    "Cleaning",
    "Prolog",
    "Dependency",
}
_INTERVAL = 10.0  # seconds between two questions
_ACTIVE = {
    "PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD",
    "RESIZING", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "RESV_DEL_HOLD",
}  # fmt: skip


class Queue:
    """Slurm's queue, of which it is asked every ten seconds at most."""

    def __init__(self) -> None:
        self._active: set[str] | None = None
        self._asked = float("-inf")
        self._seen_gone: dict[str, float] = {}
        self._reasons: dict[str, str] = {}
        self._said: set[str] = set()

    def has_ended(self, job: str) -> bool:
        """Return whether Slurm runs a job no longer, nor will: it has said so twice.

        Args:
            job: Its id, such as ``17`` or ``17_0``.
        """
        if time.monotonic() - self._asked >= _INTERVAL:
            self._ask()
        if self._active is None or job in self._active:
            self._seen_gone.pop(job, None)
            reason = self._reasons.get(job, "None")
            if reason not in _USUAL | self._said:
                self._said.add(reason)
                log.warning(
                    "Slurm lets job %s wait: %s; if that does not pass, change hydra.launcher", job, reason
                )
            return False
        first = self._seen_gone.setdefault(job, self._asked)
        return self._asked > first

    def _ask(self) -> None:
        self._asked = time.monotonic()
        listed = _output("squeue", "--noheader", "--array", "--states=all", "--format=%i %T %r", "--me")
        if listed is None:  # Slurm does not answer now: nothing is known
            self._active = None
            return
        rows = [line.split(maxsplit=2) for line in listed.splitlines()]
        rows = [row for row in rows if len(row) == 3]
        self._active = {job for job, state, _ in rows if state in _ACTIVE}
        self._reasons = {job: reason.strip("()") for job, state, reason in rows if state == "PENDING"}


def was_preempted() -> bool:
    """Return whether Slurm stops this job in favour of another one, and will not start it again by itself.

    So it is while a partition's grace time runs; a job that is cancelled, or that Slurm has queued again, is
    in another state than running.
    """
    text = _output("scontrol", "--oneliner", "show", "job", os.environ.get("SLURM_JOB_ID", "")) or ""
    preempted = re.search(r"PreemptTime=(\S+)", text)
    return "JobState=RUNNING" in text and preempted is not None and preempted[1] not in ("None", "Unknown")


def _output(*command: str) -> str | None:
    """Return what a program of Slurm prints; None where it fails."""
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
