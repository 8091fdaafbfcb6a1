"""What goes wrong by a user's hand, and how a stopped run ends."""

from hydra.errors import CompactHydraException


class FERError(CompactHydraException, ValueError):
    """A mistake in a command, a config, a file or a folder, told in one sentence.

    The sentence names the argument or the file (and line), what was found, what was expected and what to do.
    Hydra prints an exception of this family without its traceback, ends with exit code 1, and goes on with
    the other jobs of a sweep.
    """


class RunStopped(SystemExit):
    """A signal ended the run after its checkpoint was written.

    Not an ``Exception``, so that it ends a whole sweep; the exit code is 128 plus the signal's number, as
    shells expect: 143 for SIGTERM, 130 for SIGINT.

    Args:
        signal_number: The signal that asked the run to stop.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(128 + signal_number)
        self.signal_number = signal_number
