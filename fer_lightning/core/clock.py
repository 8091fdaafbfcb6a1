"""Points in time as text."""

from datetime import datetime


def now() -> str:
    """Return the local time as an ISO date with its zone, to the millisecond."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
