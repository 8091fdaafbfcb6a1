"""Jobs of Slurm that are stopped and started again: the command continues by itself.

With ``#SBATCH --requeue --signal=USR1@120`` Slurm sends SIGUSR1 two minutes before a job's time ends. The run
saves, asks Slurm to queue the job again, and the same command continues where it was.
"""

import logging
import os
import signal
import subprocess
from collections.abc import Sequence

log = logging.getLogger("fer_lightning")


def resume_if_requeued(arguments: Sequence[str]) -> list[str]:
    """Add ``resume=auto`` to the arguments of a job that Slurm has started again.

    Args:
        arguments: The command's arguments; returned as they are outside Slurm, at a job's first start, and
            where ``resume`` is given.
    """
    requeued = os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")
    given = any(argument.startswith(("resume=", "-h", "--help")) for argument in arguments)
    return list(arguments) if given or not requeued else [*arguments, "resume=auto"]


def requeue_if_asked(signal_number: int) -> None:
    """Ask Slurm to queue this job again, if SIGUSR1 announced the end of its time."""
    job = os.environ.get("SLURM_JOB_ID")
    if signal_number != signal.SIGUSR1 or job is None:
        return
    try:
        subprocess.run(  # noqa: S603 - fixed arguments
            ["scontrol", "requeue", job],  # noqa: S607 - the cluster's own
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        log.warning("Slurm will start job %s again, and this command will continue by itself", job)
    except (OSError, subprocess.SubprocessError) as error:
        reason = " ".join((getattr(error, "stderr", None) or str(error)).split())
        log.warning("Slurm did not queue job %s again (%s)", job, reason)
