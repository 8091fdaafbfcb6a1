"""The memory that this process may take."""

from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Return the bytes that are free on this machine or in its container; None where nothing says so."""
    try:
        (line,) = (line for line in _MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:"))
        free = 1024 * int(line.split()[1])
    except (OSError, ValueError):  # not Linux
        return None
    try:
        limit, used = (int((_CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        cached = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return max(0, min(free, limit - used + int(cached.get("inactive_file", 0))))
    except (OSError, ValueError):  # no cgroup v2, or no limit ("max")
        return free
